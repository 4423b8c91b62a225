"""`VectorJournal`: the vectors of `vit-tf embed` until its file is whole. Shapes: b rows, d width."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vit_tf.checks import brief, require
from vit_tf.embeddings.vector_file import Embeddings, write_embeddings
from vit_tf.embeddings.vector_info import VectorInfo
from vit_tf.files import read_json, try_lock, write_json

ENDING = ".part"
INFO, ROWS, VECTORS = "info.json", "rows.jsonl", "vectors.bin"


class VectorJournal:
    """A folder that holds vectors beside their future file, such as photos.parquet.part.

    `append` writes the vectors of a batch before the rows with their paths. So after Ctrl-C, a kill or a full
    disk the whole rows have their vectors, and opening the journal cuts off the rest.

    Args:
        folder: of the journal, which `opened` has made.
        info: the `VectorInfo` of the vectors.

    Attributes:
        paths, labels: of the rows so far.
    """

    def __init__(self, folder: Path, info: VectorInfo):
        self.folder, self.info = folder, info
        self.paths: list[str] = []
        self.labels: list[str | None] = []
        self._row_bytes = info.num_features * np.dtype(info.dtype).itemsize
        self._recover()
        self._rows = open(folder / ROWS, "ab")
        self._vectors = open(folder / VECTORS, "ab")

    def append(self, paths: Sequence[str], labels: Sequence[str | None], vectors: np.ndarray) -> None:
        """Adds rows. `vectors` are floats (b, d), which are stored in the dtype of the journal.

        Raises:
            ValueError: a vector is not finite in this dtype.
            OSError: the disk is full.
        """
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(vectors, self.info.dtype)
        problem = f"a vector is not finite as {self.info.dtype}"
        require(np.isfinite(stored).all(), f"{problem}: use --dtype float32, or --normalize")
        lines = [json.dumps(row) + "\n" for row in zip(paths, labels)]
        for file, data in ((self._vectors, stored.tobytes()), (self._rows, "".join(lines).encode())):
            file.write(data)
            file.flush()
        self.paths += paths
        self.labels += labels

    def write(self, path: str | os.PathLike) -> None:
        """Writes all rows to a file of embeddings, completely or not at all."""
        shape = len(self.paths), self.info.num_features
        vectors = np.memmap(self.folder / VECTORS, self.info.dtype, "r", shape=shape)
        write_embeddings(path, Embeddings(self.info, self.paths, self.labels, vectors))

    def close(self) -> None:
        for file in (self._rows, self._vectors):
            try:
                file.close()
            except OSError:  # what could not be written before
                pass

    def remove(self) -> None:
        """Removes the folder."""
        self.close()
        shutil.rmtree(self.folder)

    def _recover(self):
        """Reads the rows, and cuts off what is not whole."""
        rows, vectors = (self.folder / name for name in (ROWS, VECTORS))
        for path in (rows, vectors):
            path.touch()
        count, size = vectors.stat().st_size // self._row_bytes, 0
        with open(rows, "rb") as file:
            for line in file:
                if not line.endswith(b"\n") or len(self.paths) == count:
                    break
                try:
                    path, label = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{str(rows)!r} is damaged: {brief(error)}; add --force") from error
                self.paths.append(path)
                self.labels.append(label)
                size += len(line)
        os.truncate(rows, size)
        os.truncate(vectors, len(self.paths) * self._row_bytes)


def journal_folder(path: str | os.PathLike) -> Path:
    """Returns the folder of the journal of a file."""
    path = Path(path)
    return path.with_name(path.name + ENDING)


@contextmanager
def opened(path: str | os.PathLike, info: VectorInfo, resume: bool) -> Iterator[VectorJournal]:
    """A scope with the `VectorJournal` of a file, locked against other processes.

    Args:
        path: of the future file.
        info: the `VectorInfo` of the vectors that will be appended.
        resume: bool, whether to continue an existing journal; else it is replaced.

    Raises:
        ValueError: the journal has vectors of another model or with other options, or another process
            writes it.
    """
    folder = journal_folder(path)
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        is_free = try_lock(lock)
        require(is_free, f"another process is embedding into {os.fspath(path)!r}: wait for it")
        if resume and (folder / INFO).exists():
            known = VectorInfo.from_dict(read_json(folder / INFO))
            known.check_same(info, folder, strict=True)
            info = known
        else:
            for name in (INFO, ROWS, VECTORS):  # the description last of all
                (folder / name).unlink(missing_ok=True)
            write_json(folder / INFO, info.to_dict())
        journal = VectorJournal(folder, info)
        try:
            yield journal
        finally:
            journal.close()
            if folder.exists() and not journal.paths:  # nothing was embedded
                journal.remove()
