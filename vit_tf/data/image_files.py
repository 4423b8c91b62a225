"""One's own labelled images: finding them in a folder, a zip or a CSV, and checking that they can be read."""

import hashlib
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from vit_tf import terminal
from vit_tf.checks import brief, check_number, quoted, require, shown, suggestion
from vit_tf.data.dataset_notes import class_notes, copy_notes
from vit_tf.data.directories import read_file, walk
from vit_tf.data.directory_layout import SPLITS, encode_labels, label_images
from vit_tf.data.tables.columns import read_labels
from vit_tf.data.tables.text import TABLE_ENDINGS, require_no_spreadsheet
from vit_tf.data.zip_archive import ImageArchive
from vit_tf.files import open_regular
from vit_tf.preprocessing.decode import decode

EXPECTED_SOURCE = "expected a folder, a .zip or a .csv of images by class"
CHECKED_AT_ONCE = 4096  # bounds the memory of a million waiting tasks
MAX_THREADS = 16  # of 100-megapixel images each takes about 1 GB


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Labelled image files of a folder, a zip or a CSV; nothing is decoded or extracted yet.

    It can be pickled, and processes and threads may read from it at the same time. Names may hold bytes
    that are not UTF-8, as `os.fsdecode` has them: print them with `repr`.

    Args:
        root: the folder, zip or CSV.
        class_names: sorted by code points, with class9 before class10: alike on every machine.
        names: paths relative to the root (of a CSV: to its folder) with / between the parts, sorted, unique.
        labels: integers [n], indices into `class_names`, kept as int64. In a multi-label data set bool
            [n, k], one column per class; a row may have several classes or none.
        splits: "train", "validation" or "test" where the data set says so, else None, one a file.
        notes: what was left out, and how a table was understood, one line each, for the user to see.
        reader: reads a file by its name; by default as `root` asks for.
    """

    root: Path
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    splits: tuple[str | None, ...]
    notes: tuple[str, ...] = ()
    reader: Callable[[str], bytes] | None = field(default=None, repr=False)

    def __post_init__(self):
        labels = checked_labels(np.asarray(self.labels), len(self.class_names))
        counts = (len(self.names), len(labels), len(self.splits))
        require(len(set(counts)) == 1, f"names, labels and splits number {counts}: expected one each a file")
        unknown = set(self.splits) - {*SPLITS, None}
        require(
            not unknown, f"unknown splits {quoted(map(str, unknown))}: expected {', '.join(SPLITS)} or None"
        )
        object.__setattr__(self, "root", Path(self.root))
        for field_name in ("class_names", "names", "splits", "notes"):
            object.__setattr__(self, field_name, tuple(getattr(self, field_name)))
        object.__setattr__(self, "labels", labels)
        if self.reader is None:
            object.__setattr__(self, "reader", reader_for(self.root))

    def __len__(self):
        return len(self.names)

    @property
    def is_multi_label(self):
        """Whether an image may have several classes, or none: `labels` are bool [n, k] then."""
        return self.labels.ndim == 2

    def read(self, i):
        """Returns the bytes of file `i`.

        Raises:
            OSError: the file is gone or cannot be read.
            ValueError: it is damaged in its zip, or larger than 256 MiB.
        """
        return self.reader(self.names[i])

    def subset(self, indices):
        """Returns some of the files, in the order of their names; the classes stay as they are.

        Args:
            indices: integers in 0 .. n - 1, or a bool [n] that says which; else a ValueError.
        """
        indices = np.asarray(indices)
        if indices.dtype == bool:
            found = f"the mask has shape {indices.shape}"
            require(indices.shape == (len(self),), f"{found}: expected [{len(self)}], one a file")
            indices = np.flatnonzero(indices)
        indices = np.unique(indices) if indices.size else np.zeros(0, np.int64)
        require(indices.dtype.kind in "iu", f"indices are {indices.dtype}: expected integers or a bool mask")
        is_inside = not len(indices) or 0 <= indices[0] <= indices[-1] < len(self)
        require(
            is_inside, f"indices reach from {indices[:1]} to {indices[-1:]}: expected 0 to {len(self) - 1}"
        )
        names, splits = (tuple(values[i] for i in indices) for values in (self.names, self.splits))
        return replace(self, names=names, labels=self.labels[indices], splits=splits)


def checked_labels(labels, num_classes):
    """Returns labels as int64 [n] or bool [n, k]; a ValueError unless they fit the number of classes."""
    if labels.dtype == bool and labels.ndim == 2:
        found = f"labels are bool of shape {labels.shape}"
        require(labels.shape[1] == num_classes, f"{found}: expected {num_classes} columns, one per class")
        return labels
    is_integer = labels.dtype.kind in "iu" or not labels.size
    expected = "expected integers, indices into class_names, or bool of two dimensions"
    require(is_integer, f"labels are {labels.dtype}: {expected}")
    labels = labels.astype(np.int64).reshape(-1)
    low, high, last = labels.min(initial=0), labels.max(initial=-1), num_classes - 1
    require(0 <= low and high <= last, f"labels are {low} to {high}: expected 0 to {last}, one a class")
    return labels


def find_images(source):
    """Finds the labelled images of a folder, a zip or a CSV, by their names alone.

    Understood are a folder a class; files named `cat.12.jpg`; train, val and test folders of either
    (train/training, val/valid/validation/dev, test/testing; also names that hold such a word, such as
    training_set and test_set, where the classes inside are the same); a zip of any of these, which is read in
    place; and a table (.csv, .tsv, .txt) of path and label, with one label per image or several, and a
    split if it likes (see `label_tables.read_labels`). One folder around everything is looked through.
    Hidden files and what operating systems leave behind (__MACOSX, Thumbs.db) do not count. Images are known
    by the endings of `preprocessing.image_formats`, and by their first bytes where a name has no ending.
    Symbolic links in a folder are followed, to each folder once. Other files, what has no label, such as
    Kaggle's test images, and class folders without an image are left out with a line in `notes`.

    Args:
        source: the path of the folder, zip or CSV.

    Returns:
        `ImageFiles` of two classes or more.

    Raises:
        ValueError: one line that says what was found, what was expected and what to do.
    """
    is_path = isinstance(source, (str, os.PathLike)) and os.fspath(source)
    require(is_path, f"source is {source!r}: {EXPECTED_SOURCE}")
    root = Path(os.path.expanduser(os.fsdecode(source)))
    try:
        return find_at(root)
    except PermissionError as error:
        problem = f"{error.filename!r} may not be read: make it readable for you (chmod u+rX)"
    except ValueError as error:
        problem = error
    raise ValueError(brief(f"{os.fspath(root)!r}: {problem}"))


def find_at(root):
    if not root.exists():
        siblings = os.listdir(root.parent) if root.parent.is_dir() else []
        raise ValueError(f"no such path{suggestion(root.name, siblings) or f'; {EXPECTED_SOURCE}'}")
    if not root.is_dir():
        open_regular(root).close()  # raises what `is_zipfile` would swallow, and keeps it from waiting
    reader, notes = None, ()
    if root.is_dir():
        labelled, notes = label_folder(root)
    elif zipfile.is_zipfile(root):
        require_no_spreadsheet(root)
        archive = ImageArchive(root)
        reader = archive.read
        labelled, notes = label_images(archive.paths)
    else:
        suffix = root.suffix.lower()
        require(suffix != ".zip", "damaged or incomplete zip: download or copy it again")
        require_no_spreadsheet(root)
        require(root.is_file() and suffix in TABLE_ENDINGS, f"unknown kind: {EXPECTED_SOURCE}")
        labelled, notes = read_labels(root)
    names = tuple(sorted(labelled))
    class_names, labels = encode_labels([labelled[name][0] for name in names])
    found = f"only the class {quoted(class_names)}" if class_names else "no images"
    require(len(class_names) > 1, f"{found}: expected images of two classes or more")
    splits = tuple(labelled[name][1] for name in names)
    notes = (*notes, *class_notes(class_names, labels))
    return ImageFiles(root, class_names, names, labels, splits, notes, reader)


def label_folder(root):
    """Returns what `label_images` does; its error says which tables in the folder may have the labels."""
    paths = walk(root)
    try:
        return label_images(paths)
    except ValueError as error:
        tables = [
            name for name in paths.others if "/" not in name and name.lower().endswith(TABLE_ENDINGS[:2])
        ]
        if not tables:
            raise
        problem = error
    raise ValueError(
        f"{problem}; or give {quoted(sorted(tables))} instead of the folder if the labels are there"
    )


def reader_for(root):
    if root.is_file() and zipfile.is_zipfile(root):
        return ImageArchive(root).read
    return partial(read_file, root if root.is_dir() else root.parent)


def check_images(files, max_bad=0.01, progress=True):
    """Decodes every image once, on all cores, and leaves out those that cannot be decoded.

    Images of the same bytes are noted: under different labels, in different splits, or elsewhere. Ctrl-C ends
    it at once.

    Args:
        files: `ImageFiles`.
        max_bad: the share of bad images that is put up with, 0 to 1.
        progress: whether a bar with the time left is shown on stderr.

    Returns:
        (good, bad): `ImageFiles`, whose notes are those of `files` and then the new ones, and a list of
        (name, reason) in the order of the names.

    Raises:
        ValueError: more bad images than `max_bad` allows, with the first five of them and why.
    """
    check_number("max_bad", max_bad, "[0, 1]")
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS))
    try:
        bar = terminal.track(check_each(pool, files), "checking images", len(files), disable=not progress)
        checks = list(bar)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    bad = [(name, reason) for name, (reason, _) in zip(files.names, checks) if reason]
    first = "; ".join(f"{shown(name)}: {reason}" for name, reason in bad[:5])
    found = f"{len(bad):,} of {len(files):,} images cannot be read, more than {max_bad:.2%}: {first}"
    share = np.ceil(len(bad) / max(len(files), 1) * 1000) / 1000
    hint = f"mend or remove them, or go on without them by --max-bad {share:g}"
    require(len(bad) <= max_bad * len(files), f"{found}; {hint}")
    notes = (*files.notes, *copy_notes(files, [digest for _, digest in checks]))
    good = files.subset(np.array([not reason for reason, _ in checks], bool))
    return replace(good, notes=notes), bad


def check_each(pool, files):
    """Yields for each file in order why it is bad, "" for a good one, and a hash of a good one's bytes."""
    for start in range(0, len(files), CHECKED_AT_ONCE):
        indices = range(start, min(start + CHECKED_AT_ONCE, len(files)))
        yield from pool.map(partial(check_file, files), indices)


def check_file(files, i):
    try:
        data = files.read(i)
        decode(data)
    except OSError as error:
        return error.strerror or brief(error), None
    except ValueError as error:
        return brief(error), None
    return "", hashlib.blake2b(data, digest_size=16).digest()
