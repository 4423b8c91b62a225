"""`ShardJob`: the folder of shards while they are written. Each finished shard has a record of its rows."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from vit_tf import terminal
from vit_tf.checks import require
from vit_tf.data.directory_layout import SPLITS
from vit_tf.data.shards.shard_files import KINDS
from vit_tf.data.shards.shard_index import INDEX, TABLE, WORK
from vit_tf.files import (
    atomic_path,
    read_json,
    remove_partial_files,
    sha256,
    sync_folder,
    try_lock,
    write_json,
)

JOB, LOCK = "job.json", "lock"
MEGABYTE = 1_000_000
OWN_FILE = re.compile(
    rf"(images|{'|'.join(SPLITS)})-[0-9]{{6,}}\.(npz|arrayrecord|tar)|bad_files\.csv|{TABLE}"
)
# An image of a shard; `index` is its position in the `ImageFiles`.
ROW = np.dtype([("index", "i8"), ("place", "i8"), ("size", "i8"), ("fingerprint", "S26"), ("digest", "S16")])


@dataclass
class Done:
    """A finished shard.

    Args:
        part, number: which shard.
        start, stop: positions in the order of the part that it covers, of unreadable images, too.
        rows: `ROW` [n], one per image. A shard without images has no file.
        bad: (name, reason) of unreadable images.
        file: {"bytes", "sha256"} of its file.
    """

    part: str
    number: int
    start: int
    stop: int
    rows: np.ndarray
    bad: list[tuple[str, str]]
    file: dict = field(default_factory=dict)


class ShardJob:
    """What is to be written to a folder, and what is finished.

    Args:
        folder: of the shards. Its subfolder `unfinished/` has a description of the job, the shard that is
            being written, and a record per finished shard.
        options: dict of "format" and "shard_mb".
        description: the options and a hash of the names, labels and splits, which decide what is written.
    """

    def __init__(self, folder: Path, options: dict, description: dict):
        self.folder, self.work, self.description = folder, folder / WORK, description
        self.format, self.shard_bytes = options["format"], options["shard_mb"] * MEGABYTE

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, files, options: dict) -> Iterator["ShardJob"]:
        """A scope that begins or continues a job, locked against other processes.

        If no shard is finished at its end, the folder is removed again.

        Raises:
            ValueError: the folder has something else, or another process writes it.
        """
        job = cls(folder, options, {**options, "images": len(files), "data": hash_of(files)})
        job.check_folder()
        job.work.mkdir(parents=True, exist_ok=True)
        with open(job.work / LOCK, "w") as lock:
            require(try_lock(lock), f"another process writes shards to {str(folder)!r}: wait for it")
            remove_partial_files(folder)
            remove_partial_files(job.work)
            write_json(job.work / JOB, job.description)
            try:
                yield job
            finally:
                if job.work.exists() and not any(job.work.glob("*.npz")):
                    shutil.rmtree(job.work)
                    if not any(folder.iterdir()):
                        folder.rmdir()

    def check_folder(self):
        """Raises a ValueError unless the folder is new, empty, or an unfinished one of this job."""
        folder = self.folder
        is_folder = folder.is_dir() or not folder.exists()
        require(is_folder, f"{str(folder)!r} is a file, and shards need a folder: choose another name")
        if not folder.exists() or not any(folder.iterdir()):
            return
        problem = f"{str(folder)!r} has finished shards: choose another folder, or remove it"
        require(not (folder / INDEX).exists(), problem)
        is_own = (self.work / JOB).is_file()
        if not is_own and {path.name for path in folder.iterdir()} <= {WORK}:
            return  # a start that was killed at once
        require(is_own, f"{str(folder)!r} is not empty: choose another folder")
        known = read_json(self.work / JOB)
        differing = [key for key in self.description if known.get(key) != self.description[key]]
        hint = "finish it with its own options and images, or remove it"
        problem = f"{str(folder)!r} has an unfinished job that differs in {', '.join(differing)}"
        require(not differing, f"{problem}: {hint}")

    def shard_name(self, part: str, number: int) -> str:
        return f"{part}-{number:06}{KINDS[self.format][0]}"

    def partial_path(self, part: str, number: int) -> Path:
        return self.work / self.shard_name(part, number)

    def record_path(self, part: str, number: int) -> Path:
        return self.work / f"{part}-{number:06}.npz"

    def keep(self, shard: Done) -> Done:
        """Moves a written shard to its place, and records that it is finished."""
        if len(shard.rows):
            path = self.partial_path(shard.part, shard.number)
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
            shard.file = {"bytes": path.stat().st_size, "sha256": sha256(path)}
            os.replace(path, self.folder / path.name)
            sync_folder(self.folder)
        details = {"start": shard.start, "stop": shard.stop, "bad": shard.bad, "file": shard.file}
        text = np.frombuffer(json.dumps(details).encode(), np.uint8)
        with atomic_path(self.record_path(shard.part, shard.number)) as partial:
            np.savez(partial, rows=shard.rows, details=text)
        return shard

    def finished_shards(self, progress: bool) -> list[Done]:
        """Returns the finished shards whose files have their hashes, and removes the others."""
        done: list[Done] = []
        starts: dict[str, tuple[int, int]] = {}
        records = sorted(self.work.glob("*.npz"))
        for path in terminal.track(records, "comparing finished shards", disable=not progress):
            part, number = path.stem.rsplit("-", 1)
            shard = self.read_record(path, part, int(number))
            count, stop = starts.get(part, (0, 0))
            if shard is None or (shard.number, shard.start) != (count, stop):
                continue  # those behind it do not fit either
            starts[part] = count + 1, shard.stop
            done.append(shard)
        kept = {self.shard_name(shard.part, shard.number) for shard in done}
        kept |= {self.record_path(shard.part, shard.number).name for shard in done}
        for path in (*self.folder.iterdir(), *self.work.iterdir()):
            if OWN_FILE.fullmatch(path.name) and path.name not in kept:
                path.unlink()
        return done

    def read_record(self, path: Path, part: str, number: int) -> Done | None:
        """Returns a finished shard; None if its record or its file is damaged."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                rows, details = arrays["rows"], json.loads(arrays["details"].tobytes())
            bad = [(name, reason) for name, reason in details["bad"]]
            shard = Done(part, number, details["start"], details["stop"], rows, bad, details["file"])
            if len(rows):
                file = self.folder / self.shard_name(part, number)
                if file.stat().st_size != shard.file["bytes"] or sha256(file) != shard.file["sha256"]:
                    return None
        except (OSError, ValueError, KeyError, TypeError, BadZipFile):
            return None
        return shard

    def describe(self, shard: Done) -> dict:
        """Returns the entry of a shard in the index."""
        return {"name": self.shard_name(shard.part, shard.number), "images": len(shard.rows), **shard.file}


def hash_of(files):
    """Returns a hash of the names, labels, splits and classes of `ImageFiles`."""
    digest = hashlib.blake2b(digest_size=16)
    for texts in (files.class_names, files.names, map(str, files.splits)):
        for text in texts:
            digest.update(text.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(b"\n")
    digest.update(files.labels.tobytes())
    return digest.hexdigest()


def as_label(files, i):
    """Returns the class or the classes of image i, for the files beside it in a tar."""
    if not files.is_multi_label:
        label = int(files.labels[i])
        return {"class": files.class_names[label], "label": label}
    labels = np.flatnonzero(files.labels[i]).tolist()
    return {"classes": [files.class_names[label] for label in labels], "labels": labels}
