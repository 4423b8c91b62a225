"""The files of CIFAR-10 and CIFAR-100 in miniature: the same formats, fewer images."""

import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from vit_tf.data import load_cifar

BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def make_arrays(per_batch=4, seed=0, num_classes=10):
    """Returns x_train, y_train, x_test, y_test of a tiny CIFAR-10 of six batches, or of other classes."""
    generator = np.random.default_rng(seed)
    num_train = 5 * per_batch
    x_train = generator.integers(0, 256, (num_train, 32, 32, 3), dtype=np.uint8)
    x_test = generator.integers(0, 256, (per_batch, 32, 32, 3), dtype=np.uint8)
    y_train, y_test = (generator.integers(0, num_classes, n) for n in (num_train, per_batch))
    return x_train, y_train, x_test, y_test


def batches_of(arrays):
    """Yields (name, pixels uint8 [n, 3072], labels) in the originals' layout of channel planes."""
    x_train, y_train, x_test, y_test = arrays
    parts = [*zip(np.split(x_train, 5), np.split(y_train, 5)), (x_test, y_test)]
    for name, (images, labels) in zip(BATCHES, parts):
        yield name, planes(images), labels


def planes(images):
    """Returns uint8 [n, 3072] of images [n, 32, 32, 3]: a plane of red, of green, of blue."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1)


def python3_batch(pixels, labels):
    """What Python 3 pickles with protocol 2: bytes go through _codecs.encode, NumPy's names are new."""
    return pickle.dumps({b"data": pixels, b"labels": [int(label) for label in labels]}, protocol=2)


def python2_batch(pixels, labels):
    """What Python 2's cPickle wrote, opcode by opcode as in the originals: bytes are BINSTRINGs."""
    integers = b"".join(b"K" + bytes([label]) for label in labels)
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\tU\x01b\x87Rq\n"
    shape = b"M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", pixels.shape[1]) + b"\x86q\x0b"
    dtype = b"cnumpy\ndtype\nq\x0cU\x02u1q\rK\x00K\x01\x87q\x0eRq\x0f"
    dtype += b"(K\x03U\x01|q\x10NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x11b"
    raw = b"\x89T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"q\x12tq\x13b"
    return (
        b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05("
        + integers + b"eU\x04dataq\x06" + array + b"(K\x01" + shape + dtype + raw + b"u."
    )  # fmt: skip


def binary_batch(pixels, labels):
    return np.concatenate([labels[:, None].astype(np.uint8), pixels], axis=1).tobytes()


def batch_files(arrays, kind="python2"):
    """Returns {file name: bytes} of the originals' folder."""
    write = {"python2": python2_batch, "python3": python3_batch, "binary": binary_batch}[kind]
    suffix = ".bin" if kind == "binary" else ""
    files = {name + suffix: write(pixels, labels) for name, pixels, labels in batches_of(arrays)}
    return files | {"batches.meta" + (".txt" if suffix else ""): b"not read", "readme.html": b"<html>"}


def cifar100_files(arrays, kind="python2"):
    """Returns {file name: bytes} of CIFAR-100's folder: coarse labels, which are not read, and fine ones."""
    files = {}
    for name, images, labels in (("train", *arrays[:2]), ("test", *arrays[2:])):
        pixels, coarse = planes(images), np.full(len(labels), 7)
        if kind == "binary":
            both = [coarse[:, None], labels[:, None], pixels]
            files[f"{name}.bin"] = np.concatenate(both, axis=1).astype(np.uint8).tobytes()
        elif kind == "python2":  # a shorter dict than the original's
            files[name] = python2_batch(pixels, labels).replace(b"U\x06labelsq", b"U\x0bfine_labelsq")
        else:
            names = [b"%d.png" % index for index in range(len(labels))]
            batch = {b"filenames": names, b"batch_label": b"training batch 1 of 1", b"data": pixels}
            batch |= {b"fine_labels": labels.tolist(), b"coarse_labels": coarse.tolist()}
            files[name] = pickle.dumps(batch, protocol=2)
    return files | {"meta": b"not read", "file.txt~": b""}


def write_folder(path, files):
    path.mkdir(parents=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def write_tar(path, files, mode):
    with tarfile.open(path, mode) as archive:
        folder = tarfile.TarInfo("cifar-10-batches-py")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("cifar-10-batches-py")
        for name, content in files.items():
            archive.writestr(f"cifar-10-batches-py/{name}", content)
    return path


def write_npz(path, arrays, save=np.savez, **changes):
    x_train, y_train, x_test, y_test = arrays
    named = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test} | changes
    save(path, **{name: array for name, array in named.items() if array is not None})
    return path


def assert_same(found, arrays):
    for name, expected in zip(("x_train", "y_train", "x_test", "y_test"), arrays):
        np.testing.assert_array_equal(getattr(found, name), expected, err_msg=name)
    assert found.x_train.dtype == found.x_test.dtype == np.uint8
    assert found.y_train.dtype == found.y_test.dtype == np.int64


def assert_refused(path, match):
    """Asserts that loading raises one line that begins with the path, and returns it."""
    with pytest.raises(ValueError, match=match) as caught:
        load_cifar(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert caught.value.__cause__ is None and (
        caught.value.__context__ is None or caught.value.__suppress_context__
    )
    return message
