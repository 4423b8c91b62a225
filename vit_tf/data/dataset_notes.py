"""Notes on likely mistakes in a data set: similar class names, imbalance, duplicate images."""

import unicodedata

import numpy as np

from vit_tf.checks import shown
from vit_tf.data.stratification import class_counts

IMBALANCE = 100


def class_notes(class_names, labels):
    """Returns a list of notes on classes with similar names, and on unequal numbers of images."""
    counts = class_counts(labels, len(class_names))
    groups = {}
    for name, count in zip(class_names, counts):
        groups.setdefault(appearance(name), []).append((name, count))
    notes = []
    for group in groups.values():
        if len(group) > 1:
            # The two encodings of an accented letter look the same in print.
            is_plain = len({unicodedata.normalize("NFC", name) for name, _ in group}) == len(group)
            texts = [f"{shown(n) if is_plain else ascii(n)[:100]} ({count:,} images)" for n, count in group]
            hint = "rename one if they are the same"
            notes.append(f"classes that differ by case, blanks or encoding alone: {', '.join(texts)}; {hint}")
    if len(counts) and counts.max() >= IMBALANCE * max(counts.min(), 1):
        most, least = (shown(class_names[place]) for place in (counts.argmax(), counts.argmin()))
        notes.append(f"unequal classes: {most} has {counts.max():,} images, {least} has {counts.min():,}")
    return notes


def appearance(name):
    """Returns a key that is equal for names that look similar: case, blanks and encoding are ignored."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold()).split())


def copy_notes(files, digests, is_readable):
    """Returns notes on images with the same bytes.

    Args:
        files: `ImageFiles`.
        digests: bytes [n], a hash of the bytes of each file.
        is_readable: bool [n]; the other files are left out.
    """
    in_labels, in_splits, same = [], [], []
    for group in equal_groups(digests, np.flatnonzero(is_readable)):
        has_labels = len(np.unique(files.labels[group], axis=0)) > 1
        has_splits = len({files.splits[i] for i in group}) > 1
        in_labels += [group] if has_labels else []
        in_splits += [group] if has_splits else []
        same += [group] if not (has_labels or has_splits) else []
    notes = []
    for copies, where in (
        (in_labels, "with different labels: one of them is wrong"),
        (in_splits, "in different splits: a model is tested with images that it was trained on"),
        (same, "with the same label: a split may separate them"),
    ):
        if copies:
            first = " and ".join(shown(files.names[i]) for i in copies[0][:3])
            count = "1 image occurs" if len(copies) == 1 else f"{len(copies):,} images occur"
            notes.append(f"{count} several times {where}, such as {first}")
    return notes


def equal_groups(values, members):
    """Returns the groups of two or more `members`, sorted indices, with the same value, in their order."""
    order = members[np.argsort(values[members], kind="stable")]
    is_new = np.append(True, values[order[1:]] != values[order[:-1]])
    starts = np.flatnonzero(is_new)
    stops = np.append(starts[1:], len(order))
    is_group = stops - starts > 1
    groups = [order[start:stop] for start, stop in zip(starts[is_group], stops[is_group])]
    return sorted(groups, key=lambda group: group[0])
