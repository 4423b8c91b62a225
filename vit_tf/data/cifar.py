"""Loading CIFAR-10 and CIFAR-100: downloaded by Keras, from a file or folder, or the embedded sample.

Files may be hostile: no pickle runs code, archives are unpacked in memory, and sizes are bounded. Each
mistake in a file raises a ValueError of one line. Shapes: n images, h rows, w columns, c channels.
Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import os
import socket
import zipfile
from functools import partial
from pathlib import Path

import numpy as np

from vit_tf.checks import brief, require, suggestion
from vit_tf.data.cifar_batches import EXPECTED, arrays_from_batches, read_batches
from vit_tf.data.image_data import ImageData
from vit_tf.zips import check_members, read_npy

CIFAR10_CLASSES = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel
    can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur
    dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion
    lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree
    pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea
    seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table
    tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
    worm
    """.split()
)
CLASSES = {len(names): names for names in (CIFAR10_CLASSES, CIFAR100_CLASSES)}
DOWNLOADS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
NAMES = (*DOWNLOADS, "sample")  # sources that are no paths
SAMPLE_PATH = Path(__file__).parents[1] / "assets" / "cifar10_sample.png"
SAMPLE_TRAIN_PER_CLASS, SAMPLE_TEST_PER_CLASS = 160, 40
SAMPLE_NOTE = "this is the embedded sample of 2,000 real images; results say nothing about the full data set"
ARRAYS = ("x_train", "y_train", "x_test", "y_test")
MAX_NPZ_BYTES = 4 << 30


def load_cifar(source: str | os.PathLike | None = None) -> ImageData:
    """Loads CIFAR-10, CIFAR-100, or a user's data set in one of their formats.

    Args:
        source: None downloads CIFAR-10 by Keras and falls back to the embedded sample, with the reason in
            `note`. "cifar10" and "cifar100" require the download. "sample" is the embedded sample of 1,600
            training and 400 test images of CIFAR-10. Any other value is a path: an .npz of x_train, y_train,
            x_test and y_test; the original folder, such as `cifar-10-batches-py` or `cifar-100-binary`, or
            its parent; or a .tar.gz, .tar or .zip of it. The labels of CIFAR-100 are the 100 fine ones.

    Returns:
        An ImageData: images uint8 [n, h, w, c], labels int64 [n]. An .npz has the classes of CIFAR-100 if its
        labels end at 99, else those of CIFAR-10.

    Raises:
        ValueError: one line that names the file, the problem and the remedy.
    """
    is_source = source is None or (isinstance(source, (str, os.PathLike)) and os.fspath(source))
    require(is_source, f"source is {source!r}: expected 'cifar10', 'cifar100', 'sample' or a path")
    if source == "sample":
        return load_sample(SAMPLE_NOTE)
    if source is not None and source not in DOWNLOADS:
        return load_path(Path(os.path.expanduser(os.fsdecode(source))))
    name = source or "cifar10"
    try:
        return download(name)
    except OSError as error:
        failure = f"{DOWNLOADS[name]} could not be downloaded ({error})"
    other = "" if name == "cifar100" else ", or take --data sample"
    require(source is None, f"{failure}: fetch it elsewhere and give --data PATH{other}")
    return load_sample(f"{failure}: {SAMPLE_NOTE}")


def download(name):
    import keras

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(15.0)  # Keras sets none, and a firewall that drops packets would block forever
    try:
        (x_train, y_train), (x_test, y_test) = getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras raises a bare Exception for a failed download
        raise OSError(brief(error)) from error
    finally:
        socket.setdefaulttimeout(timeout)
    if keras.config.image_data_format() == "channels_first":
        x_train, x_test = x_train.transpose(0, 2, 3, 1), x_test.transpose(0, 2, 3, 1)
    classes = CIFAR100_CLASSES if name == "cifar100" else CIFAR10_CLASSES
    return ImageData(x_train, y_train, x_test, y_test, classes, name)


def load_sample(note):
    from PIL import Image

    with Image.open(SAMPLE_PATH) as image:
        rows = np.asarray(image.convert("RGB")).reshape(10, 4, 32, 50, 32, 3)  # 4 rows of 50 per class
    by_class = rows.swapaxes(2, 3).reshape(10, 200, 32, 32, 3)
    arrays = []
    for part in np.split(by_class, [SAMPLE_TRAIN_PER_CLASS], axis=1):
        # Classes alternate, so that any first k images are balanced.
        arrays += [part.swapaxes(0, 1).reshape(-1, 32, 32, 3), np.tile(np.arange(10), part.shape[1])]
    return ImageData(*arrays, CIFAR10_CLASSES, "sample", note)


def load_path(path):
    try:
        stem = path.resolve().stem.removesuffix(".tar")
        # The name "sample" is reserved for the embedded sample, whose results mean little.
        name = "sample-file" if stem == "sample" else stem
        *arrays, num_classes = read_path(path)
        return ImageData(*arrays, CLASSES[num_classes], name)
    except ValueError as error:
        problem = error
    except PermissionError as error:
        problem = f"{error.strerror}: make it readable for you (chmod u+r)"
    except Exception as error:  # a damaged archive can raise nearly anything
        problem = f"damaged or incomplete ({brief(error)}): download or copy it again"
    raise ValueError(brief(f"{path}: {problem}"))


def read_path(path):
    """Returns the arrays at `path` in the order of `ARRAYS`, and the number of classes.

    Error messages do not name the file.
    """
    if not path.exists():
        names = os.listdir(path.parent) if path.parent.is_dir() else []
        hint = suggestion(path.name, [*names, *NAMES]) or f"; {EXPECTED}"
        raise ValueError(f"there is no such file or folder{hint}")
    is_file, name = path.is_file(), path.name.lower()
    require(not is_file or path.stat().st_size, "the file is empty: download or copy it again")
    if path.is_dir() or (is_file and name.endswith((".tar.gz", ".tgz", ".tar", ".zip"))):
        return arrays_from_batches(read_batches(path))
    require(is_file and name.endswith(".npz"), f"unknown kind of file {path.suffix!r}: {EXPECTED}")
    with zipfile.ZipFile(path) as archive:
        arrays = read_arrays(archive)
    y_train = arrays[ARRAYS.index("y_train")]
    is_100 = y_train.dtype.kind in "iu" and y_train.max(initial=0) == 99
    return *arrays, 100 if is_100 else 10


def read_arrays(archive):
    """Returns the arrays of an .npz file. The announced sizes are checked before anything is unpacked."""
    members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    missing = ", ".join(name for name in ARRAYS if name not in members)
    names = ", ".join(sorted(members)[:10]) or "no arrays"
    require(not missing, f"{missing} missing: expected the arrays {', '.join(ARRAYS)}, got {names}")
    total = sum(members[name].file_size for name in ARRAYS)
    require(total <= MAX_NPZ_BYTES, f"its arrays take {total:,} bytes: expected at most {MAX_NPZ_BYTES:,}")
    check_members(archive, [members[name] for name in ARRAYS], "save it with np.savez")
    arrays = []
    for name in ARRAYS:
        with archive.open(members[name]) as file:
            arrays.append(read_npy(file, name, members[name].file_size, partial(check_plain, name)))
    return arrays


def check_plain(name, dtype):
    require(not dtype.hasobject, f"{name} holds Python objects, not numbers: save it as uint8")
