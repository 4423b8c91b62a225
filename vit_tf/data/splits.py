"""Splits of a data set by class."""

import math
from dataclasses import replace
from itertools import compress

import numpy as np

from vit_tf.checks import brief, check_int, check_number, quoted, require
from vit_tf.data.directory_layout import SPLITS
from vit_tf.data.fingerprints import fingerprints
from vit_tf.data.image_data import flat_labels
from vit_tf.data.stratification import class_counts, draw_stratified
from vit_tf.data.tables.text import read_rows
from vit_tf.files import write_csv

HEADER = ["path", "label", "split", "fingerprint"]
OLD_HEADER = HEADER[:3]  # of version 0.1


def stratified_split(labels, fraction, seed):
    """Splits a data set so that every class keeps its share in both parts.

    Validation has round(n * fraction) members, shared out by largest remainder; a class of two or more
    has at least one in each part, and the only member of a class stays in training.

    Args:
        labels: integers [n] or [n, 1]; at least one class must have two members, else a ValueError.
        fraction: the validation part's share, between 0 and 1, both excluded, else a ValueError.
        seed: an integer >= 0, else a ValueError; equal seeds give equal splits.

    Returns:
        (train_indices, validation_indices): sorted, disjoint int64 arrays, together 0 .. n - 1.
    """
    labels = flat_labels(labels, "labels")
    check_number("fraction", fraction, "(0, 1)")
    check_int("seed", seed, 0, math.inf)
    _, counts = np.unique(labels, return_counts=True)
    require(counts.max() > 1, "no class of labels has two members: a split needs one in each part")
    is_validation = draw_stratified(labels, fraction, np.random.default_rng(seed))
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)


def split_files(files, validation_fraction=0.1, test_fraction=0.1, seed=0):
    """Gives every image a split; what the data set says already stays.

    A validation or test part that the data set lacks is drawn by class from the rest, which is its train
    part and the images without a split; of multi-label images by iterative stratification, see
    `vit_tf.data.stratification`. Only the names, the labels and the seed matter, so that the same
    files are split alike on every machine.

    Args:
        files: `ImageFiles`.
        validation_fraction: validation's share of the images that are drawn from, between 0 and 1.
        test_fraction: test's share of them; 0 makes no test part.
        seed: an integer >= 0.

    Returns:
        The `ImageFiles`, with "train", "validation" or "test" as every image's split.

    Raises:
        ValueError: a fraction or seed out of range, or a class with too few images for one in each part.
    """
    check_number("validation_fraction", validation_fraction, "(0, 1)")
    check_number("test_fraction", test_fraction, "[0, 1)")
    check_int("seed", seed, 0, math.inf)
    found = f"validation_fraction and test_fraction are {validation_fraction} and {test_fraction}"
    require(
        validation_fraction + test_fraction < 1, f"{found}: expected a sum below 1, training needs a part"
    )
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
    found = f"{len(short)} classes have too few images to train with ({', '.join(short[:5])})"
    where = " and ".join(["training", *reversed(parts)])
    hint = f"expected {need} or more, one for {where} each; add images or leave the class out"
    require(not short, f"{found}: {hint}")


def write_split(files, path):
    """Writes the images with their classes and splits to a CSV, whole or not at all.

    Its columns are path, label, split, and fingerprint, by which `read_split` notices another content.

    Several classes of an image are parted by |.

    Args:
        files: `ImageFiles`.
        path: the CSV, in UTF-8; names that are not keep their bytes.

    Raises:
        OSError: the file cannot be written.
    """
    splits = (split or "" for split in files.splits)
    write_csv(path, HEADER, zip(files.names, label_cells(files), splits, fingerprints(files)))


def read_split(files, path):
    """Returns the images that `write_split` wrote, with their splits.

    Images and classes that are new since then are left out, so that labels keep their meaning. What is new,
    and what has another content than then, is in the `notes` of the result.

    Args:
        files: `ImageFiles` of the same data set.
        path: the CSV.

    Raises:
        OSError: there is no such file.
        ValueError: the CSV is damaged, or names a file or class that is gone or another class than `files`.
    """
    try:
        return splits_of_rows(files, read_rows(path))
    except ValueError as error:
        problem = error
    raise ValueError(brief(f"{str(path)!r}: {problem}"))


def splits_of_rows(files, rows):
    header = rows[0][1] if rows else []
    is_split = header in (HEADER, OLD_HEADER)
    require(is_split, f"no split: expected the header {','.join(HEADER)}, as write_split writes it")
    index, known = {name: i for i, name in enumerate(files.names)}, set(files.class_names)
    now = label_cells(files)
    splits, prints, gone = {}, {}, []
    for line, cells in rows[1:]:
        is_whole = len(cells) == len(header) and cells[2] in (*SPLITS, "") and cells[0] not in splits
        require(is_whole, f"line {line} is damaged or twice there ({quoted(cells)}): make the split again")
        name, label, split = cells[:3]
        is_known = files.is_multi_label or label in known
        require(is_known, f"line {line} has the class {label!r}, which the data set lacks")
        if name not in index:
            gone.append(name)
            continue
        found = f"{name!r} was of the class {label!r} and is now of {now[index[name]]!r}"
        require(now[index[name]] == label, f"{found}: move it back")
        splits[name] = split or None
        prints[name] = "".join(cells[3:])
    require(not gone, f"{len(gone):,} of its images are gone: {quoted(gone)}; bring them back, or split anew")
    subset = files.subset(sorted(index[name] for name in splits))
    notes = describe_changes(files, subset, prints)
    splits = tuple(splits[name] for name in subset.names)
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


def describe_changes(files, known, prints):
    """Returns what is new or has changed since a split was made, one line each."""
    notes = []
    new = sorted(set(files.names) - set(known.names))
    if new:
        notes.append(f"{len(new):,} files are new since the run began, or bad, and left out: {quoted(new)}")
    now = zip(known.names, fingerprints(known)) if any(prints.values()) else ()
    changed = [name for name, text in now if prints[name] and text != prints[name]]
    if changed:
        notes.append(f"{len(changed):,} images have changed since the run began: {quoted(changed)}")
    return tuple(notes)
