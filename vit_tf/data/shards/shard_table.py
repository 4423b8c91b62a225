"""`ShardTable`: where in which shard each image is. Shapes: n images, k classes."""

import os
from dataclasses import dataclass

import numpy as np

from vit_tf.checks import require
from vit_tf.data.directory_layout import SPLITS

PART_NAMES = (None, *SPLITS)  # by their codes in the table
COLUMNS = ("labels", "parts", "shards", "places", "sizes", "fingerprints")


@dataclass(frozen=True, eq=False)
class ShardTable:
    """The images of all shards.

    Args:
        names: str, sorted and unique.
        labels: integers [n], or bool [n, k] if an image may have several classes.
        parts: uint8 [n], indices into `PART_NAMES`.
        shards: int32 [n], indices of the shards.
        places: int64 [n]: the number of the record in an ArrayRecord shard, or the offset in a tar.
        sizes: int64 [n], bytes of each image.
        fingerprints: bytes [n], see `vit_tf.data.fingerprints`; empty where they are not known.
    """

    names: tuple[str, ...]
    labels: np.ndarray
    parts: np.ndarray
    shards: np.ndarray
    places: np.ndarray
    sizes: np.ndarray
    fingerprints: np.ndarray

    def save(self, path: str | os.PathLike) -> None:
        """Writes the table as an .npz; the names are one array of bytes, with a NUL after each."""
        text = "".join(f"{name}\0" for name in self.names).encode("utf-8", "surrogateescape")
        columns = {name: getattr(self, name) for name in COLUMNS}
        with open(path, "wb") as file:
            np.savez(file, names=np.frombuffer(text, np.uint8), **columns)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ShardTable":
        """Reads what `save` wrote; raises a ValueError, a KeyError or an OSError for anything else."""
        with np.load(path, allow_pickle=False) as arrays:
            text = arrays["names"].tobytes().decode("utf-8", "surrogateescape")
            columns = {name: arrays[name] for name in COLUMNS}
        names = tuple(text.split("\0")[:-1])
        is_whole = all(len(column) == len(names) for column in columns.values())
        require(is_whole, "the columns differ in length")
        return cls(names, **columns)
