"""Training, validation and test splits, stratified by class."""

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress

import numpy as np

from vit_tf.checks import brief, check_int, check_number, quoted, require
from vit_tf.data.check_cache import cached_fingerprints
from vit_tf.data.directory_layout import SPLITS
from vit_tf.data.fingerprints import fingerprints
from vit_tf.data.image_data import flat_labels
from vit_tf.data.image_files import ImageFiles
from vit_tf.data.stratification import class_counts, draw_stratified
from vit_tf.data.tables.text import read_rows
from vit_tf.files import write_csv

HEADER = ["path", "label", "split", "fingerprint"]
OLD_HEADER = HEADER[:3]  # of version 0.1


def stratified_split(
    labels: np.ndarray | Sequence[int], fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits a data set so that every class has the same share in both parts.

    The validation part has round(n * fraction) members, distributed over the classes by largest remainder. A
    class with at least two members has at least one in each part, which may change this number. The only
    member of a class stays in the training part.

    Args:
        labels: integers [n] or [n, 1].
        fraction: the share of the validation part, a number in (0, 1).
        seed: a non-negative int; equal seeds give equal splits.

    Returns:
        (train_indices, validation_indices): sorted, disjoint int64 arrays, together 0 .. n - 1.

    Raises:
        ValueError: an argument is out of range, or no class has two members.
    """
    labels = flat_labels(labels, "labels")
    check_number("fraction", fraction, "(0, 1)")
    check_int("seed", seed, 0, math.inf)
    _, counts = np.unique(labels, return_counts=True)
    require(counts.max() > 1, "no class of labels has two members: a split needs one in each part")
    is_validation = draw_stratified(labels, fraction, np.random.default_rng(seed))
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)


def split_files(
    files: ImageFiles, validation_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 0
) -> ImageFiles:
    """Assigns a split to every image. Splits that the data set defines do not change.

    A missing validation or test part is drawn by class from the training part and the images without a
    split; for multi-label images by iterative stratification, see `vit_tf.data.stratification`. The result
    depends on the names, the labels and the seed only, and is the same on every machine.

    Args:
        files: `ImageFiles`.
        validation_fraction: the validation share of the images to draw from, in (0, 1).
        test_fraction: the test share of these images, in [0, 1); 0 makes no test part.
        seed: a non-negative int.

    Returns:
        `ImageFiles`, with "train", "validation" or "test" as the split of every image.

    Raises:
        ValueError: a fraction or seed out of range, or a class with too few images for one in each part.
    """
    check_number("validation_fraction", validation_fraction, "(0, 1)")
    check_number("test_fraction", test_fraction, "[0, 1)")
    check_int("seed", seed, 0, math.inf)
    problem = f"validation_fraction and test_fraction are {validation_fraction} and {test_fraction}"
    is_below_one = validation_fraction + test_fraction < 1
    require(is_below_one, f"{problem}: expected a sum below 1, training needs a part")
    splits = np.array([split or "train" for split in files.splits], object)
    parts = {"test": test_fraction, "validation": validation_fraction}
    parts = {split: fraction for split, fraction in parts.items() if fraction and split not in files.splits}
    pool = np.flatnonzero(splits == "train")
    require_enough(files, pool, list(parts))
    generator = np.random.default_rng(seed)
    num_later, left = len(parts), 1.0
    for split, fraction in parts.items():
        drawn = draw_stratified(files.labels[pool], fraction / left, generator, num_kept=num_later)
        splits[pool[drawn]] = split
        pool, left, num_later = pool[~drawn], left - fraction, num_later - 1
    return replace(files, splits=tuple(splits))


def require_enough(files, pool, parts):
    counts = class_counts(files.labels[pool], len(files.class_names))
    need = 1 + len(parts)
    short = [f"{name!r} has {n}" for name, n in zip(files.class_names, counts) if n < need]
    problem = f"{len(short)} classes have too few images to train with ({', '.join(short[:5])})"
    where = " and ".join(["training", *reversed(parts)])
    hint = f"expected {need} or more, one for {where} each; add images or leave the class out"
    require(not short, f"{problem}: {hint}")


def write_split(files: ImageFiles, path: str | os.PathLike) -> None:
    """Writes the images with their classes and splits to a CSV, completely or not at all.

    The columns are path, label, split and fingerprint. `read_split` compares the fingerprints to detect
    changed images. Several classes of an image are separated by |.

    Args:
        files: `ImageFiles`.
        path: the CSV. The encoding is UTF-8; names in other encodings keep their bytes.

    Raises:
        OSError: the file cannot be written.
    """
    splits = (split or "" for split in files.splits)
    write_csv(path, HEADER, zip(files.names, label_cells(files), splits, fingerprints(files)))


def read_split(files: ImageFiles, path: str | os.PathLike, cached: bool = False) -> ImageFiles:
    """Returns the images that `write_split` wrote, with their splits.

    Images and classes that were added later are left out, so that labels keep their meaning. The `notes` of
    the result list added and changed images.

    Args:
        files: `ImageFiles` of the same data set.
        path: the CSV.
        cached: bool, whether to take the fingerprints of files with the size and the time of an earlier
            `check_images(cached=True)` from its results, instead of reading the files again.

    Raises:
        OSError: there is no such file.
        ValueError: the CSV is damaged, or a file or class is missing, or an image has another class now.
    """
    try:
        return splits_of_rows(files, read_rows(path), cached)
    except ValueError as error:
        raise ValueError(brief(f"{str(path)!r}: {error}")) from None


def splits_of_rows(files, rows, cached):
    _, header = next(rows, (0, []))
    is_split = header in (HEADER, OLD_HEADER)
    require(is_split, f"no split: expected the header {','.join(HEADER)}, as write_split writes it")
    index, known = {name: i for i, name in enumerate(files.names)}, set(files.class_names)
    now, codes = label_cells(files), {split: code for code, split in enumerate((*SPLITS, ""))}
    parts, prints, gone = np.full(len(files), -1, np.int8), [""] * len(files), []
    for line, cells in rows:
        is_whole = len(cells) == len(header) and cells[2] in codes
        i = index.get(cells[0]) if is_whole else None
        is_whole = is_whole and (i is None or parts[i] < 0)
        require(is_whole, f"line {line} is damaged or a duplicate ({quoted(cells)}): make the split again")
        name, label, split = cells[:3]
        is_known = files.is_multi_label or label in known
        require(is_known, f"line {line} has the class {label!r}, which the data set lacks")
        if i is None:
            gone.append(name)
            continue
        require(
            now[i] == label, f"{name!r} was of the class {label!r} and is now of {now[i]!r}: move it back"
        )
        parts[i], prints[i] = codes[split], "".join(cells[3:])
    is_old = parts >= 0
    new = list(compress(files.names, ~is_old))
    added = f"; new images ({len(new):,}): {quoted(new)}" if new else ""
    missing = f"missing images ({len(gone):,}): {quoted(gone)}"
    require(not gone, f"{missing}{added}; restore the missing images, or start a new run")
    subset = files.subset(is_old)
    prints = list(compress(prints, is_old))
    if cached and any(prints) and subset.container is not None and not subset.container.lists_fingerprints:
        subset = replace(subset, known_fingerprints=cached_fingerprints(subset))
    notes = describe_changes(new, subset, prints)
    names = (*SPLITS, None)
    splits = tuple(names[code] for code in parts[is_old])
    return replace(with_used_classes(subset), splits=splits, notes=notes)


def label_cells(files):
    """Returns the classes of each image as text."""
    if not files.is_multi_label:
        return [files.class_names[label] for label in files.labels]
    return ["|".join(compress(files.class_names, row)) for row in files.labels]


def with_used_classes(files):
    """Returns `ImageFiles` without the classes that no image has."""
    used = np.flatnonzero(class_counts(files.labels, len(files.class_names)))
    labels = files.labels[:, used] if files.is_multi_label else np.searchsorted(used, files.labels)
    return replace(files, class_names=tuple(files.class_names[i] for i in used), labels=labels)


def describe_changes(new, known, prints):
    """Returns notes on images that are new or have changed since a split was made."""
    notes = []
    if new:
        notes.append(
            f"files that are new since the run began, or unreadable, are left out ({len(new):,}): "
            f"{quoted(new)}"
        )
    now = zip(known.names, prints, fingerprints(known)) if any(prints) else ()
    changed = [name for name, before, text in now if before and text != before]
    if changed:
        notes.append(f"{len(changed):,} images have changed since the run began: {quoted(changed)}")
    return tuple(notes)
