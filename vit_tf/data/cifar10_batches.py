"""The original files of CIFAR-10: six batches, binary or pickled, in a folder, a tar or a zip.

https://www.cs.toronto.edu/~kriz/cifar.html describes both formats. Nothing is extracted, no pickle runs code,
and sizes are bounded.
"""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from functools import partial
from stat import S_ISLNK

import numpy as np

from vit_tf import zips
from vit_tf.checks import brief, require
from vit_tf.pickles import check_pickle

BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
BATCH_FILES = {name + suffix for name in BATCHES for suffix in ("", ".bin")}
PIXELS = 3 * 32 * 32  # of one image in the original files: a plane of red, of green, of blue
# The originals have 31 MB per batch and 186 MB per tar. The limits are twice that, too small for a bomb.
MAX_BATCH_BYTES, MAX_ARCHIVE_BYTES = 64 << 20, 512 << 20
EXPECTED = "expected .npz, .tar.gz, .tgz, .tar, .zip or the folder that holds data_batch_1 ... test_batch"


def read_batches(path):
    """Returns {name: bytes} of the batches in a folder, zip or tar. Nothing is extracted."""
    if path.is_dir():
        files = [(f.name, partial(open, f, "rb")) for f in batch_folder(path).iterdir() if f.is_file()]
    else:
        with open(path, "rb") as file:
            unpack = gzip.open if file.read(2) == b"\x1f\x8b" else open
        limit = min(MAX_ARCHIVE_BYTES, max(zips.LARGE, zips.MOST_RATIO * path.stat().st_size))
        with unpack(path, "rb") as file:
            unpacked = io.BytesIO(read_bounded(file, limit, path.name))
        if path.name.lower().endswith(".zip"):
            archive = zipfile.ZipFile(unpacked)
            infos = [i for i in archive.infolist() if not i.is_dir() and not S_ISLNK(i.external_attr >> 16)]
            zips.check_members(archive, infos, "zip the folder again", len(unpacked.getvalue()))
            files = [(i.filename, partial(archive.open, i)) for i in infos]
        else:
            archive = tarfile.open(fileobj=unpacked, mode="r:")
            infos = [i for i in archive if i.isreg() and not i.issparse()]  # a sparse file can claim any size
            files = [(i.name, partial(archive.extractfile, i)) for i in infos]
    batches = {}
    for name, open_file in ((os.path.basename(full_name), opener) for full_name, opener in files):
        if name in BATCH_FILES:
            require(name not in batches, f"{name} occurs twice: expected one CIFAR-10 folder")
            with open_file() as file:
                batches[name] = read_bounded(file, MAX_BATCH_BYTES, name)
    return batches


def batch_folder(path):
    entries = sorted(path.iterdir())
    folders = [f for f in (path, *entries) if any(os.path.isfile(f / name) for name in BATCH_FILES)]
    names = ", ".join(entry.name for entry in folders or entries[:10]) or "it is empty"
    problem = "several folders in it have CIFAR-10 batches" if folders else "it has no CIFAR-10 batches"
    require(path in folders or len(folders) == 1, f"{problem} ({names}): {EXPECTED}")
    return folders[0]


def read_bounded(file, limit, name):
    data = bytearray()
    while chunk := file.read(1 << 20):  # one large read would allocate `limit` bytes at once
        data += chunk
        problem = f"{name} unpacks to more than {limit:,} bytes"
        require(len(data) <= limit, f"{problem}: this is not an original file of CIFAR-10")
    return bytes(data)


def arrays_from_batches(batches):
    is_binary = sum(name.endswith(".bin") for name in batches) * 2 > len(batches)
    suffix, parse = (".bin", parse_binary) if is_binary else ("", parse_pickle)
    missing = ", ".join(name + suffix for name in BATCHES if name + suffix not in batches)
    require(not missing, f"{missing} missing: expected six batches, got {sorted(batches)}")
    parsed = [parse(batches.pop(name + suffix), name + suffix) for name in BATCHES]
    arrays = []
    for part in (parsed[:-1], parsed[-1:]):
        planes = np.concatenate([pixels for pixels, _ in part]).reshape(-1, 3, 32, 32)
        images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))  # [n, 32, 32, 3]
        arrays += [images, np.concatenate([labels for _, labels in part])]
    return arrays


def parse_binary(data, name):
    """Returns (pixels uint8 [n, 3072], labels uint8 [n]) of records of 1 label and 3,072 pixels."""
    problem = f"{name} has {len(data):,} bytes, not a whole number of records of {1 + PIXELS:,}"
    require(data and len(data) % (1 + PIXELS) == 0, f"{problem}: truncated, download or copy it again")
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + PIXELS)
    return records[:, 1:], records[:, 0]


def parse_pickle(data, name):
    """Returns (pixels uint8 [n, 3072], labels [n]) of a pickled batch, without running its code."""
    try:
        check_pickle(io.BytesIO(data))  # the C unpickler allocates as much as a memo index or a length claims
        batch = BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
        is_batch = isinstance(batch, dict) and {b"data", b"labels"} <= batch.keys()
        require(is_batch, "it lacks data or labels, expected a dict with b'data' and b'labels'")
        (_, shape, dtype, is_fortran, raw), labels = batch[b"data"].state, batch[b"labels"]
        require(dtype.arguments[0] in ("u1", b"u1"), "its data have another dtype, expected uint8")
        pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if is_fortran else "C")
        require(pixels.shape[1:] == (PIXELS,), f"data has shape {pixels.shape}, expected [n, {PIXELS}]")
        require(all(type(label) is int for label in labels), "its labels are not integers")
        require(0 < len(pixels) == len(labels), f"it has {len(pixels)} images but {len(labels)} labels")
        return pixels, np.array(list(labels))
    except Exception as error:  # a damaged pickle can raise nearly anything
        problem = brief(error)
    raise ValueError(f"{name} is not a CIFAR-10 batch: {problem}; download or copy it again")


class PickledObject:
    """Replaces the NumPy objects of a batch, so that NumPy never reads a hostile state."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state


class BatchUnpickler(pickle.Unpickler):
    def encode(self, text):
        """Returns a text as bytes. The result is cached, since a pickle may name one text many times."""
        encoded = self.__dict__.setdefault("encoded", {})
        if text not in encoded:
            encoded[text] = text.encode("latin1")
        return encoded[text]

    def find_class(self, module, name):
        """Returns the replacement of a name that a batch needs. Raises a ValueError for any other name."""
        numpy_names = ("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")
        known = dict.fromkeys(numpy_names, PickledObject)
        # A new function each time, since the pickle's BUILD opcode may set attributes of a function.
        known["_codecs.encode"] = lambda text, _: self.encode(text)
        wanted = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        require(wanted in known, f"forbidden global {module}.{name}, which could run code")
        return known[wanted]
