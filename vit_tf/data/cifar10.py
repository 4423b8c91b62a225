"""Data sets in: CIFAR-10 from Keras, a user's file or the embedded sample, as plain arrays.

Files are read as hostile input: no pickle runs code, archives are read in memory, sizes are bounded, and
a user's mistake is a one-line ValueError. Shapes: n images, h rows, w columns, c channels. Source:
Krizhevsky 2009; https://www.cs.toronto.edu/~kriz/cifar.html describes both formats of the batches.
"""

import gzip
import io
import os
import pickle
import socket
import tarfile
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from stat import S_ISLNK

import numpy as np

from vit_tf.checks import brief, require, suggestion
from vit_tf.pickles import check_pickle
from vit_tf.zips import LARGE, MOST_RATIO, check_members, read_npy

CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
SAMPLE_PATH = Path(__file__).parents[1] / "assets" / "cifar10_sample.png"
SAMPLE_TRAIN_PER_CLASS, SAMPLE_TEST_PER_CLASS = 160, 40
SAMPLE_NOTE = "this is the embedded sample of 2,000 real images, results say nothing about the full data set"
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_BATCH_FILES = {name + suffix for name in _BATCHES for suffix in ("", ".bin")}
_PIXELS = 3 * 32 * 32  # of one image in the original files: a plane of red, of green, of blue
# The originals are 31 MB a batch and 186 MB a tar: room for twice that, and none for a bomb.
_MAX_BATCH_BYTES, _MAX_ARCHIVE_BYTES, _MAX_NPZ_BYTES = 64 << 20, 512 << 20, 4 << 30
_EXPECTED = "expected .npz, .tar.gz, .tgz, .tar, .zip or the folder that holds data_batch_1 ... test_batch"


@dataclass(frozen=True, eq=False)
class ImageData:
    """A labelled image data set, checked when it is made: a ValueError names the array at fault.

    Args:
        x_train, x_test: uint8 [n, h, w, c] with c 1, 3 or 4; h, w and c are the same in both.
        y_train, y_test: integers [n] or [n, 1] in 0 .. len(class_names) - 1; kept as int64 [n].
        class_names: one name a class, in the order of the labels.
        name: "cifar10", "sample" (the embedded one), or the stem of a user's file.
        note: one line that the user should see, such as why this is the sample; often empty.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple
    name: str
    note: str = ""

    def __post_init__(self):
        for split in ("train", "test"):
            x_label, y_label = (f"{array}_{split} of {self.name!r}" for array in "xy")
            images = _checked_images(getattr(self, f"x_{split}"), x_label)
            labels = _flat_labels(getattr(self, f"y_{split}"), y_label)
            found = f"{x_label} has {len(images)} images, {y_label} {len(labels)} labels"
            require(len(images) == len(labels), f"{found}: expected one label an image")
            low, high, last = labels.min(), labels.max(), len(self.class_names) - 1
            require(0 <= low <= high <= last, f"{y_label} has labels {low} to {high}: expected 0 to {last}")
            object.__setattr__(self, f"x_{split}", images)
            object.__setattr__(self, f"y_{split}", labels.astype(np.int64))
        train, test = self.x_train.shape[1:], self.x_test.shape[1:]
        found = f"images of {self.name!r} are {train} in x_train but {test} in x_test"
        require(train == test, f"{found}: expected one size, resize one of them")


def _checked_images(images, label):
    images = np.asarray(images)
    hint = "use x.round().astype('uint8'), after multiplying by 255 if they lie in 0 .. 1"
    require(images.dtype == np.uint8, f"{label} is {images.dtype}: expected uint8 in 0 .. 255, {hint}")
    found = f"{label} has shape {images.shape}: expected"
    require(images.ndim == 4, f"{found} [n, h, w, c]; gray images need x[..., None]")
    require(images.size > 0, f"{found} at least one image")
    require(images.shape[3] in (1, 3, 4), f"{found} 1, 3 or 4 channels last, use x.transpose(0, 2, 3, 1)")
    return images


def _flat_labels(labels, label):
    labels = np.asarray(labels)
    require(labels.dtype.kind in "iu", f"{label} is {labels.dtype}: expected integers, use y.astype(int)")
    found = f"{label} has shape {labels.shape}: expected"
    require(labels.ndim and labels.shape[1:] in ((), (1,)), f"{found} [n] or [n, 1], not one-hot labels")
    require(labels.size > 0, f"{found} at least one label")
    return labels.reshape(-1)


def load_cifar10(source=None):
    """Loads CIFAR-10, or a user's data set in one of its formats.

    Args:
        source: None tries Keras's download and falls back to the embedded sample, with the reason in
            `note`; "cifar10" insists on the download; "sample" is the embedded 1,600 training and 400
            test images; anything else is a path: an .npz of x_train, y_train, x_test and y_test, the
            original `cifar-10-batches-py` or `-bin` folder, or one around it, or its .tar.gz, .tar, .zip.

    Returns:
        An ImageData: images uint8 [n, h, w, c], labels int64 [n].

    Raises:
        ValueError: one line that says which file, what is wrong with it, and what to do.
    """
    is_source = source is None or (isinstance(source, (str, os.PathLike)) and os.fspath(source))
    require(is_source, f"source is {source!r}: expected 'cifar10', 'sample' or a path")
    if source == "sample":
        return _load_sample(SAMPLE_NOTE)
    if source not in (None, "cifar10"):
        return _load_path(Path(os.path.expanduser(os.fsdecode(source))))
    try:
        return _download()
    except OSError as error:
        failure = f"CIFAR-10 could not be downloaded ({error})"
    require(source is None, f"{failure}: fetch it elsewhere and give --data PATH, or take --data sample")
    return _load_sample(f"{failure}: {SAMPLE_NOTE}")


def _download():
    import keras

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(15.0)  # Keras sets none: a firewall that drops packets would hang it
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.cifar10.load_data()
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise OSError(brief(error)) from error
    finally:
        socket.setdefaulttimeout(timeout)
    if keras.config.image_data_format() == "channels_first":
        x_train, x_test = x_train.transpose(0, 2, 3, 1), x_test.transpose(0, 2, 3, 1)
    return ImageData(x_train, y_train, x_test, y_test, CIFAR10_CLASSES, "cifar10")


def _load_sample(note):
    from PIL import Image

    with Image.open(SAMPLE_PATH) as image:
        rows = np.asarray(image.convert("RGB")).reshape(10, 4, 32, 50, 32, 3)  # 4 rows of 50 a class
    by_class = rows.swapaxes(2, 3).reshape(10, 200, 32, 32, 3)
    arrays = []
    for part in np.split(by_class, [SAMPLE_TRAIN_PER_CLASS], axis=1):
        # Classes alternate, so that the first k images are balanced for every k.
        arrays += [part.swapaxes(0, 1).reshape(-1, 32, 32, 3), np.tile(np.arange(10), part.shape[1])]
    return ImageData(*arrays, CIFAR10_CLASSES, "sample", note)


def _load_path(path):
    try:
        stem = path.resolve().stem.removesuffix(".tar")
        # "sample" tells callers that results mean little: no file may pass for it.
        name = "sample-file" if stem == "sample" else stem
        return ImageData(*_read_path(path), CIFAR10_CLASSES, name)
    except ValueError as error:
        problem = error
    except PermissionError as error:
        problem = f"{error.strerror}: make it readable for you (chmod u+r)"
    except Exception as error:  # a damaged archive can raise nearly anything
        problem = f"damaged or incomplete ({brief(error)}): download or copy it again"
    raise ValueError(brief(f"{path}: {problem}"))


def _read_path(path):
    """Returns the four arrays at `path` in the order of _ARRAYS; errors do not name the file."""
    if not path.exists():
        names = os.listdir(path.parent) if path.parent.is_dir() else []
        hint = suggestion(path.name, [*names, "cifar10", "sample"]) or f"; {_EXPECTED}"
        raise ValueError(f"there is no such file or folder{hint}")
    is_file, name = path.is_file(), path.name.lower()
    require(not is_file or path.stat().st_size, "the file is empty: download or copy it again")
    if path.is_dir() or (is_file and name.endswith((".tar.gz", ".tgz", ".tar", ".zip"))):
        return _arrays_from_batches(_read_batches(path))
    require(is_file and name.endswith(".npz"), f"unknown kind of file {path.suffix!r}: {_EXPECTED}")
    with zipfile.ZipFile(path) as archive:
        return _read_npz(archive)


def _read_npz(archive):
    """Returns what np.load(allow_pickle=False) would, once each array is seen to be as announced."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    missing = ", ".join(name for name in _ARRAYS if name not in members)
    found = f"{missing} missing, it holds {', '.join(sorted(members)[:10]) or 'nothing'}"
    require(not missing, f"{found}: expected the arrays {', '.join(_ARRAYS)}")
    total = sum(members[name].file_size for name in _ARRAYS)
    require(total <= _MAX_NPZ_BYTES, f"its arrays take {total:,} bytes: use at most {_MAX_NPZ_BYTES:,}")
    check_members(archive, [members[name] for name in _ARRAYS], "save it with np.savez")
    arrays = []
    for name in _ARRAYS:
        with archive.open(members[name]) as file:
            arrays.append(read_npy(file, name, members[name].file_size, partial(_check_plain, name)))
    return arrays


def _check_plain(name, dtype):
    require(not dtype.hasobject, f"{name} holds Python objects, not numbers: save it as uint8")


def _read_batches(path):
    """Returns {name: bytes} of the batches in a folder, zip or tar; nothing is extracted."""
    if path.is_dir():
        files = [(f.name, partial(open, f, "rb")) for f in _batch_folder(path).iterdir() if f.is_file()]
    else:
        with open(path, "rb") as file:
            unpack = gzip.open if file.read(2) == b"\x1f\x8b" else open
        limit = min(_MAX_ARCHIVE_BYTES, max(LARGE, MOST_RATIO * path.stat().st_size))
        with unpack(path, "rb") as file:
            unpacked = io.BytesIO(_read_bounded(file, limit, path.name))
        if path.name.lower().endswith(".zip"):
            archive = zipfile.ZipFile(unpacked)
            infos = [i for i in archive.infolist() if not i.is_dir() and not S_ISLNK(i.external_attr >> 16)]
            check_members(archive, infos, "zip it anew", len(unpacked.getvalue()))
            files = [(i.filename, partial(archive.open, i)) for i in infos]
        else:
            archive = tarfile.open(fileobj=unpacked, mode="r:")
            infos = [i for i in archive if i.isreg() and not i.issparse()]  # a sparse one has holes for free
            files = [(i.name, partial(archive.extractfile, i)) for i in infos]
    batches = {}
    for name, open_file in ((os.path.basename(full_name), opener) for full_name, opener in files):
        if name in _BATCH_FILES:
            require(name not in batches, f"{name} is twice in it: expected one CIFAR-10 folder")
            with open_file() as file:
                batches[name] = _read_bounded(file, _MAX_BATCH_BYTES, name)
    return batches


def _batch_folder(path):
    entries = sorted(path.iterdir())
    found = [f for f in (path, *entries) if any(os.path.isfile(f / name) for name in _BATCH_FILES)]
    there = ", ".join(entry.name for entry in found or entries[:10]) or "nothing"
    problem = "several folders in it have batches" if found else "no CIFAR-10 batches in it"
    require(path in found or len(found) == 1, f"{problem}, it holds {there}: {_EXPECTED}")
    return found[0]


def _read_bounded(file, limit, name):
    data = bytearray()
    while chunk := file.read(1 << 20):  # one large read would take the memory for all of `limit`
        data += chunk
        found = f"{name} unpacks to more than {limit:,} bytes"
        require(len(data) <= limit, f"{found}: this is no CIFAR-10 original")
    return bytes(data)


def _arrays_from_batches(batches):
    is_binary = sum(name.endswith(".bin") for name in batches) * 2 > len(batches)
    suffix, parse = (".bin", _parse_binary) if is_binary else ("", _parse_pickle)
    missing = ", ".join(name + suffix for name in _BATCHES if name + suffix not in batches)
    require(not missing, f"{missing} missing of its six batches, it holds {sorted(batches)}")
    parsed = [parse(batches.pop(name + suffix), name + suffix) for name in _BATCHES]
    arrays = []
    for part in (parsed[:-1], parsed[-1:]):
        planes = np.concatenate([pixels for pixels, _ in part]).reshape(-1, 3, 32, 32)
        images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))  # [n, 32, 32, 3]
        arrays += [images, np.concatenate([labels for _, labels in part])]
    return arrays


def _parse_binary(data, name):
    """Returns (pixels uint8 [n, 3072], labels uint8 [n]) of records of 1 label and 3,072 pixels."""
    found = f"{name} has {len(data):,} bytes, not a whole number of records of {1 + _PIXELS:,}"
    require(data and len(data) % (1 + _PIXELS) == 0, f"{found}: truncated, download or copy it again")
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0]


def _parse_pickle(data, name):
    """Returns (pixels uint8 [n, 3072], labels [n]) of a pickled batch, without running its code."""
    try:
        check_pickle(io.BytesIO(data))  # the C unpickler takes what a memo index or a length promises
        batch = _BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
        is_batch = isinstance(batch, dict) and {b"data", b"labels"} <= batch.keys()
        require(is_batch, "it lacks data or labels, expected a dict with b'data' and b'labels'")
        (_, shape, dtype, is_fortran, raw), labels = batch[b"data"].state, batch[b"labels"]
        require(dtype.arguments[0] in ("u1", b"u1"), "its data have another dtype, expected uint8")
        pixels = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if is_fortran else "C")
        require(pixels.shape[1:] == (_PIXELS,), f"data has shape {pixels.shape}, expected [n, {_PIXELS}]")
        require(all(type(label) is int for label in labels), "its labels are not integers")
        require(0 < len(pixels) == len(labels), f"it has {len(pixels)} images but {len(labels)} labels")
        return pixels, np.array(list(labels))
    except Exception as error:  # a damaged pickle can raise nearly anything
        problem = brief(error)
    raise ValueError(f"{name} is not a CIFAR-10 batch: {problem}; download or copy it again")


class _PickledObject:
    """Stands in for a batch's NumPy objects, so that NumPy never sees a hostile state."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __setstate__(self, state):
        self.state = state


class _BatchUnpickler(pickle.Unpickler):
    def encode(self, text):
        """Returns the bytes of a text; a pickle may name the same text many times."""
        encoded = self.__dict__.setdefault("encoded", {})
        if text not in encoded:
            encoded[text] = text.encode("latin1")
        return encoded[text]

    def find_class(self, module, name):
        """Returns a stand-in for what a CIFAR batch needs; any other name is an error."""
        numpy_names = ("numpy.core.multiarray._reconstruct", "numpy.ndarray", "numpy.dtype")
        known = dict.fromkeys(numpy_names, _PickledObject)
        # Made anew each time: the pickle's BUILD opcode may set attributes of a function.
        known["_codecs.encode"] = lambda text, _: self.encode(text)
        wanted = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        require(wanted in known, f"forbidden global {module}.{name}, which could run code")
        return known[wanted]
