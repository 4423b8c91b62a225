"""`CheckCache`: the results of `check_images`, kept in the user's cache folder. Shapes: n files."""

import hashlib
import os
import time
from pathlib import Path

import numpy as np

from vit_tf.checks import brief
from vit_tf.data.fingerprints import fingerprints
from vit_tf.files import atomic_path, cache_folder, open_regular

LEVELS = ("headers", "full")  # of checks; each includes those before it
# A readable file. The key is a hash of its name, size and time, see `state_keys`.
RECORD = np.dtype([("key", "S16"), ("digest", "S16"), ("fingerprint", "S26"), ("level", "u1")])
MAGIC = b"vit_tf checks 1\n"
BLOCK_HEADER = len(MAGIC) + 4 + 16  # the number of records, and a hash of the block
MOST_BYTES = 2 << 30  # of a file; a million records have 59 MB
RECENT = 2 * 10**9  # ns: a file may change again without another time


class CheckCache:
    """The results of earlier checks of the images of a folder, zip or table.

    The file of a data set is named by a hash of its real path. It lies outside of the data, which may be
    read-only: in `checks/` of the user's cache folder, or in the folder that the environment variable
    VIT_TF_CHECKS names. Results are appended in blocks with a hash, so that an interrupted check keeps them,
    and several processes may append. What is damaged or of another origin is ignored, and later replaced.

    Args:
        source: path of the data set.

    Attributes:
        problem: why results cannot be kept, or "".
    """

    def __init__(self, source: str | os.PathLike):
        folder = os.environ.get("VIT_TF_CHECKS") or cache_folder() / "checks"
        real_path = os.fsencode(os.path.realpath(source))
        self._salt = hashlib.blake2b(real_path, digest_size=16).digest()
        self.path = Path(folder, f"{self._salt.hex()}.bin")
        self.problem = ""

    def fill(self, records: np.ndarray, files, level: str) -> np.ndarray:
        """Sets the keys of records [n], and the whole records that are known; returns the other indices."""
        records["key"] = state_keys(files)
        stored, is_damaged = self._load()
        known = stored[stored["level"] > LEVELS.index(level)]
        is_known = np.zeros(len(records), bool)
        if len(known):
            known = known[np.argsort(known["key"], kind="stable")]
            places = np.searchsorted(known["key"], records["key"])
            places = np.minimum(places, len(known) - 1)
            is_known = (known["key"][places] == records["key"]) & (records["key"] != b"")
            records[is_known] = known[places[is_known]]
        if is_damaged:
            self._write(stored[-MOST_BYTES // RECORD.itemsize // 2 :], replace=True)
        return np.flatnonzero(~is_known)

    def append(self, records: np.ndarray, level: str) -> None:
        """Keeps records. Those of unreadable files, and of files that changed just now, are left out."""
        records = records[(records["key"] != b"") & (records["digest"] != b"")]
        records["level"] = LEVELS.index(level) + 1
        if len(records) and not self.problem:
            self._write(records)

    def _write(self, records, replace=False):
        payload = records.tobytes()
        header = MAGIC + len(records).to_bytes(4, "little") + self._hash(payload)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if replace:
                with atomic_path(self.path) as partial:
                    partial.write_bytes(header + payload)
                return
            with open(self.path, "ab", buffering=0) as file:  # one write, so that processes do not mix
                file.write(header + payload)
        except OSError as error:
            self.problem = brief(error)

    def _load(self):
        """Returns the records of all whole blocks, and whether the file has anything else."""
        blocks, position = [], 0
        try:
            with open_regular(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                while position < min(size, MOST_BYTES):
                    header = file.read(BLOCK_HEADER)
                    count = int.from_bytes(header[len(MAGIC) : len(MAGIC) + 4], "little")
                    num_bytes = count * RECORD.itemsize
                    is_possible = header.startswith(MAGIC) and num_bytes <= size - position - BLOCK_HEADER
                    payload = file.read(num_bytes) if is_possible else b""
                    if not is_possible or self._hash(payload) != header[-16:]:
                        break
                    blocks.append(np.frombuffer(payload, RECORD))
                    position += len(header) + num_bytes
        except FileNotFoundError:
            return np.zeros(0, RECORD), False
        except (OSError, ValueError) as error:
            self.problem = f"{str(self.path)!r}: {brief(error)}"
            return np.zeros(0, RECORD), False
        return np.concatenate([np.zeros(0, RECORD), *blocks]), position < size

    def _hash(self, payload):
        return hashlib.blake2b(payload, digest_size=16, key=self._salt).digest()


def cached_fingerprints(files):
    """Returns the fingerprints of `ImageFiles`, bytes [n]; files that were checked before are not read again.

    A file whose size or time is another than at the check is read.
    """
    records = np.zeros(len(files), RECORD)
    waiting = CheckCache(files.container.source).fill(records, files, LEVELS[0])
    records["fingerprint"][waiting] = list(fingerprints(files.subset(waiting)))
    return records["fingerprint"]


def state_keys(files):
    """Returns a hash of the name, the size and the time of change of each file, bytes [n] of 16.

    It is empty for a file that does not exist, and for one that changed in the last seconds.
    """
    latest, state = time.time_ns() - RECENT, files.container.state
    keys = np.zeros(len(files), "S16")
    for i, name in enumerate(files.names):
        try:
            size, changed = state(name)
        except (OSError, ValueError):
            continue
        if changed < latest:
            text = f"{name}\0{size}\0{changed}".encode("utf-8", "surrogateescape")
            keys[i] = hashlib.blake2b(text, digest_size=16).digest()
    return keys
