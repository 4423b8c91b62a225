"""Files of embeddings: Parquet by pyarrow, and .npz by NumPy alone. Shapes: n images, d width of a vector.

A Parquet file has the columns path (text), label (text or null) and vector (list of d floats), and the
description of the vectors, a `VectorInfo` as JSON, as the entry "vit_tf" of its metadata. An .npz file has
the arrays path, label ("" for none), vector and vit_tf.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vit_tf.checks import brief, require, shown
from vit_tf.deploy.extras import require_modules
from vit_tf.embeddings.vector_info import VectorInfo
from vit_tf.files import atomic_path, open_regular
from vit_tf.zips import check_members, read_npy

ENDINGS = (".parquet", ".npz")
ENTRY = "vit_tf"  # of the description
ROWS_AT_ONCE = 8192
NO_FILE = "is no embeddings file, which `vit-tf embed` writes"


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors of images, with the paths and labels of the images.

    Args:
        info: the `VectorInfo` that says how the vectors were made.
        paths: n paths relative to `info.folder`, with / between their parts.
        labels: n class names or None.
        vectors: float32 or float16 (n, d).

    Raises:
        ValueError: the numbers of rows differ, or the vectors have another width or dtype than `info` says.
    """

    info: VectorInfo
    paths: Sequence[str]
    labels: Sequence[str | None]
    vectors: np.ndarray

    def __post_init__(self):
        n = len(self.paths)
        require(len(self.labels) == n, f"{n:,} paths have {len(self.labels):,} labels")
        expected = (n, self.info.num_features), self.info.dtype
        got = self.vectors.shape, str(self.vectors.dtype)
        require(got == expected, f"the vectors have shape and dtype {got}, expected {expected}")

    def __len__(self):
        return len(self.paths)

    def file(self, i: int, folder: str | os.PathLike | None = None) -> Path:
        """Returns the path of the file of image i.

        Args:
            folder: where the images are now; None for where they were when they were embedded.
        """
        return Path(self.info.folder if folder is None else folder, self.paths[i])

    def batches(self) -> Iterator[tuple[Sequence[str], Sequence[str | None], np.ndarray]]:
        """Yields (paths, labels, vectors) of a few thousand rows at a time."""
        for start in range(0, len(self), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            yield self.paths[rows], self.labels[rows], self.vectors[rows]


def check_name(path: str | os.PathLike) -> None:
    """Raises a ValueError for a file name of another ending, or if a file of its kind needs an extra."""
    ending = Path(path).suffix.lower()
    require(ending in ENDINGS, f"{os.fspath(path)!r} must end in {' or '.join(ENDINGS)}")
    if ending == ".parquet":
        require_modules(["pyarrow"], "search", f"the file {Path(path).name!r}")


def write_embeddings(path: str | os.PathLike, embeddings: Embeddings) -> None:
    """Writes a file of embeddings, completely or not at all.

    Args:
        path: ends in .parquet or .npz.
        embeddings: the `Embeddings`. Their vectors may be a memory map: they are written in parts.

    Raises:
        ValueError: the path has another ending, or pyarrow is not installed.
        OSError: the disk is full, or the folder cannot be written to.
    """
    check_name(path)
    write = write_parquet if Path(path).suffix.lower() == ".parquet" else write_npz
    with atomic_path(path) as partial:
        write(partial, embeddings)


def read_embeddings(path: str | os.PathLike) -> Embeddings:
    """Returns the `Embeddings` of a file.

    Raises:
        ValueError: the file is no embeddings file, is damaged, has NaN or infinite values, or needs pyarrow.
        OSError: the file does not exist or cannot be read.
    """
    check_name(path)
    read = read_parquet if Path(path).suffix.lower() == ".parquet" else read_npz
    open_regular(path).close()
    try:
        embeddings = read(path)
        require(np.isfinite(embeddings.vectors).all(), "it has NaN or infinite values")
        return embeddings
    except MemoryError:
        raise
    except Exception as error:  # parsers can raise nearly anything for damaged bytes
        problem = f"{os.fspath(path)!r} {NO_FILE}: {brief(error, 300)}"
    raise ValueError(problem)


# ---------------------------------------------------------------------------------------------------
# NumPy
# ---------------------------------------------------------------------------------------------------
def write_npz(path, embeddings):
    with open(path, "wb") as file:
        np.savez(
            file,
            path=np.array(embeddings.paths, dtype=str),
            label=np.array([label or "" for label in embeddings.labels], dtype=str),
            vector=embeddings.vectors,
            vit_tf=np.array(json.dumps(embeddings.info.to_dict())),
        )


def read_npz(path):
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        check_members(archive, archive.infolist(), "embed the images again")
        for name, kind in (("path", "U"), ("label", "U"), ("vector", "f"), (ENTRY, "U")):
            member = archive.getinfo(f"{name}.npy")
            with archive.open(member) as file:

                def check_kind(dtype, name=name, kind=kind):
                    require(dtype.kind == kind, f"{name} is {dtype}, expected the kind {kind}")

                arrays[name] = read_npy(file, name, member.file_size, check_kind)
    info = VectorInfo.from_dict(json.loads(str(arrays[ENTRY][()])))
    labels = [label or None for label in arrays["label"].tolist()]
    return Embeddings(info, arrays["path"].tolist(), labels, arrays["vector"])


# ---------------------------------------------------------------------------------------------------
# Parquet
# ---------------------------------------------------------------------------------------------------
def write_parquet(path, embeddings):
    import pyarrow
    from pyarrow import parquet

    info = embeddings.info
    width, kind = info.num_features, pyarrow.from_numpy_dtype(np.dtype(info.dtype))
    columns = [
        pyarrow.field("path", pyarrow.string()),
        pyarrow.field("label", pyarrow.string()),
        pyarrow.field("vector", pyarrow.list_(kind, width)),
    ]
    schema = pyarrow.schema(columns, {ENTRY: json.dumps(info.to_dict())})
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=["label"]) as writer:
        for paths, labels, vectors in embeddings.batches():
            values = pyarrow.array(np.ascontiguousarray(vectors).reshape(-1))
            vectors = pyarrow.FixedSizeListArray.from_arrays(values, width)
            rows = [pyarrow.array(paths, pyarrow.string()), pyarrow.array(labels, pyarrow.string()), vectors]
            writer.write_batch(pyarrow.record_batch(rows, schema=schema))


def read_parquet(path):
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        metadata = file.schema_arrow.metadata or {}
        require(ENTRY.encode() in metadata, f"its metadata has no entry {ENTRY!r}")
        info = VectorInfo.from_dict(json.loads(metadata[ENTRY.encode()]))
        names = file.schema_arrow.names
        require(names == ["path", "label", "vector"], f"it has the columns {shown(names)}")
        vectors = np.empty((file.metadata.num_rows, info.num_features), info.dtype)
        paths, labels, start = [], [], 0
        for batch in file.iter_batches(ROWS_AT_ONCE):
            paths += batch["path"].to_pylist()
            labels += batch["label"].to_pylist()
            values = batch["vector"].flatten().to_numpy(zero_copy_only=False)
            vectors[start : start + len(batch)] = values.reshape(len(batch), info.num_features)
            start += len(batch)
    require(None not in paths, "a row has no path")
    return Embeddings(info, paths, labels, vectors)
