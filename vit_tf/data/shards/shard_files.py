"""`Shards`: the images in the shards of a folder, read by their names."""

import os
from bisect import bisect_left
from functools import lru_cache
from pathlib import Path

from vit_tf.checks import brief, require, shown
from vit_tf.data.containers import ImageContainer
from vit_tf.data.fingerprints import data_fingerprint
from vit_tf.data.shards.array_record_shards import ARRAY_RECORD_ENDING, RecordReader, RecordWriter
from vit_tf.data.shards.shard_table import ShardTable
from vit_tf.data.shards.tar_shards import TAR_ENDING, TarReader, TarWriter

KINDS = {  # by the values of --format: ending, writer, reader
    "arrayrecord": (ARRAY_RECORD_ENDING, RecordWriter, RecordReader),
    "webdataset": (TAR_ENDING, TarWriter, TarReader),
}
MOST_OPEN = 400  # files; systems allow a process 1,024


class Shards(ImageContainer):
    """The images in the shards of a folder. Several threads and processes may read at the same time.

    Args:
        folder: of the shards.
        kind: one of `KINDS`.
        shard_names: paths of the shards, relative to the folder.
        table: the `ShardTable`.
        is_checked: bool, whether all images were decoded when the shards were written.
        times: the times of change of the shards, ns.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        kind: str,
        shard_names: list[str],
        table: ShardTable,
        is_checked: bool,
        times: list[int],
    ):
        self.source, self.kind, self.shard_names = Path(folder), kind, shard_names
        self.table, self.is_checked, self.times = table, is_checked, times
        self.lists_fingerprints = is_checked  # the index has them, and tars of other programs have none
        self._open = lru_cache(MOST_OPEN)(self._opened)

    def __reduce__(self):
        state = (self.source, self.kind, self.shard_names, self.table, self.is_checked, self.times)
        return Shards, state

    def read(self, name):
        return self.read_at(self._index(name), compares=self.kind != "arrayrecord")  # which has own hashes

    def read_at(self, i: int, compares: bool) -> bytes:
        """Returns the bytes of image i, compared with its fingerprint or not."""
        shard, fingerprint = self.shard_names[self.table.shards[i]], self.table.fingerprints[i]
        place, size = int(self.table.places[i]), int(self.table.sizes[i])
        try:
            data = self._open(os.getpid(), shard).read(place, size)  # a forked process opens its own
        except ValueError as error:
            problem = brief(error)
        else:
            if not (compares and fingerprint) or data_fingerprint(data) == fingerprint.decode():
                return data
            problem = "its bytes are not those that the index lists"
        name = shown(self.table.names[i])
        raise ValueError(f"{name} in the shard {shown(shard)}: {problem}; copy the shard again")

    def state(self, name):
        i = self._index(name)
        return int(self.table.sizes[i]), self.times[self.table.shards[i]]

    def fingerprint(self, name, data=None):
        fingerprint = self.table.fingerprints[self._index(name)].decode()
        return fingerprint or data_fingerprint(self.read(name) if data is None else data)

    def _index(self, name):
        names = self.table.names  # sorted: a dict of a million names takes 100 MB
        i = bisect_left(names, name)
        require(i < len(names) and names[i] == name, f"no image {shown(name)} in the shards")
        return i

    def _opened(self, process, shard):
        return KINDS[self.kind][2](self.source / shard)
