"""Notes on likely mistakes in a data set: similar class names, imbalance, duplicate images."""

import unicodedata

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


def copy_notes(files, digests):
    """Returns notes on images with the same bytes: `digests` has a hash per file, None if unreadable."""
    groups = {}
    for i, digest in enumerate(digests):
        if digest is not None:
            groups.setdefault(digest, []).append(i)
    in_labels, in_splits, same = [], [], []
    for group in groups.values():
        has_labels = len({files.labels[i].tobytes() for i in group}) > 1
        has_splits = len({files.splits[i] for i in group}) > 1
        in_labels += [group] if has_labels else []
        in_splits += [group] if has_splits else []
        same += [group] if len(group) > 1 and not (has_labels or has_splits) else []
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
