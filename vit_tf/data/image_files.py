"""Discover and validate the labelled image files of a folder, a zip or a table."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Sequence
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
from vit_tf.data.image_data import checked_labels
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
    """Labelled image files of a folder, a zip or a table. Nothing is decoded or extracted yet.

    Instances can be pickled, and several processes and threads may read files at the same time. Names may
    hold bytes that are not UTF-8, as `os.fsdecode` returns them: print names with `repr`.

    Args:
        root: the folder, zip or table.
        class_names: sorted by code points, with class9 before class10; the same order on every machine.
        names: paths relative to the root (for a table: to its folder), with / between parts; sorted, unique.
        labels: integers [n], indices into `class_names`, kept as int64. In a multi-label data set bool
            [n, k], one column per class; a row may have several classes or none.
        splits: one per file: "train", "validation" or "test" if the data set defines splits, else None.
        notes: lines to show to the user: what was left out, and how a table was read.
        reader: function from a file name to its bytes. Defaults to reading from `root`.
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
        is_equal = len(set(counts)) == 1
        require(is_equal, f"names, labels and splits number {counts}: expected one each per file")
        unknown = set(self.splits) - {*SPLITS, None}
        problem = f"unknown splits {quoted(map(str, unknown))}"
        require(not unknown, f"{problem}: expected {', '.join(SPLITS)} or None")
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
        """Whether an image may have several classes or none, so that `labels` are bool [n, k]."""
        return self.labels.ndim == 2

    def read(self, i: int) -> bytes:
        """Returns the bytes of file `i`.

        Raises:
            OSError: the file does not exist any more or cannot be read.
            ValueError: the file is damaged in its zip, or larger than 256 MiB.
        """
        return self.reader(self.names[i])  # type: ignore[misc]  # `__post_init__` sets it

    def subset(self, indices: np.ndarray | Sequence[int]) -> "ImageFiles":
        """Returns some of the files in the order of their names. The classes do not change.

        Args:
            indices: integers in 0 .. n - 1, or a bool mask [n]. Anything else raises a ValueError.
        """
        indices = np.asarray(indices)
        if indices.dtype == bool:
            problem = f"the mask has shape {indices.shape}"
            require(indices.shape == (len(self),), f"{problem}: expected [{len(self)}], one per file")
            indices = np.flatnonzero(indices)
        indices = np.unique(indices) if indices.size else np.zeros(0, np.int64)
        require(indices.dtype.kind in "iu", f"indices are {indices.dtype}: expected integers or a bool mask")
        is_inside = not len(indices) or 0 <= indices[0] <= indices[-1] < len(self)
        problem = f"indices reach from {indices[:1]} to {indices[-1:]}"
        require(is_inside, f"{problem}: expected 0 to {len(self) - 1}")
        names, splits = (tuple(values[i] for i in indices) for values in (self.names, self.splits))
        return replace(self, names=names, labels=self.labels[indices], splits=splits)


def find_images(source: str | os.PathLike) -> ImageFiles:
    """Finds the labelled images of a folder, a zip or a table. No image is opened.

    The supported layouts are:

    - one folder per class;
    - files named `cat.12.jpg`;
    - train, val and test folders of either layout (train/training, val/valid/validation/dev, test/testing;
      also names that contain such a word, such as training_set, if the classes inside are the same);
    - a zip of any of these, which is read in place;
    - a table (.csv, .tsv, .txt) of path and label, with one or several labels per image and an optional
      split (see `vit_tf.data.tables.columns.read_labels`).

    A single folder around everything is skipped. Hidden files and files of operating systems (__MACOSX,
    Thumbs.db) are ignored. Images are recognised by the endings in `vit_tf.preprocessing.image_formats`, or
    by their first bytes if a name has no ending. Symbolic links in a folder are followed, to each folder
    once. Other files, images without a label, such as Kaggle's test images, and class folders without an
    image are left out, with a line in `notes`.

    Args:
        source: the path of the folder, zip or table.

    Returns:
        `ImageFiles` with at least two classes.

    Raises:
        ValueError: one line that says what was found, what was expected and how to mend it.
    """
    is_path = isinstance(source, (str, os.PathLike)) and os.fspath(source)
    require(is_path, f"source is {source!r}: {EXPECTED_SOURCE}")
    root = Path(os.path.expanduser(os.fsdecode(source)))
    try:
        return find_at(root)
    except PermissionError as error:
        problem = f"{error.filename!r} may not be read: make it readable for you (chmod u+rX)"
    except ValueError as error:
        problem = str(error)
    raise ValueError(brief(f"{os.fspath(root)!r}: {problem}"))


def find_at(root):
    if not root.exists():
        siblings = os.listdir(root.parent) if root.parent.is_dir() else []
        raise ValueError(f"no such path{suggestion(root.name, siblings) or f'; {EXPECTED_SOURCE}'}")
    if not root.is_dir():
        open_regular(root).close()  # raises the errors that `is_zipfile` hides, and never blocks on a pipe
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
    problem = f"only the class {quoted(class_names)}" if class_names else "no images"
    require(len(class_names) > 1, f"{problem}: expected images of at least two classes")
    splits = tuple(labelled[name][1] for name in names)
    notes = (*notes, *class_notes(class_names, labels))
    return ImageFiles(root, class_names, names, labels, splits, notes, reader)


def label_folder(root):
    """Returns `label_images` of a folder. Errors name the tables in the folder, which may have the labels."""
    paths = walk(root)
    try:
        return label_images(paths)
    except ValueError as error:
        names = sorted(name for name in paths.others if "/" not in name)
        tables = [name for name in names if name.lower().endswith(TABLE_ENDINGS[:2])]
        if not tables:
            raise
        problem = f"{error}; or pass {quoted(tables)} instead of the folder if the labels are there"
    raise ValueError(problem)


def reader_for(root):
    if root.is_file() and zipfile.is_zipfile(root):
        return ImageArchive(root).read
    return partial(read_file, root if root.is_dir() else root.parent)


def check_images(
    files: ImageFiles, max_bad: float = 0.01, progress: bool = True
) -> tuple[ImageFiles, list[tuple[str, str]]]:
    """Decodes every image once, on all cores, and leaves out images that cannot be decoded.

    The notes of the result list images with the same bytes: with different labels, in different splits, or
    in the same class. Ctrl-C stops the check at once.

    Args:
        files: `ImageFiles`.
        max_bad: maximum fraction of unreadable images, 0 to 1.
        progress: bool, whether to show a progress bar on stderr.

    Returns:
        (good, bad): the readable `ImageFiles`, with the new notes after those of `files`; and a list of
        (name, reason) in the order of the names.

    Raises:
        ValueError: there are more unreadable images than `max_bad` allows. The message lists the first five.
    """
    check_number("max_bad", max_bad, "[0, 1]")
    pool = ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_THREADS))
    try:
        checks = check_each(pool, files)
        checks = list(terminal.track(checks, "checking images", len(files), disable=not progress))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    bad = [(name, reason) for name, (reason, _) in zip(files.names, checks) if reason]
    first = "; ".join(f"{shown(name)}: {reason}" for name, reason in bad[:5])
    problem = f"{len(bad):,} of {len(files):,} images cannot be read, more than {max_bad:.2%}: {first}"
    share = np.ceil(len(bad) / max(len(files), 1) * 1000) / 1000
    hint = f"repair or remove them, or leave them out with --max-bad {share:g}"
    require(len(bad) <= max_bad * len(files), f"{problem}; {hint}")
    notes = (*files.notes, *copy_notes(files, [digest for _, digest in checks]))
    good = files.subset(np.array([not reason for reason, _ in checks], bool))
    return replace(good, notes=notes), bad


def check_each(pool, files):
    """Yields (reason, digest) per file in order: why it is unreadable, or "", and a hash of its bytes."""
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
