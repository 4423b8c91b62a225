"""The class and the split of each image of a folder or zip, from the paths alone. No file is opened.

Paths are relative to the data set, with / between their parts.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from vit_tf.checks import quoted, require, shown
from vit_tf.preprocessing.image_formats import FORMATS, format_of_name, readable_endings

SPLITS = ("train", "validation", "test")
SPLIT_OF_NAME = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
UNLABELLED = ("pred", "prediction", "predictions", "unlabeled", "unlabelled")  # seg_pred of Kaggle
FOLD = re.compile(r"(?i)(cv|folds?|parts?|splits?|subsets?|sets?|batch)[ _.-]*[0-9]+")
EXPECTED_LAYOUTS = (
    "expected one folder per class (cat/1.jpg, dog/2.jpg), files named cat.1.jpg and dog.2.jpg, or "
    "train, val and test folders of these"
)
ENDING = re.compile(r".+(\.[a-z][a-z0-9]{0,9})", re.DOTALL)  # does not match photo.1 and photo.jpg_large
CLASS_AND_NUMBER = re.compile(r"([^.]+)\.[0-9]+\.[^.]+")  # cat.12.jpg
MAX_WRAPPERS = 8  # nested folders that each contain only the next folder
IGNORED = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"}  # files of macOS, Synology and Windows


@dataclass
class Paths:
    """The files and folders in a folder or zip.

    Args:
        images: the names of files that can be read as images.
        others: the names of other files.
        special: the names of pipes, devices and sockets, which are never opened.
        folders: the names of all folders, also of empty ones.
    """

    images: list = field(default_factory=list)
    others: list = field(default_factory=list)
    special: list = field(default_factory=list)
    folders: set = field(default_factory=set)

    def add(self, name, read_start):
        """Adds a file. `read_start()` returns its first bytes, which decide if the name has no ending."""
        is_image = name.lower().endswith(readable_endings())
        if not is_image and not ending(name):
            start = read_start()
            is_image = any(format.can_be_read and format.matches(start) for format in FORMATS)
        (self.images if is_image else self.others).append(name)


def ending(name):
    """Returns the ending of a file's name in lower case, or ""."""
    match = ENDING.fullmatch(name.rpartition("/")[2].lower())
    return match[1] if match else ""


def left_out_as_no_images(paths):
    """Returns a list of at most two notes on files that are not readable images."""
    notes = []
    if paths.others:
        counts = Counter(map(ending, paths.others)).most_common()
        kinds = [f"{count:,} {kind or 'without an ending'}{remedy(kind)}" for kind, count in counts[:8]]
        rest = sum(count for _, count in counts[8:])
        kinds += [f"{rest:,} of {len(counts) - 8:,} other endings"] if rest else []
        notes.append(f"files left out, not readable as images: {', '.join(kinds)}")
    if paths.special:
        count = len(paths.special)
        notes.append(f"{count:,} left out, not regular files: {quoted(sorted(paths.special))}")
    return notes


def remedy(kind):
    """Returns how to make files with an ending readable, in brackets, or ""."""
    format = format_of_name(kind)
    return f" ({format.remedy})" if format and format.remedy else ""


def is_ignored(part):
    """Whether a file or folder is hidden, or belongs to an operating system, by its name."""
    return part.startswith(".") or part in IGNORED


def natural_key(name):
    """Returns a sort key by code points, with class9 before class10; independent of the locale."""
    parts = re.split("([0-9]+)", name)  # text and numbers alternate
    numbers = [(len(digits), digits) for digits in (part.lstrip("0") for part in parts[1::2])]
    return [*zip(parts[::2], [*numbers, (0, "")])], name


def encode_labels(labels):
    """Returns (class names in natural order, encoded labels).

    One name per image gives indices, int64 [n]; one tuple of names per image gives bool [n, k].
    """
    is_multi_label = any(isinstance(label, tuple) for label in labels)
    names = {name for label in labels for name in label} if is_multi_label else set(labels)
    class_names = tuple(sorted(names, key=natural_key))
    index = {name: i for i, name in enumerate(class_names)}
    if not is_multi_label:
        return class_names, np.array([index[label] for label in labels], np.int64)
    encoded = np.zeros((len(labels), len(class_names)), bool)
    for row, label in zip(encoded, labels):
        row[[index[name] for name in label]] = True
    return class_names, encoded


def label_images(paths):
    """Returns the class and the split of every image, from its path.

    The class is the name of a folder, whose images may lie in deeper folders; or the part before the number
    in `cat.12.jpg`. Both layouts may lie in folders for train, validation and test. A single folder around
    everything is skipped, so a single class folder that contains two folders counts as two classes.

    Args:
        paths: the `Paths` of a folder or zip.

    Returns:
        (labelled, notes): {path: (class_name, split or None)}, and notes on what is left out: other files, by
        their endings, images without a class, folders without an image, a test folder without labels.

    Raises:
        ValueError: there are no images or fewer than two classes, or folders may be either classes or splits.
    """
    names = quoted(sorted(paths.others) or sorted(paths.folders))
    problem = f"it has no images, only {names}" if names else "it is empty"
    require(paths.images, f"{'; '.join([problem, *left_out_as_no_images(paths)])}: {EXPECTED_LAYOUTS}")
    for depth in range(MAX_WRAPPERS):
        groups = by_folder(paths.images, depth)
        if len(groups) != 1 or SPLIT_OF_NAME.keys() & {folder.lower() for folder in groups}:
            break
    split_of = split_folders(groups, depth + 1)
    labelled = label_splits(groups, split_of, depth + 1)
    notes = left_out_as_no_images(paths)
    if labelled:
        notes += [
            f"the folder {shown(folder)} is used as {split}"
            for folder, split in split_of.items()
            if folder.lower() not in SPLIT_OF_NAME and any(name in labelled for name in groups[folder])
        ]
    else:
        notes += folders_inside(groups, depth + 1)
        labelled = {name: (label, None) for name, label in classes_of(paths.images).items()}
    left_out = sorted(name for name in paths.images if name not in labelled)
    if left_out:
        notes.append(f"{len(left_out):,} images lie in no class, left out: {quoted(left_out)}")
    empty = empty_folders(paths)
    if empty:
        notes.append(f"no image in the folder {quoted(empty)}, left out")
    problem = f"fewer than two classes in {len(paths.images):,} images"
    is_enough = len({label for label, _ in labelled.values()}) > 1
    require(is_enough, f"{'; '.join([problem, *notes])}: {EXPECTED_LAYOUTS}")
    return labelled, tuple(notes)


def by_folder(names, depth):
    """Returns {folder: names} by the part of the path at `depth`, without files directly at this depth."""
    groups = {}
    for name in names:
        parts = name.split("/", depth + 1)
        if len(parts) == depth + 2:
            groups.setdefault(parts[depth], []).append(name)
    return groups


def classes_of(names, depth=0, known=frozenset()):
    """Returns {name: class}, from folders at `depth`, file names or deeper folders; {} if there are none.

    A layout needs two classes, or one class that is already `known`.
    """
    for level in range(depth, depth + MAX_WRAPPERS):
        groups = by_folder(names, level)
        if len(groups) > 1 or known & groups.keys():
            return {name: folder for folder, members in groups.items() for name in members}
        flat = [name for name in names if name.count("/") == level]
        matches = {name: CLASS_AND_NUMBER.fullmatch(name.rsplit("/", 1)[-1]) for name in flat}
        labels = {name: match[1] for name, match in matches.items() if match}
        if len(set(labels.values())) > 1 or known.intersection(labels.values()):
            return labels
    return {}


def split_folders(groups, depth):
    """Returns {folder: split} of the folders that are splits by their names; the split "" has no labels.

    Names in `SPLIT_OF_NAME` always count. Names that contain such a word, such as training_set or seg_test,
    count if no folder has the plain name of that split. Without a plainly named train folder, they count
    only if their classes are the same.
    """
    plain = {folder: SPLIT_OF_NAME.get(folder.lower()) for folder in groups}
    plain = {folder: split for folder, split in plain.items() if split}
    wordy = {folder: split_in(folder) for folder in groups if folder not in plain}
    wordy = {f: split for f, split in wordy.items() if split is not None and split not in plain.values()}
    splits = list(wordy.values())
    if any(splits.count(split) > 1 for split in SPLITS):  # train_images beside train_masks
        return plain
    if plain:
        return plain | wordy if "train" in plain.values() else plain
    train_names = [name for folder, split in wordy.items() if split == "train" for name in groups[folder]]
    train = frozenset(classes_of(train_names, depth).values())
    others = [classes_of(groups[f], depth, train) for f, split in wordy.items() if split in SPLITS[1:]]
    is_same = train and all(train & set(classes.values()) for classes in others if classes)
    return wordy if is_same and len(splits) > 1 else {}


def split_in(folder):
    """Returns the split that a word in a folder name means, "" for images without labels, or None."""
    words = re.findall("[a-z]+", folder.lower())
    splits = {SPLIT_OF_NAME[word] for word in words if word in SPLIT_OF_NAME}
    if len(splits) == 1:
        return splits.pop()
    return "" if not splits and set(words) & set(UNLABELLED) else None


def folders_inside(groups, depth):
    """Returns a list with a note if all class folders contain the same folders, else an empty list.

    Raises:
        ValueError: the names of the class folders mean parts of a data set.
    """
    inside = {frozenset(by_folder(names, depth)) for names in groups.values()}
    names = sorted(next(iter(inside), ()))
    if len(groups) < 2 or len(inside) > 1 or len(names) < 2:
        return []
    problem = f"the folders {quoted(sorted(groups))} all contain the folders {quoted(names)}"
    is_parts = all(FOLD.fullmatch(folder) or split_in(folder) is not None for folder in groups)
    hint = "rename them to train, val and test, pass one alone, or write a table of path, label, split"
    require(not is_parts, f"{problem}, which are classes or parts: {hint}")
    return [f"{problem}, and are used as the classes"]


def label_splits(groups, split_of, depth):
    """Returns {name: (class, split)} for train, validation and test folders; {} for other folders."""
    members = {split: [] for split in SPLITS}
    others = [folder for folder in groups if folder not in split_of]
    for folder, split in split_of.items():
        members.get(split, []).extend(groups[folder])
    classes = classes_of(members["train"], depth)
    if not classes:
        is_all_splits = groups and not others
        hint = "expected two or more classes in a train folder, or give one of these folders by itself"
        require(not is_all_splits, f"no training images by class in the folders {quoted(groups)}: {hint}")
        return {}
    # Kaggle's test1 has no labels and is allowed here; a folder with another name may be a class.
    unclear = [folder for folder in others if not folder.lower().startswith(tuple(SPLIT_OF_NAME))]
    hint = f"move {quoted(unclear)} elsewhere, or rename the train folder if it is a class"
    require(not unclear, f"a train folder of classes lies beside {quoted(unclear)}: {hint}")
    labelled = {name: (label, "train") for name, label in classes.items()}
    for split in SPLITS[1:]:
        labels = classes_of(members[split], depth, known=frozenset(classes.values()))
        labelled |= {name: (label, split) for name, label in labels.items()}
    return labelled


def empty_folders(paths):
    """Returns the outermost folders without an image, sorted."""
    filled = {""}
    for folder in paths.images:
        while (folder := folder.rpartition("/")[0]) not in filled:
            filled.add(folder)
    return sorted(f for f in paths.folders if f not in filled and f.rpartition("/")[0] in filled)
