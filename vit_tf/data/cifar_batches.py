"""The original files of CIFAR-10 and CIFAR-100, binary or pickled, in a folder, a tar or a zip.

https://www.cs.toronto.edu/~kriz/cifar.html describes the formats. Nothing is extracted, no pickle runs code,
and sizes are bounded.
"""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from dataclasses import dataclass
from functools import partial
from stat import S_ISLNK

import numpy as np

from vit_tf import zips
from vit_tf.checks import brief, require
from vit_tf.pickles import check_pickle

PIXELS = 3 * 32 * 32  # of one image in the original files: a plane of red, of green, of blue
# The largest originals have 155 MB per file and 186 MB per tar: the limits are about twice that.
MAX_BATCH_BYTES, MAX_ARCHIVE_BYTES = 320 << 20, 512 << 20
EXPECTED = (
    "expected .npz, .tar.gz, .tgz, .tar, .zip or the folder that holds data_batch_1 ... test_batch "
    "(CIFAR-10) or train and test (CIFAR-100)"
)


@dataclass(frozen=True)
class Original:
    """The original files of a data set.

    Args:
        name: of the data set.
        train, test: names of the files; those of the binary version end in ".bin".
        labels_key: the key of the labels in a pickled file.
        label_bytes: int, the labels of an image in a binary file; the last one counts.
        num_classes: int.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels_key: bytes
    label_bytes: int
    num_classes: int

    @property
    def files(self):
        return (*self.train, *self.test)


CIFAR10 = Original(
    "CIFAR-10", tuple(f"data_batch_{i}" for i in range(1, 6)), ("test_batch",), b"labels", 1, num_classes=10
)
CIFAR100 = Original("CIFAR-100", ("train",), ("test",), b"fine_labels", 2, num_classes=100)


ENDINGS = ("", ".bin")  # of the pickled and of the binary version


def original_of(names):
    """Returns the `Original` that files of these names, without their folders, belong to; else None.

    One file tells CIFAR-10; CIFAR-100 needs both, since the names "train" and "test" are common.
    """
    names = set(names)
    if any(name + ending in names for name in CIFAR10.files for ending in ENDINGS):
        return CIFAR10
    if any(all(name + ending in names for name in CIFAR100.files) for ending in ENDINGS):
        return CIFAR100
    return None


def original_in(folder):
    """Returns the `Original` whose files are in a folder, not in the folders in it; else None."""
    names = (name + ending for name in (*CIFAR10.files, *CIFAR100.files) for ending in ENDINGS)
    return original_of(name for name in names if os.path.isfile(os.path.join(folder, name)))


def read_batches(path):
    """Returns {name: bytes} of the original files in a folder, zip or tar. Nothing is extracted."""
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
    files = [(os.path.basename(full_name), open_file) for full_name, open_file in files]
    original, batches = original_of(name for name, _ in files), {}
    for name, open_file in files:
        if original and name.removesuffix(".bin") in original.files:
            require(name not in batches, f"{name} occurs twice: expected one {original.name} folder")
            with open_file() as file:
                batches[name] = read_bounded(file, MAX_BATCH_BYTES, name)
    return batches


def batch_folder(path):
    entries = sorted(path.iterdir())
    folders = [folder for folder in (path, *entries) if original_in(folder)]
    names = ", ".join(entry.name for entry in folders or entries[:10]) or "it is empty"
    problem = "several folders in it have CIFAR batches" if folders else "it has no CIFAR batches"
    require(path in folders or len(folders) == 1, f"{problem} ({names}): {EXPECTED}")
    return folders[0]


def read_bounded(file, limit, name):
    data = bytearray()
    while chunk := file.read(1 << 20):  # one large read would allocate `limit` bytes at once
        data += chunk
        problem = f"{name} unpacks to more than {limit:,} bytes"
        require(len(data) <= limit, f"{problem}: this is not an original file of CIFAR")
    return bytes(data)


def arrays_from_batches(batches):
    """Returns (x_train, y_train, x_test, y_test, number of classes) of the {name: bytes} of a folder."""
    original = original_of(batches)
    require(original, f"it has no CIFAR batches: {EXPECTED}")
    is_binary = sum(name.endswith(".bin") for name in batches) * 2 > len(batches)
    suffix, parse = (".bin", parse_binary) if is_binary else ("", parse_pickle)
    missing = ", ".join(name + suffix for name in original.files if name + suffix not in batches)
    expected = f"expected {len(original.files)} batches of {original.name}"
    require(not missing, f"{missing} missing: {expected}, got {sorted(batches)}")
    arrays = []
    for part in (original.train, original.test):
        parsed = [parse(batches.pop(name + suffix), name + suffix, original) for name in part]
        planes = np.concatenate([pixels for pixels, _ in parsed]).reshape(-1, 3, 32, 32)
        images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))  # [n, 32, 32, 3]
        arrays += [images, np.concatenate([labels for _, labels in parsed])]
    return *arrays, original.num_classes


def parse_binary(data, name, original):
    """Returns (pixels uint8 [n, 3072], labels uint8 [n]) of records of labels and 3,072 pixels."""
    size = original.label_bytes + PIXELS
    problem = f"{name} has {len(data):,} bytes, not a whole number of records of {size:,}"
    require(data and len(data) % size == 0, f"{problem}: truncated, download or copy it again")
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    return records[:, original.label_bytes :], records[:, original.label_bytes - 1]


def parse_pickle(data, name, original):
    """Returns (pixels uint8 [n, 3072], labels [n]) of a pickled batch, without running its code."""
    key = original.labels_key
    try:
        check_pickle(io.BytesIO(data))  # the C unpickler allocates as much as a memo index or a length claims
        batch = BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
        is_batch = isinstance(batch, dict) and {b"data", key} <= batch.keys()
        labels_name = key.decode().replace("_", " ")
        require(is_batch, f"it lacks data or {labels_name}, expected a dict with b'data' and {key!r}")
        (_, shape, dtype, is_fortran, raw), labels = batch[b"data"].state, batch[key]
        require(dtype.arguments[0] in ("u1", b"u1"), "its data have another dtype, expected uint8")
        pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if is_fortran else "C")
        require(pixels.shape[1:] == (PIXELS,), f"data has shape {pixels.shape}, expected [n, {PIXELS}]")
        require(all(type(label) is int for label in labels), "its labels are not integers")
        require(0 < len(pixels) == len(labels), f"it has {len(pixels)} images but {len(labels)} labels")
        return pixels, np.array(list(labels))
    except Exception as error:  # a damaged pickle can raise nearly anything
        problem = brief(error)
    raise ValueError(f"{name} is not a {original.name} batch: {problem}; download or copy it again")


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
