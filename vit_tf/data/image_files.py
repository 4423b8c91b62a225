"""Find the labelled image files of a folder, a zip, a table or shards."""

import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vit_tf.checks import brief, quoted, require, suggestion
from vit_tf.data.containers import ImageContainer, container_of
from vit_tf.data.dataset_notes import class_notes
from vit_tf.data.directories import ImageFolder, walk
from vit_tf.data.directory_layout import SPLITS, encode_labels, label_images
from vit_tf.data.image_data import checked_labels
from vit_tf.data.shards.foreign_tars import read_tars, tars_of
from vit_tf.data.shards.shard_index import is_shard_folder, read_shards
from vit_tf.data.shards.shard_table import PART_NAMES
from vit_tf.data.tables.columns import read_labels
from vit_tf.data.tables.text import TABLE_ENDINGS, require_no_spreadsheet
from vit_tf.data.zip_archive import ImageArchive
from vit_tf.files import open_regular

EXPECTED_SOURCE = "expected a folder, a .zip or a .csv of images by class"


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """Labelled image files of a folder, a zip, a table or shards. Nothing is decoded or extracted yet.

    Instances can be pickled, and several processes and threads may read files at the same time. Names may
    hold bytes that are not UTF-8, as `os.fsdecode` returns them: print names with `repr`.

    Args:
        root: the folder (of images or shards), zip or table.
        class_names: sorted by code points, with class9 before class10; the same order on every machine.
        names: paths relative to the root (for a table: to its folder), with / between parts; sorted, unique.
        labels: integers [n], indices into `class_names`, kept as int64. In a multi-label data set bool
            [n, k], one column per class; a row may have several classes or none.
        splits: one per file: "train", "validation" or "test" if the data set defines splits, else None.
        notes: lines to show to the user: what was left out, and how a table was read.
        reader: function from a file name to its bytes. Defaults to reading from `root`.
        known_fingerprints: bytes [n] of ASCII, the fingerprints (see `vit_tf.data.fingerprints`) if they are
            known already; `check_images` computes them.
    """

    root: Path
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    splits: tuple[str | None, ...]
    notes: tuple[str, ...] = ()
    reader: Callable[[str], bytes] | None = field(default=None, repr=False)
    known_fingerprints: np.ndarray | None = field(default=None, repr=False)

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

    @property
    def container(self) -> ImageContainer | None:
        """What holds the images; None if a function of the user reads them."""
        return container_of(self.reader)

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
        places = indices.tolist()
        names = tuple(map(self.names.__getitem__, places))
        splits = tuple(map(self.splits.__getitem__, places))
        known = self.known_fingerprints
        known = known if known is None else known[indices]
        return replace(
            self, names=names, labels=self.labels[indices], splits=splits, known_fingerprints=known
        )


def find_images(source: str | os.PathLike) -> ImageFiles:
    """Finds the labelled images of a folder, a zip, a table or shards. No image is decoded.

    The supported layouts are:

    - one folder per class;
    - files named `cat.12.jpg`;
    - train, val and test folders of either layout (train/training, val/valid/validation/dev, test/testing;
      also names that contain such a word, such as training_set, if the classes inside are the same);
    - a zip of any of these, which is read in place;
    - a table (.csv, .tsv, .txt) of path and label, with one or several labels per image and an optional
      split (see `vit_tf.data.tables.columns.read_labels`);
    - a folder of shards that `write_shards` wrote;
    - a folder of tar files of WebDataset, with a class per image (see `vit_tf.data.shards.foreign_tars`).

    A single folder around everything is skipped. Hidden files and files of operating systems (__MACOSX,
    Thumbs.db) are ignored. Images are recognised by the endings in `vit_tf.preprocessing.image_formats`, or
    by their first bytes if a name has no ending. Symbolic links in a folder are followed, to each folder
    once. Other files, images without a label, such as Kaggle's test images, and class folders without an
    image are left out, with a line in `notes`.

    Args:
        source: the path of the folder, zip or table, or of the folder of shards.

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
        paths = None if is_shard_folder(root) else walk(root)
        if sharded := find_shards(root, paths):
            return sharded
        labelled, notes = label_folder(paths)
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


def find_shards(root, paths):
    """Returns the `ImageFiles` of a folder of shards, or of tars without image files; None for other folders.

    `paths` is the result of `walk`, None if the folder has an index of shards.
    """
    if paths is None:
        sharded = read_shards(root)
    elif tars := tars_of(paths):
        sharded = read_tars(root, tars)
    else:
        return None
    table = sharded.shards.table
    splits = tuple(PART_NAMES[code] for code in table.parts)
    fields = table.names, table.labels, splits, sharded.notes, sharded.shards.read
    return ImageFiles(root, sharded.class_names, *fields)


def label_folder(paths):
    """Returns `label_images` of a folder. Errors name the tables in the folder, which may have the labels."""
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
    return ImageFolder(root if root.is_dir() else root.parent, root).read
