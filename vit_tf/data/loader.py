"""`DataLoader`: a data set as shuffled, augmented, labelled batches, from any batch of any epoch.

The loader has no state: the order is a function of (seed, epoch), an image's augmentation of (seed, epoch,
position in the order), and a batch's mixing of (seed, epoch, batch). Training that was interrupted therefore
resumes with exactly the same batches, with any number of threads.
grain provides the threads, their order of delivery and the prefetching.
Shapes: n images of a data set, b images of a batch, h rows, w columns, c channels, k classes.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import lru_cache, partial
from typing import Any

import keras
import numpy as np

from vit_tf.checks import check_int, check_valid, require
from vit_tf.cores import num_cores
from vit_tf.data.image_data import checked_labels

LARGEST_SEED = 2**32 - 1
# The purpose of a generator is part of its seed, so that no two generators draw the same numbers.
ORDER, IMAGE, MIX = range(3)


class DataLoader(keras.utils.PyDataset):
    """Loads the batches of a data set, epoch by epoch, from any batch of an epoch.

    Each epoch has every image once. Its last batch may be smaller.
    Keras's `fit`, `evaluate` and `predict` take a loader: each pass over the data is the next epoch. `fit`
    shuffles the batches of an epoch by default; with `shuffle=False` they have the order of `epoch`.

    Args:
        images: sequence of inputs of `transform`: `DecodedImages`, `CachedImages`, or an array (n, h, w, c).
            Several threads read it at once.
        labels: integers [n] in 0 .. num_classes - 1; or bool [n, k] if an image may have several classes or
            none.
        num_classes: int, k.
        batch_size: int, b.
        transform: callable `(item, numpy.random.Generator) -> image`. Its images, all of the same size, are
            arrays (h, w, c), uint8 or float32, or images of Pillow. Several threads call it at once. None if
            the items are such images; batches of an array are then sliced from it.
        mix: callable `(images, labels, numpy.random.Generator) -> (images, labels)` for a whole batch, such
            as `vit_tf.data.augment.mixing.MixUpCutMix`. None disables mixing.
        shuffle: bool, whether each epoch has a new random order.
        seed: int in [0, 2**32).
        num_threads: int, number of threads that read and transform. None for the number of cores plus one,
            since one thread waits for the disk.

    Raises:
        ValueError: a setting is out of range, or `images` and `labels` do not fit each other.

    Example:
        loader = DataLoader(DecodedImages(files), files.labels, 10, 64, transform=Compose([
            RandomResizedCrop(224), HorizontalFlip(), RandAugment()]), mix=MixUpCutMix(), shuffle=True)
        for images, labels in loader.epoch(0, start=120): model.train_on_batch(images, labels)
        model.fit(loader, epochs=10, shuffle=False)

    Attributes:
        keras_epoch: int, the epoch whose batches Keras gets now or next. Set it to continue an earlier run.
    """

    def __init__(
        self,
        images: Any,
        labels: Any,
        num_classes: int,
        batch_size: int,
        transform: Callable | None = None,
        mix: Callable | None = None,
        shuffle: bool = False,
        seed: int = 0,
        num_threads: int | None = None,
    ):
        check_int("num_classes", num_classes, 1)
        check_int("batch_size", batch_size, 1)
        check_int("seed", seed, 0, LARGEST_SEED)
        check_int("num_threads", num_threads, 1, optional=True)
        for name, value in (("transform", transform), ("mix", mix)):
            check_valid(name, value, callable(value), "a callable", optional=True)
        is_sequence = hasattr(images, "__len__") and hasattr(images, "__getitem__")
        check_valid("images", images, is_sequence, "a sequence, with len() and images[i]")
        super().__init__()
        self.images = images
        self.labels = check_labels(labels, len(images), num_classes)
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

    def __len__(self) -> int:
        return -(-self.num_images // self.batch_size)

    def head(self, count: int) -> "DataLoader":
        """Returns a `DataLoader` of the first `count` images, or of all images if there are fewer."""
        head = copy(self)
        head.labels = self.labels[:count]
        head.num_images = len(head.labels)
        return head

    def epoch(
        self, epoch: int = 0, start: int = 0, rows: Callable[[int], np.ndarray] | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Returns an iterator over the batches of an epoch.

        Closing or deleting the iterator ends its threads.

        Args:
            epoch: non-negative int.
            start: int, index of the first batch, from 0 to `len(self)` (which yields no batch).
            rows: function from the size of a batch to the rows of it that are read, an int array, for one of
                several processes. The order and each image are those of the whole batch. Nothing is mixed,
                since the partner of an image may be in another process: see `draw_mixing`.

        Yields:
            (images, labels): images (b, h, w, c), with the dtype of the transform's images, or float32 after
            `mix`; labels float32 (b, k), whose rows sum to 1 unless an image may have several classes.

        Raises:
            ValueError: `epoch` or `start` is out of range; while iterating, the images of a batch differ in
                size, or an item is not an image. Errors of `images`, `transform` and `mix` are passed on.
            RuntimeError: `images`, `transform` or `mix` raised StopIteration or SystemExit.
        """
        check_int("epoch", epoch, 0, LARGEST_SEED)
        check_int("start", start, 0, len(self))
        return self._iterate(epoch, start, rows)

    def _iterate(self, epoch, start, rows):
        iterator = iter(self._dataset(epoch, start, rows))
        try:
            yield from iterator
        finally:
            iterator.close()

    def _dataset(self, epoch, start, rows):
        """Returns grain's dataset of batches: with one thread for an array, with many for other images."""
        import grain

        order = self.order(epoch)
        if self.is_array:
            batch = partial(self._array_batch, epoch, order, rows=rows)
            batches = grain.MapDataset.range(start, len(self)).map(batch)
            return batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
        positions, size = grain.MapDataset.range(start * self.batch_size, self.num_images), self.batch_size
        if rows:
            read = [self._positions(index, rows) for index in range(start, len(self))]
            positions = grain.MapDataset.source(np.concatenate(read or [np.zeros(0, int)]))
            size = len(read[0]) if read else size
        buffer_size = max(2 * size, self.num_threads)
        options = grain.ReadOptions(num_threads=self.num_threads, prefetch_buffer_size=buffer_size)
        images = positions.map(partial(self._positioned_image, epoch, order)).to_iter_dataset(options)
        batches = images.batch(size, batch_fn=partial(self._stacked_batch, epoch, order, mixes=not rows))
        # Stacking and mixing run in their own thread, so that the training step does not wait for them.
        return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1)

    def batch_length(self, index: int) -> int:
        """Returns the number of images in batch `index` of an epoch: the last one may be smaller."""
        return min(self.batch_size, self.num_images - index * self.batch_size)

    def _positions(self, index, rows=None):
        """Returns the positions in an epoch of the images of batch `index`, or of some rows of it."""
        length = self.batch_length(index)
        return index * self.batch_size + (rows(length) if rows else np.arange(length))

    def draw_mixing(
        self, epoch: int, index: int, image_size: tuple[int, int]
    ) -> dict[str, np.ndarray] | None:
        """Returns how batch `index` of an epoch is mixed, as `vit_tf.data.augment.mixing.blend` takes it.

        Args:
            epoch, index: non-negative int.
            image_size: (height, width) in pixels.

        Returns:
            A dict of arrays; None without `mix`, which must be a `vit_tf.data.augment.mixing.Mixing`.
        """
        if self.mix is None:
            return None
        return self.mix.draw(make_generator(self.seed, epoch, MIX, index), image_size)  # type: ignore[attr-defined]

    def order(self, epoch: int) -> np.ndarray:
        """Returns the index of the image at each position of an epoch, int64 [n]."""
        return permutation(self.num_images, self.seed, epoch) if self.shuffle else np.arange(self.num_images)

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (images, labels) of batch `index` of an epoch, equal to the batch that `epoch` yields.

        Raises:
            ValueError: `epoch` is out of range; or see `epoch`.
            IndexError: the epoch has no such batch.
        """
        check_int("epoch", epoch, 0, LARGEST_SEED)
        if not 0 <= index < len(self):
            raise IndexError(f"an epoch has no batch {index}, its last is {len(self) - 1}")
        order = self.order(epoch)
        if self.is_array:
            return self._array_batch(epoch, order, index)
        with ThreadPoolExecutor(self.num_threads) as pool:
            images = list(pool.map(partial(self._positioned_image, epoch, order), self._positions(index)))
        return self._stacked_batch(epoch, order, images)

    def __getitem__(self, index):
        self._num_drawn += 1
        return self.batch(self.keras_epoch, index)

    def on_epoch_begin(self) -> None:
        self._is_in_epoch = True

    def on_epoch_end(self) -> None:
        # Before the first epoch Keras draws batches only for their shape. On JAX and PyTorch it also draws
        # one batch of an epoch that it then abandons.
        if not self._is_in_epoch:
            self._num_drawn = 0
        self._is_in_epoch = False
        passes, self._num_drawn = divmod(self._num_drawn, len(self))
        self.keras_epoch += passes

    def _positioned_image(self, epoch, order, position):
        image = call(self.images.__getitem__, int(order[position]))
        if self.transform:
            image = call(self.transform, image, make_generator(self.seed, epoch, IMAGE, position))
        image = np.asarray(image)
        check_image(image)
        return position, image

    def _stacked_batch(self, epoch, order, positioned_images, mixes=True):
        positions, images = zip(*positioned_images)
        shapes = sorted({image.shape for image in images})
        problem = f"the images of a batch must have the same size, got {shapes[0]} and {shapes[-1]}"
        require(len(shapes) == 1, f"{problem}: pass a `transform` that resizes or crops them")
        return self._labelled(epoch, order, np.array(positions), np.stack(images), mixes)

    def _array_batch(self, epoch, order, index, rows=None):
        positions = self._positions(index, rows)
        return self._labelled(epoch, order, positions, self.images[order[positions]], mixes=not rows)

    def _labelled(self, epoch, order, positions, images, mixes):
        """Returns (images, labels) of the images at some positions of a batch, mixed."""
        labels = as_targets(self.labels[order[positions]], self.num_classes)
        if self.mix and mixes:
            generator = make_generator(self.seed, epoch, MIX, int(positions[0]) // self.batch_size)
            images, labels = call(self.mix, images, labels, generator)
        return images, labels


def make_generator(seed, epoch, purpose, position):
    return np.random.default_rng((seed, epoch, purpose, position))


@lru_cache(maxsize=2)  # Keras gets the batches of an epoch one by one
def permutation(num_images, seed, epoch):
    """Returns the shuffled order of an epoch, int64 [n], read-only because it is shared."""
    order = make_generator(seed, epoch, ORDER, 0).permutation(num_images)
    order.flags.writeable = False
    return order


def call(function, *args):
    """Calls a user's function in a thread, where a StopIteration would end grain's iteration."""
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


def check_labels(labels, num_images, num_classes):
    """Returns labels as int64 [n] or bool [n, k]; raises a ValueError unless they fit the images."""
    labels = np.asarray(labels)
    is_multi_label = labels.dtype == bool and labels.ndim == 2
    expected = (num_images, num_classes) if is_multi_label else (num_images,)
    columns = f"bool labels of shape {expected}, one column per class"
    kind = columns if is_multi_label else "one integer label per image"
    problem = f"got {num_images} images and labels {labels.dtype} of shape {labels.shape}"
    require(num_images and labels.shape == expected, f"expected at least one image and {kind}, {problem}")
    return checked_labels(labels, num_classes)


def check_image(image):
    """Raises a ValueError unless an array is an image (h, w, c), uint8 or float32."""
    problem = f"got {image.dtype} of shape {image.shape}: pass a `transform` that returns such images"
    is_valid = image.ndim == 3 and image.dtype in (np.uint8, np.float32)
    require(is_valid, f"expected images (h, w, c) of uint8 or float32, {problem}")
