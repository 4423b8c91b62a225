"""Data sets as the training commands use them: arrays such as CIFAR-10, and labelled image files.

Each has `class_names`, `channels`, `image_size` (None for files, which are resized), `tested_on`, and the
loaders of its three parts.
"""

import csv
import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np

from vit_tf import files
from vit_tf.data.cifar import NAMES
from vit_tf.data.cifar_batches import original_in, original_of
from vit_tf.data.tables.text import read_rows
from vit_tf.terminal import printable

ARRAY_ENDINGS = (".npz", ".tar.gz", ".tgz", ".tar")


def is_array_source(source):
    """Returns whether --data names arrays (CIFAR in any form, or an .npz) and not image files."""
    if source is None or source in NAMES or str(source).lower().endswith(ARRAY_ENDINGS):
        return True
    path = Path(source)
    if path.is_dir():
        folders = [path, *(entry for entry in os.scandir(path) if entry.is_dir())]
        return any(map(original_in, folders))
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return original_of(map(os.path.basename, archive.namelist())) is not None
    except Exception:  # a damaged directory can raise nearly anything: `find_images` says so
        return False


class ArrayDataset:
    """Images in arrays, of which a fraction is split off for validation.

    Args:
        images: `vit_tf.data.ImageData`.
        source: what `load_cifar` needs to load the same images again.
    """

    def __init__(self, images, source):
        self.images = images
        self.source = source
        self.name = images.name
        self.class_names = images.class_names
        self.image_size, self.channels = images.x_train.shape[1:3], images.x_train.shape[3]
        self.tested_on = "test (sample)" if images.name == "sample" else "test"

    def print_notes(self):
        if self.images.name == "sample":
            from vit_tf.data import SAMPLE_NOTE

            print(f"\n*** SAMPLE: {printable(self.images.note or SAMPLE_NOTE)} ***\n")

    def choose_task(self, name):
        """Returns the task, for which `name` (None for any) must be single-label."""
        from vit_tf.training.tasks import SINGLE_LABEL

        if name not in (None, SINGLE_LABEL.name):
            raise ValueError(f"--task {name} is for image files; the arrays have one class per image")
        return SINGLE_LABEL

    def split(self, command, recipe, folder, is_new):
        """Splits the training images into training and validation."""
        from vit_tf.data import stratified_split

        x, y = self.images.x_train, self.images.y_train
        train, validation = stratified_split(y, command["validation_fraction"], recipe.seed)
        self.parts = {
            "train": (x[train], y[train]),
            "validation": (x[validation], y[validation]),
            "test": (self.images.x_test, self.images.y_test),
        }

    def split_text(self, folder):
        """Returns the split as text, for the other processes of a run: "" since each computes the same."""
        return ""

    def use_split(self, text, command, recipe, folder):
        """Splits the images as the main process did, from its `split_text`."""
        self.split(command, recipe, folder, is_new=False)

    def digest(self):
        """Returns a hash of the images and labels."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self.parts.values():
            for array in part:
                digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def loaders(self, recipe, engine, task, preprocessing):
        """Returns a dict from "train", "validation" and "test" to what the engine loads."""
        from vit_tf.data import DataLoader
        from vit_tf.training.augmentation import image_augmentation, make_mix

        if self.channels != 3 and (recipe.crop == "resized" or recipe.randaugment):
            raise ValueError(
                "--crop resized and --randaugment are for images with 3 channels, and these have "
                f"{self.channels}: choose --crop pad or none, and --randaugment 0"
            )

        def loader(part, batch_size=500, **options):
            x, y = self.parts[part]
            return DataLoader(x, y, len(self.class_names), batch_size, seed=recipe.seed, **options)

        options = {}
        if engine != "compiled-epoch":  # which augments and shuffles on the device
            transform = image_augmentation(recipe, self.image_size)
            options = {"transform": transform, "mix": make_mix(recipe), "shuffle": True}
        train = loader("train", recipe.batch_size, **options)
        return {"train": train, "validation": loader("validation"), "test": loader("test")}

    def first_images(self, count, preprocessing):
        """Returns training images, an array (n, h, w, c) of `count` images or fewer."""
        images = self.parts["train"][0]
        return images[np.sort(random_places(len(images), count))]  # a file may have one class after another


class FileDataset:
    """Labelled image files, which a new run checks and splits. A resumed run reads the split from split.csv.

    Args:
        source: path of a folder, zip, table or shards, see `vit_tf.data.find_images`.
    """

    channels = 3
    image_size = None

    def __init__(self, source):
        from vit_tf.data import find_images

        self.images = find_images(source)
        self.source = source
        self.name = Path(source).stem
        self.num_notes = 0

    @property
    def class_names(self):
        return self.images.class_names

    @property
    def tested_on(self):
        return "test" if "test" in self.images.splits else "validation (there are no test images)"

    def print_notes(self):
        """Prints the notes about the images that were not printed before."""
        for note in self.images.notes[self.num_notes :]:
            print(f"note: {printable(note)}")
        self.num_notes = len(self.images.notes)

    def choose_task(self, name):
        """Returns the task called `name`, or the one that fits the labels, and prepares the labels for it."""
        from vit_tf.training.tasks import choose_task

        task = choose_task(self.images, name)
        self.images = task.prepare(self.images)
        return task

    def split(self, command, recipe, folder, is_new):
        """Checks and splits the images of a new run, or reads the split of a run, which may note changes."""
        from vit_tf.data import read_split

        if not is_new:
            self.images = read_split(self.images, folder / "split.csv", cached=True)
            self.num_notes = 0  # those of the split are other notes
            self.print_notes()
            return
        from vit_tf.data import check_images, split_files, write_split

        fractions = command["validation_fraction"], command["test_fraction"]
        split_files(self.images, *fractions, recipe.seed)  # fails before the check, which takes long
        level = command.get("check", "full")  # a run of an earlier version has none
        self.images, bad = check_images(self.images, command["max_bad"], level=level, cached=True)
        self.print_notes()
        bad_files = folder / "bad_files.csv"
        bad_files.unlink(missing_ok=True)  # of a start that was killed
        if bad:
            files.write_csv(bad_files, ("path", "reason"), bad)
            print(f"{len(bad)} files cannot be read and are left out: see {printable(bad_files)}")
        self.images = split_files(self.images, *fractions, recipe.seed)
        write_split(self.images, folder / "split.csv")

    def split_text(self, folder):
        """Returns the split as text, for the other processes of a run. It has no fingerprints."""
        buffer = io.StringIO()
        csv.writer(buffer).writerows(cells[:3] for _, cells in read_rows(folder / "split.csv"))
        return buffer.getvalue()

    def use_split(self, text, command, recipe, folder):
        """Splits the images as the main process did, from its `split_text`, which is written to a folder."""
        path = folder / "split.csv"
        path.write_text(text, "utf-8", "surrogateescape", newline="")
        self.split(command, recipe, folder, is_new=False)

    def digest(self):
        """Returns a hash of the names, classes and splits of the images."""
        names = "\n".join((*self.class_names, *self.images.names)).encode(errors="surrogateescape")
        digest = hashlib.blake2b(names, digest_size=16)
        digest.update(self.images.labels.tobytes() + repr(self.images.splits).encode())
        return digest.hexdigest()

    def loaders(self, recipe, engine, task, preprocessing):
        """Returns a dict from "train", "validation" and "test" to its loader for the engine, or None."""
        from vit_tf.data import SPLITS, DataLoader
        from vit_tf.training.batches import make_batches

        in_memory = engine == "compiled-epoch"
        parts = {}
        for part in SPLITS:
            loader = make_batches(self.images, part, recipe, preprocessing, task, not in_memory)
            if in_memory and loader:
                arrays = all_images(loader), loader.labels, loader.num_classes
                loader = DataLoader(*arrays, recipe.batch_size)
            parts[part] = loader
        return parts

    def first_images(self, count, preprocessing):
        """Returns training images, an array (n, h, w, c) of `count` images or fewer."""
        from vit_tf.data import DataLoader, DecodedImages, EvalTransform

        train = self.images.subset([i for i, split in enumerate(self.images.splits) if split == "train"])
        images = DecodedImages(train.subset(sorted(random_places(len(train), count))))
        transform = EvalTransform(preprocessing)
        return all_images(DataLoader(images, np.zeros(len(images), int), 1, 100, transform=transform))


def random_places(length, count):
    """Returns `count` different places in a sequence, or all if it is shorter; the same in each call."""
    return np.random.default_rng(0).permutation(length)[:count]


def all_images(loader):
    """Returns the images of a `vit_tf.data.DataLoader` as one array (n, h, w, c)."""
    return np.concatenate([images for images, _ in loader.epoch()])


def open_dataset(source):
    """Returns the data set that --data or DATA names.

    Raises:
        ValueError: there is no such data set, or it cannot be read.
    """
    if not is_array_source(source):
        return FileDataset(source)
    from vit_tf import data

    images = data.load_cifar(source)
    return ArrayDataset(images, source or images.name)


def absolute(path):
    """Returns the absolute path of a file or folder; other sources, such as "sample", as they are."""
    return os.path.abspath(path) if path and os.path.exists(path) else path
