"""Tar files of WebDataset that other programs wrote: found by one scan of their headers, which is kept.

A sample is the files with the same key, next to each other in a tar: the name up to the first dot of its last
part. It has an image (.jpg, .png, ...) and its class, which is the first of:

- in .json, "class", "class_name" or "classes": a name, or a list of names;
- .cls: an index or a name;
- in .json, "label", "cls" or "labels": an index, a name, or a list of these;
- .txt: a name.

The names of indices are the lines of a file `classes.txt` beside the tars, or else the numbers themselves.
The split is the word train, val or test in the path of the tar.
"""

import hashlib
import json
import os
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from vit_tf import terminal
from vit_tf.checks import brief, quoted, require, shown
from vit_tf.data.directory_layout import encode_labels, split_in
from vit_tf.data.shards.shard_files import Shards
from vit_tf.data.shards.shard_index import ShardedImages
from vit_tf.data.shards.shard_table import PART_NAMES, ShardTable
from vit_tf.data.shards.tar_shards import TAR_ENDING
from vit_tf.files import atomic_path, cache_folder, open_regular, read_json, read_regular, sha256, write_json
from vit_tf.preprocessing.decode import MAX_IMAGE_BYTES
from vit_tf.preprocessing.image_formats import readable_endings

KEY = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)", re.DOTALL)  # WebDataset's
CLASS_FILES = ("json", "cls", "txt")
NAME_KEYS, INDEX_KEYS = ("class", "class_name", "classes"), ("label", "cls", "labels")
MOST_LABEL_BYTES = 1 << 20
# What tarfile raises for damaged headers, which may name a size beyond all memory.
DAMAGES = (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError, RecursionError)
MOST_LETTERS = 200  # of a class in .txt; a longer text is a caption


@dataclass
class Sample:
    """The files of a sample: of its image the offset and the size, of the others their bytes."""

    key: str
    image: tuple[str, int, int] | None = None  # ending, offset, size
    texts: dict[str, bytes] = field(default_factory=dict)


def tars_of(paths):
    """Returns the tars of a folder that has no image files, sorted; [] for other folders."""
    return [] if paths.images else sorted(name for name in paths.others if name.endswith(TAR_ENDING))


def read_tars(root: Path, tars: list[str]) -> ShardedImages:
    """Opens the tars of a folder. The images have not been checked yet.

    Raises:
        ValueError: a tar is damaged, or its images have no classes.
    """
    states = [os.stat(root / name) for name in tars]
    stamps = [[name, status.st_size, status.st_mtime_ns] for name, status in zip(tars, states)]
    class_file = root / "classes.txt"
    lines = read_regular(class_file, MOST_LABEL_BYTES).decode().splitlines() if class_file.is_file() else []
    name = hashlib.blake2b(os.fsencode(os.path.realpath(root)), digest_size=16).hexdigest()
    folder = Path(os.environ.get("VIT_TF_CHECKS") or cache_folder() / "checks")
    scanned = read_scan(folder / name, [stamps, lines])
    if scanned is None:
        scanned = scan(root, tars, lines)
        keep_scan(folder / name, [stamps, lines], *scanned)
    table, class_names, notes = scanned
    times = [status.st_mtime_ns for status in states]
    shards = Shards(root, "webdataset", tars, table, is_checked=False, times=times)
    return ShardedImages(shards, tuple(class_names), tuple(notes))


# ---------------------------------------------------------------------------------------------------
# The scan of an earlier start
# ---------------------------------------------------------------------------------------------------
def read_scan(path, stamps):
    """Returns (table, class names, notes) of `keep_scan`; None if they are of other tars, or damaged."""
    table_path = path.with_suffix(".npz")
    try:
        about = read_json(path.with_suffix(".json"))
        if about["stamps"] != stamps or about["sha256"] != sha256(table_path):
            return None
        return ShardTable.load(table_path), about["class_names"], about["notes"]
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):
        return None


def keep_scan(path, stamps, table, class_names, notes):
    """Writes the result of a scan to the user's cache folder, if that can be written."""
    table_path = path.with_suffix(".npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(table_path) as partial:
            table.save(partial)
        about = {"stamps": stamps, "sha256": sha256(table_path), "notes": list(notes)}
        write_json(path.with_suffix(".json"), {**about, "class_names": list(class_names)})
    except OSError:  # the next start scans again
        return


# ---------------------------------------------------------------------------------------------------
# Scanning
# ---------------------------------------------------------------------------------------------------
def scan(root, tars, lines):
    """Returns (`ShardTable`, class names, notes) of the samples in tars."""
    rows, unlabelled = [], []
    for shard, name in enumerate(terminal.track(tars, "reading the headers of the tars")):
        part = PART_NAMES.index(split_in(name) or None)
        for sample in samples_of(root / name, name):
            if sample.image is None:
                continue
            label = label_of(sample.texts, lines)
            ending, offset, size = sample.image
            image = f"{name.removesuffix(TAR_ENDING)}/{sample.key}.{ending}"
            if label is None:
                unlabelled.append(image)
            else:
                rows.append((image, label, part, shard, offset, size))
    problem = f"{len(tars):,} tars without an image that has a class, such as {shown(tars[0])}"
    require(
        rows, f"{problem}: expected samples of KEY.jpg and KEY.cls, .json or .txt, as WebDataset has them"
    )
    notes = (
        [f"{len(unlabelled):,} images have no class, left out: {quoted(unlabelled)}"] if unlabelled else []
    )
    return *as_table(rows), notes


def as_table(rows):
    rows.sort(key=lambda row: row[0])
    names = tuple(row[0] for row in rows)
    twice = [a for a, b in zip(names, names[1:]) if a == b]
    require(not twice, f"the sample {quoted(twice)} occurs twice in its tar: write the tar again")
    labels = [row[1] for row in rows]
    if any(isinstance(label, tuple) for label in labels):
        labels = [label if isinstance(label, tuple) else (label,) for label in labels]
    class_names, encoded = encode_labels(labels)
    require(len(class_names) > 1, f"only the class {quoted(class_names)}: expected at least two")
    kinds = (np.uint8, np.int32, np.int64, np.int64)
    columns = [np.array([row[i] for row in rows], kind) for i, kind in zip(range(2, 6), kinds)]
    return ShardTable(names, encoded, *columns, np.zeros(len(rows), "S1")), class_names


def samples_of(path, name):
    """Yields the `Sample`s of a tar."""
    sample = Sample("")
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while member := tar.next():
                tar.members.clear()  # which would grow with the tar
                match = KEY.fullmatch(member.name.removeprefix("./"))
                if not match or not member.isreg() or member.issparse():
                    continue
                key, ending = match.groups()
                if key != sample.key:
                    yield sample
                    sample = Sample(key)
                add_file(sample, ending.lower(), member, file)
            yield sample
    except DAMAGES as error:
        raise ValueError(f"the tar {shown(name)} is damaged ({brief(error)}): copy it again") from error


def add_file(sample, ending, member, file):
    """Adds a file of a tar to its sample."""
    if f".{ending.rpartition('.')[2]}" in readable_endings():
        is_better = sample.image is None or ("." in sample.image[0] and "." not in ending)
        if is_better and member.size <= MAX_IMAGE_BYTES:  # a .jpg before a .mask.png
            sample.image = ending, member.offset_data, member.size
    elif ending in CLASS_FILES and member.size <= MOST_LABEL_BYTES:
        file.seek(member.offset_data)
        sample.texts[ending] = file.read(member.size)


def label_of(texts, lines):
    """Returns the class of a sample, a str; the classes, a tuple of str; or None."""
    try:
        about = json.loads(texts.get("json", b"{}"))
    except (ValueError, RecursionError):
        about = {}
    about = about if isinstance(about, dict) else {}
    values = [about.get(key) for key in NAME_KEYS]
    values += [texts["cls"].decode("utf-8", "replace").strip()] if "cls" in texts else []
    values += [about.get(key) for key in INDEX_KEYS]
    text = texts.get("txt", b"").decode("utf-8", "replace").strip()
    values += [text] if len(text) <= MOST_LETTERS and "\n" not in text else []
    for value in values:
        if isinstance(value, list) and all(is_class(each) for each in value):
            return tuple(sorted({class_name(each, lines) for each in value}))
        if is_class(value):
            return class_name(value, lines)
    return None


def is_class(value):
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def class_name(value, lines):
    """Returns the name of a class; that of an index is its line of classes.txt, if there is one."""
    text = str(value)
    index = int(text) if re.fullmatch("[0-9]{1,9}", text) else -1
    return lines[index].strip() if 0 <= index < len(lines) else text
