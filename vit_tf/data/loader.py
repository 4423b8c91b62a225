"""`DataLoader`: a data set as shuffled, augmented, labelled batches, from any batch of any epoch on.

Nothing here remembers anything: the order is a function of (seed, epoch), an image's augmentation of
(seed, epoch, position in the order) and a batch's mixing of (seed, epoch, batch). So training that was
interrupted goes on with the very bytes that it would have seen, whatever the number of threads.
grain has the threads, the order in which they deliver and the prefetching.
Shapes: n images, b images of a batch, h rows, w columns, c channels, k classes.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import lru_cache, partial

import keras
import numpy as np

from vit_tf.checks import check_int, shown

LARGEST_SEED = 2**32 - 1
# A generator's purpose is a part of its seed, so that no two draw the same numbers.
ORDER, IMAGE, MIX = range(3)


class DataLoader(keras.utils.PyDataset):
    """Shuffled or ordered batches of a data set, epoch by epoch, from any batch on.

    Every image comes once an epoch; the last batch may be smaller.

    Keras's `fit`, `evaluate` and `predict` take it as it is: each pass over the data is the next epoch. `fit`
    shuffles the batches of an epoch by default; with `shuffle=False` they come in the order of `epoch`.

    Args:
        images: sequence with `len()`, whose items are what `transform` takes: `DecodedImages`,
            `CachedImages`, or an array (n, h, w, c). Several threads read it at once.
        labels: integers [n] in 0 .. num_classes - 1; or, of images with several classes or none, bool
            [n, k].
        num_classes: int, k.
        batch_size: int, b.
        transform: callable `(item, numpy.random.Generator) -> image (h, w, c)`, uint8 or float32 or a
            picture of Pillow, of one size for all. Several threads call it at once. None for images that
            are so already; whole batches are cut from an array then.
        mix: callable `(images, labels, numpy.random.Generator) -> (images, labels)` on a whole batch, such
            as `vit_tf.data.augment.mixing.MixUpCutMix`. None for none.
        shuffle: bool, a new order each epoch.
        seed: int in [0, 2**32).
        num_threads: int, how many threads read and transform. None for one more than there are cores: one
            waits for the disk.

    Raises:
        ValueError: a setting is out of range, or `images` and `labels` do not fit each other.

    Example:
        batches = DataLoader(DecodedImages(files), files.labels, 10, 64, transform=Compose([
            RandomResizedCrop(224), HorizontalFlip(), RandAugment()]), mix=MixUpCutMix(), shuffle=True)
        for images, labels in batches.epoch(0, start=120): model.train_on_batch(images, labels)
        model.fit(batches, epochs=10, shuffle=False)

    Attributes:
        keras_epoch: int, the epoch whose batches Keras gets now or next; set it to go on with an earlier run.
    """

    def __init__(
        self,
        images,
        labels,
        num_classes,
        batch_size,
        transform=None,
        mix=None,
        shuffle=False,
        seed=0,
        num_threads=None,
    ):
        check_int("num_classes", num_classes, 1)
        check_int("batch_size", batch_size, 1)
        check_int("seed", seed, 0, LARGEST_SEED)
        check_int("num_threads", num_threads, 1, optional=True)
        for name, value in (("transform", transform), ("mix", mix)):
            if not (value is None or callable(value)):
                raise ValueError(f"`{name}` must be a callable or None, got {shown(value)}")
        if not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
            raise ValueError(f"`images` must be a sequence, with len() and images[i], got {shown(images)}")
        super().__init__()
        self.images = images
        self.labels = checked_labels(labels, len(images), num_classes)
        self.num_images = len(images)
        self.num_classes = num_classes
        self.batch_size = batch_size
        self.transform = transform
        self.mix = mix
        self.shuffle = shuffle
        self.seed = seed
        self.num_threads = num_threads or num_cores() + 1
        self.is_array = isinstance(images, np.ndarray) and transform is None
        if self.is_array:
            check_image(images[0])

        self.keras_epoch = 0
        self._is_in_epoch = False
        self._num_drawn = 0

    def __len__(self):
        return -(-self.num_images // self.batch_size)

    def head(self, count):
        """Returns `DataLoader` of the first images alone, `count` of them or as many as there are."""
        head = copy(self)
        head.labels = self.labels[:count]
        head.num_images = len(head.labels)
        return head

    def epoch(self, epoch=0, start=0):
        """Returns an iterator over the batches of an epoch.

        Its `close()` ends the threads before their time; so does dropping it.

        Args:
            epoch: int from 0.
            start: int, the first batch to give, from 0 to `len(self)` (which gives none).

        Yields:
            (images, labels): images (b, h, w, c), uint8 or float32 as the transform gives them or float32
            after `mix`; labels float32 (b, k), whose rows sum to 1 unless images have several classes.

        Raises:
            ValueError: `epoch` or `start` is out of range; while iterating, the images of a batch differ in
                size or are no images. Errors of `images`, `transform` and `mix` come as they are.
            RuntimeError: one of these raised StopIteration or SystemExit.
        """
        check_int("epoch", epoch, 0, LARGEST_SEED)
        check_int("start", start, 0, len(self))
        return self._iterate(epoch, start)

    def _iterate(self, epoch, start):
        iterator = iter(self._dataset(epoch, start))
        try:
            yield from iterator
        finally:
            iterator.close()

    def _dataset(self, epoch, start):
        """Returns grain's dataset of batches: one thread for those of an array, many for pictures."""
        import grain

        order = self.order(epoch)
        if self.is_array:
            batches = grain.MapDataset.range(start, len(self)).map(partial(self._array_batch, epoch, order))
            return batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
        positions = grain.MapDataset.range(start * self.batch_size, self.num_images)
        images = positions.map(partial(self._positioned_image, epoch, order)).to_iter_dataset(
            grain.ReadOptions(
                num_threads=self.num_threads, prefetch_buffer_size=max(2 * self.batch_size, self.num_threads)
            )
        )
        batches = images.batch(self.batch_size, batch_fn=partial(self._stacked_batch, epoch, order))
        # Stacking and mixing have a thread of their own: the training step does not wait for them.
        return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1)

    def order(self, epoch):
        """Returns which image is at each position of an epoch, int64 [n]."""
        return permutation(self.num_images, self.seed, epoch) if self.shuffle else np.arange(self.num_images)

    def batch(self, epoch, index):
        """Returns (images, labels), batch `index` of an epoch: the same that `epoch` yields there.

        Raises:
            ValueError: `epoch` is out of range; or see `epoch`.
            IndexError: there is no such batch.
        """
        check_int("epoch", epoch, 0, LARGEST_SEED)
        if not 0 <= index < len(self):
            raise IndexError(f"there is no batch {index}, the last is {len(self) - 1}")
        order, first = self.order(epoch), index * self.batch_size
        if self.is_array:
            return self._array_batch(epoch, order, index)
        positions = range(first, min(first + self.batch_size, self.num_images))
        with ThreadPoolExecutor(self.num_threads) as pool:
            images = list(pool.map(partial(self._positioned_image, epoch, order), positions))
        return self._stacked_batch(epoch, order, images)

    def __getitem__(self, index):
        self._num_drawn += 1
        return self.batch(self.keras_epoch, index)

    def on_epoch_begin(self):
        self._is_in_epoch = True

    def on_epoch_end(self):
        # Before its first epoch Keras draws batches for their shape alone. On JAX and PyTorch it draws one
        # batch of an epoch that it then leaves.
        if not self._is_in_epoch:
            self._num_drawn = 0
        self._is_in_epoch = False
        passes, self._num_drawn = divmod(self._num_drawn, len(self))
        self.keras_epoch += passes

    def _generator(self, epoch, purpose, position):
        return make_generator(self.seed, epoch, purpose, position)

    def _positioned_image(self, epoch, order, position):
        image = called(self.images.__getitem__, int(order[position]))
        if self.transform:
            image = called(self.transform, image, self._generator(epoch, IMAGE, position))
        image = np.asarray(image)
        check_image(image)
        return position, image

    def _stacked_batch(self, epoch, order, positioned_images):
        positions, images = zip(*positioned_images)
        shapes = sorted({image.shape for image in images})
        if len(shapes) > 1:
            raise ValueError(
                f"the images of a batch must have one size, got {shapes[0]} and {shapes[-1]}: give a "
                "`transform` that resizes or crops them"
            )
        return self._labelled(epoch, order, positions[0] // self.batch_size, np.stack(images))

    def _array_batch(self, epoch, order, index):
        first = index * self.batch_size
        return self._labelled(epoch, order, index, self.images[order[first : first + self.batch_size]])

    def _labelled(self, epoch, order, index, images):
        """Returns batch `index` with its labels, mixed."""
        first = index * self.batch_size
        labels = as_targets(self.labels[order[first : first + len(images)]], self.num_classes)
        if self.mix:
            images, labels = called(self.mix, images, labels, self._generator(epoch, MIX, index))
        return images, labels


def make_generator(seed, epoch, purpose, position):
    return np.random.default_rng((seed, epoch, purpose, position))


@lru_cache(maxsize=2)  # Keras takes an epoch batch by batch
def permutation(num_images, seed, epoch):
    """Returns the shuffled order of an epoch, int64 [n], read-only since it is shared."""
    order = make_generator(seed, epoch, ORDER, 0).permutation(num_images)
    order.flags.writeable = False
    return order


class DecodedImages:
    """Files as a sequence of RGB pictures of Pillow, decoded anew each time.

    Args:
        files: `ImageFiles`, or what has `read(i) -> bytes`, `names` and `len()`.
    """

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        from vit_tf.preprocessing.decode import decode

        return decode(self.files.read(index), self.files.names[index])


class CachedImages:
    """DecodedImages that are decoded once, scaled down and kept in memory.

    What it gives is a function of the picture alone, cached or not. Crops of less than the whole picture
    are enlarged where `side` is small: take 256 for images of 224 pixels, more if the memory allows.

    Args:
        images: sequence of pictures of Pillow, such as `DecodedImages`. Several threads read it at once.
        side: int, the pixels of the shorter side. Smaller pictures stay as they are.

    Items: uint8 arrays (h, w, 3), read-only, since they are shared.

    Raises:
        ValueError: `side` is out of range, or the pictures would take more than half of the free memory, as
            a few of them tell.
    """

    num_measured = 8

    def __init__(self, images, side):
        check_int("side", side, 1)
        self.images = images
        self.side = side
        self.arrays = [None] * len(images)
        measured = np.linspace(0, len(images) - 1, min(self.num_measured, len(images))).astype(int)
        needed = len(images) * sum(self[index].nbytes for index in measured) // max(len(measured), 1)
        free = free_memory()
        if free is not None and needed > free / 2:
            raise ValueError(
                f"{len(images):,} pictures of {side} pixels need about {needed:,} bytes of memory, half of "
                f"the free memory is {free // 2:,}: choose a smaller `side`, or do without the cache"
            )

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        from vit_tf.data.augment.image import as_image  # Pillow comes when it is needed

        if self.arrays[index] is None:  # two threads may both decode it: they get the same
            array = np.array(scaled_down(as_image(self.images[index]), self.side))
            array.flags.writeable = False
            self.arrays[index] = array
        return self.arrays[index]


def scaled_down(picture, side):
    """Returns a picture whose shorter side is `side` pixels, or itself if it is smaller."""
    from PIL import Image

    shorter = min(picture.size)
    if shorter <= side:
        return picture
    size = [max(round(length * side / shorter), side) for length in picture.size]
    return picture.resize(size, Image.Resampling.BICUBIC)


def free_memory():
    """Returns the bytes that a process can still take, None where the system does not tell."""
    try:
        with open("/proc/meminfo") as file:  # what Linux's sysconf leaves out: pages that it would give up
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        names = getattr(os, "sysconf_names", {})
        pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in names else "SC_PHYS_PAGES"
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") if pages in names else None


def num_cores():
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def called(function, *args):
    """Calls a function of the user in a thread; a StopIteration of it would end grain's iteration."""
    try:
        return function(*args)
    except (StopIteration, SystemExit) as error:
        raise RuntimeError(f"{function!r} raised {error!r}") from error


def as_targets(labels, num_classes):
    """Returns labels, int [b] or bool [b, k], as float32 (b, k) of zeros and ones."""
    if labels.ndim == 2:
        return labels.astype("float32")
    targets = np.zeros((len(labels), num_classes), "float32")
    targets[np.arange(len(labels)), labels] = 1
    return targets


def checked_labels(labels, num_images, num_classes):
    """Returns labels as int64 [n] or bool [n, k]; a ValueError unless they fit the images."""
    labels = np.asarray(labels)
    if labels.dtype == bool and labels.ndim == 2:
        if labels.shape != (num_images, num_classes) or not num_images:
            raise ValueError(
                f"expected at least one image and bool labels of shape {(num_images, num_classes)}, one "
                f"column per class, got {num_images} images and labels of shape {labels.shape}"
            )
        return labels
    if labels.shape != (num_images,) or labels.dtype.kind not in "iu" or not num_images:
        raise ValueError(
            "expected at least one image and one integer label for each, got "
            f"{num_images} images and labels {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels must be in 0 .. {num_classes - 1} for {num_classes} classes, got {labels.min()} to "
            f"{labels.max()}"
        )
    return labels.astype(np.int64)


def check_image(image):
    """Raises a ValueError unless an array is an image (h, w, c), uint8 or float32."""
    if image.ndim != 3 or image.dtype not in (np.uint8, np.float32):
        raise ValueError(
            "expected images (h, w, c) of uint8 or float32, got "
            f"{image.dtype} of shape {image.shape}: give a `transform` that returns such"
        )
