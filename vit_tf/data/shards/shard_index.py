"""The index of a folder of shards: `index.json` and the table `images.npz`, each with its hash."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from vit_tf.checks import brief, quoted, require
from vit_tf.data.shards.shard_files import KINDS, Shards
from vit_tf.data.shards.shard_table import ShardTable
from vit_tf.files import atomic_path, read_json, sha256, write_json

INDEX, TABLE, WORK = "index.json", "images.npz", "unfinished"
FORMAT = "vit_tf shards 1"
AGAIN = "copy the folder again, or write the shards again by vit-tf shard"
TYPES = {"kind": str, "class_names": list, "notes": list, "shards": list, "table": dict, "checksum": str}


@dataclass(frozen=True)
class ShardedImages:
    """What `vit_tf.data.find_images` needs of shards: see `ImageFiles`."""

    shards: Shards
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def is_shard_folder(folder: Path) -> bool:
    """Whether a folder has shards of `write_shards`, by its index; a ValueError if they are unfinished."""
    if (folder / INDEX).is_file():
        try:
            return read_json(folder / INDEX).get("format", "").startswith(FORMAT.rpartition(" ")[0])
        except (ValueError, AttributeError):
            return (folder / TABLE).is_file()  # the index is damaged
    is_unfinished = (folder / WORK / "job.json").is_file()
    hint = "run the same vit-tf shard again, which continues"
    require(not is_unfinished, f"a folder of shards that are not finished: {hint}")
    return False


def write_index(folder, kind, class_names, notes, shards, table):
    """Writes the table and then, last of all, the index.

    `shards` is a list of {"name", "bytes", "images", "sha256"}.
    """
    with atomic_path(folder / TABLE) as partial:
        table.save(partial)
    index = {
        "format": FORMAT,
        "kind": kind,
        "images": len(table.names),
        "class_names": list(class_names),
        "notes": list(notes),
        "shards": shards,
        "table": {"bytes": (folder / TABLE).stat().st_size, "sha256": sha256(folder / TABLE)},
    }
    write_json(folder / INDEX, {**index, "checksum": checksum(index)})


def checksum(index):
    """Returns the SHA-256 of an index without its own."""
    content = {key: value for key, value in index.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_shards(folder: Path) -> ShardedImages:
    """Opens shards that `write_shards` wrote.

    The index and the table are compared with their hashes, the shards with their sizes, and the first image
    of each shard with its fingerprint. The hashes of whole shards are not computed.

    Raises:
        ValueError: a file is missing, truncated or damaged, or belongs to another index.
    """
    index = read_index(folder)
    table = read_table(folder, index)
    names = [shard["name"] for shard in index["shards"]]
    times = check_sizes(folder, index["shards"])
    shards = Shards(folder, index["kind"], names, table, is_checked=True, times=times)
    check_first_images(shards)
    return ShardedImages(shards, tuple(index["class_names"]), tuple(index["notes"]))


def read_index(folder):
    index = read_json(folder / INDEX)
    is_known = index.get("format") == FORMAT
    problem = f"{INDEX} is of the format {index.get('format')!r}, expected {FORMAT!r}"
    require(is_known, f"{problem}: write the shards again, or use the version of vit_tf that wrote them")
    is_valid = all(isinstance(index.get(key), kind) for key, kind in TYPES.items())
    is_valid = is_valid and index["checksum"] == checksum(index) and index["kind"] in KINDS
    require(is_valid, f"{INDEX} is damaged or was changed: {AGAIN}")
    return index


def read_table(folder, index):
    path, expected = folder / TABLE, index["table"]
    require(path.is_file(), f"{TABLE} is missing: {AGAIN}")
    is_own = path.stat().st_size == expected["bytes"] and sha256(path) == expected["sha256"]
    require(is_own, f"{TABLE} is damaged, or belongs to another {INDEX}: {AGAIN}")
    try:
        return ShardTable.load(path)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ValueError(f"{TABLE} cannot be read ({brief(error)}): {AGAIN}") from error


def check_sizes(folder, shards):
    """Returns the times of change of the shards; a ValueError if one is missing or has another size."""
    missing, truncated, times = [], [], []
    for shard in shards:
        try:
            status = os.stat(folder / shard["name"])
        except OSError:
            missing.append(shard["name"])
            continue
        times.append(status.st_mtime_ns)
        if status.st_size != shard["bytes"]:
            truncated.append(shard["name"])
    problem = f"{len(missing):,} of {len(shards):,} shards are missing: {quoted(missing)}"
    require(not missing, f"{problem}; {AGAIN}")
    problem = f"{len(truncated):,} of {len(shards):,} shards are truncated or changed: {quoted(truncated)}"
    require(not truncated, f"{problem}; {AGAIN}")
    return times


def check_first_images(shards):
    """Raises a ValueError for a shard whose first image is not that of the index, as of another index."""
    _, firsts = np.unique(shards.table.shards, return_index=True)
    foreign = []
    for i in firsts:
        try:
            shards.read_at(i, compares=True)
        except (OSError, ValueError) as error:
            foreign.append((shards.shard_names[shards.table.shards[i]], brief(error)))
    problem = f"{len(foreign):,} of {len(firsts):,} shards are damaged or belong to another index"
    names = quoted(name for name, _ in foreign)
    require(not foreign, f"{problem}: {names} ({foreign[:1] and foreign[0][1]}); {AGAIN}")
