"""Tests of vit_tf.data: every reader against the same arrays, and every mistake a user can make.

No test uses the network. The originals are rebuilt in miniature: the same files, fewer images.
"""

import gzip
import importlib.util
import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from support.paths import ROOT

from vit_tf.data import CIFAR10_CLASSES, SAMPLE_PATH, ImageData, cifar10, load_cifar10, stratified_split

BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def make_arrays(per_batch=4, seed=0):
    """Returns x_train, y_train, x_test, y_test of a tiny CIFAR-10 of six batches."""
    generator = np.random.default_rng(seed)
    num_train = 5 * per_batch
    x_train = generator.integers(0, 256, (num_train, 32, 32, 3), dtype=np.uint8)
    x_test = generator.integers(0, 256, (per_batch, 32, 32, 3), dtype=np.uint8)
    return x_train, generator.integers(0, 10, num_train), x_test, generator.integers(0, 10, per_batch)


def batches_of(arrays):
    """Yields (name, pixels uint8 [n, 3072], labels) in the originals' layout of channel planes."""
    x_train, y_train, x_test, y_test = arrays
    parts = [*zip(np.split(x_train, 5), np.split(y_train, 5)), (x_test, y_test)]
    for name, (images, labels) in zip(BATCHES, parts):
        yield name, np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), -1), labels


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
        load_cifar10(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert caught.value.__cause__ is None and (
        caught.value.__context__ is None or caught.value.__suppress_context__
    )
    return message


@pytest.fixture
def arrays():
    return make_arrays()


@pytest.fixture
def no_network(monkeypatch):
    """Makes Keras's download fail as it does without a network, and records the socket timeout."""
    import keras

    seen = []

    def fail():
        seen.append(socket.getdefaulttimeout())
        raise Exception("URL fetch failure on https://www.cs.toronto.edu/x:\n None -- [Errno -3] No name")

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", fail)
    return seen


# ---------------------------------------------------------------- readers


@pytest.mark.parametrize("kind", ["python2", "python3", "binary"])
def test_folder(tmp_path, arrays, kind):
    found = load_cifar10(write_folder(tmp_path / "cifar-10-batches", batch_files(arrays, kind)))
    assert_same(found, arrays)
    assert found.name == "cifar-10-batches"
    assert found.class_names == CIFAR10_CLASSES
    assert found.note == ""


def test_folder_around_the_folder(tmp_path, arrays):
    write_folder(tmp_path / "around" / "cifar-10-batches-py", batch_files(arrays))
    (tmp_path / "around" / "other").mkdir()
    (tmp_path / "around" / "notes.txt").write_text("x")
    assert_same(load_cifar10(str(tmp_path / "around")), arrays)


def test_folder_with_both_formats_reads_one(tmp_path, arrays):
    files = batch_files(arrays, "python2") | batch_files(arrays, "binary")
    assert_same(load_cifar10(write_folder(tmp_path / "both", files)), arrays)


@pytest.mark.parametrize("kind", ["python2", "python3", "binary"])
@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar", "w"), ("A.TAR.GZ", "w:gz"), ("a.tar.gz", "w")],
)
def test_tar(tmp_path, arrays, kind, name, mode):
    assert_same(load_cifar10(write_tar(tmp_path / name, batch_files(arrays, kind), mode)), arrays)


@pytest.mark.parametrize("kind", ["python2", "python3", "binary"])
def test_zip(tmp_path, arrays, kind):
    assert_same(load_cifar10(write_zip(tmp_path / "a.zip", batch_files(arrays, kind))), arrays)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, arrays, save):
    found = load_cifar10(write_npz(tmp_path / "mine.npz", arrays, save))
    assert_same(found, arrays)
    assert found.name == "mine"
    assert found.x_train.flags.writeable  # torch.from_numpy warns of arrays that are not


def test_npz_layouts(tmp_path, arrays):
    x_train, y_train, x_test, y_test = arrays
    path = write_npz(
        tmp_path / "a.npz",
        arrays,
        x_train=np.asfortranarray(x_train),
        y_train=y_train[:, None].astype(np.uint8),
        y_test=y_test.astype(">i2"),
        extra=np.zeros(3),
    )
    assert_same(load_cifar10(path), arrays)


def test_npz_header_of_version_2(tmp_path, arrays):
    members = {}
    for name, array in zip(("x_train", "y_train", "x_test", "y_test"), arrays):
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy notes that old NumPys cannot read version 2
            np.lib.format.write_array(buffer, array, version=(2, 0))
        members[f"{name}.npy"] = buffer.getvalue()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert_same(load_cifar10(tmp_path / "a.npz"), arrays)


def test_batches_of_one_image_and_fortran_order(tmp_path):
    arrays = make_arrays(per_batch=1, seed=3)
    files = batch_files(arrays, "python3")
    for name, pixels, labels in batches_of(make_arrays(per_batch=2, seed=3)):
        files[name] = pickle.dumps({b"data": np.asfortranarray(pixels), b"labels": labels.tolist()}, 2)
    assert_same(load_cifar10(write_folder(tmp_path / "f", files)), make_arrays(per_batch=2, seed=3))
    assert_same(load_cifar10(write_folder(tmp_path / "b", batch_files(arrays, "binary"))), arrays)


def test_other_image_sizes(tmp_path):
    images = np.arange(3 * 8 * 6, dtype=np.uint8).reshape(3, 8, 6, 1)
    labels = np.array([0, 9, 4])
    found = load_cifar10(write_npz(tmp_path / "gray.npz", (images, labels, images[:1], labels[:1])))
    assert found.x_train.shape == (3, 8, 6, 1)


@pytest.mark.parametrize(
    ("file_name", "name"),
    [("a.b.npz", "a.b"), ("sample.npz", "sample-file"), ("cifar-10-python.tar.gz", "cifar-10-python")],
)
def test_name_is_the_stem_and_never_the_samples(tmp_path, arrays, file_name, name):
    path = tmp_path / file_name
    if file_name.endswith(".npz"):
        write_npz(path, arrays)
    else:
        write_tar(path, batch_files(arrays), "w:gz")
    assert load_cifar10(path).name == name


def test_home_folder_is_expanded(tmp_path, arrays, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_npz(tmp_path / "mine.npz", arrays)
    assert_same(load_cifar10("~/mine.npz"), arrays)


def test_import_is_light():
    """CIFAR-10 needs NumPy and the standard library only: the package's own __init__ is left out of it."""
    script = (
        "import importlib.util, sys\n"
        "spec = importlib.util.spec_from_file_location('data', sys.argv[1])\n"
        "sys.modules['data'] = module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print([m for m in ('keras', 'tensorflow', 'PIL', 'matplotlib') if m in sys.modules])\n"
    )
    command = [sys.executable, "-c", script, str(ROOT / "vit_tf" / "data" / "cifar10.py")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ---------------------------------------------------------------- download and sample


def test_download_failure_falls_back_to_the_sample_and_says_why(no_network):
    before = socket.getdefaulttimeout()
    found = load_cifar10()
    assert found.name == "sample"
    assert len(found.x_train) == 1600
    assert found.note.startswith("CIFAR-10 could not be downloaded (URL fetch failure on https://")
    assert "No name): this is the embedded sample of 2,000 real images" in found.note
    assert "\n" not in found.note
    assert no_network == [15.0]
    assert socket.getdefaulttimeout() == before


def test_forced_download_failure_is_an_error(no_network):
    match = r"could not be downloaded \(URL fetch failure .* give --data PATH, or take --data sample"
    with pytest.raises(ValueError, match=match) as caught:
        load_cifar10("cifar10")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", [None, "cifar10"])
@pytest.mark.parametrize("image_data_format", ["channels_last", "channels_first"])
def test_download(monkeypatch, arrays, source, image_data_format):
    import keras

    x_train, y_train, x_test, y_test = arrays
    axes = (0, 3, 1, 2) if image_data_format == "channels_first" else (0, 1, 2, 3)
    downloaded = (
        (x_train.transpose(axes), y_train[:, None].astype("uint8")),
        (x_test.transpose(axes), y_test[:, None].astype("uint8")),
    )
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: downloaded)
    monkeypatch.setattr(keras.config, "image_data_format", lambda: image_data_format)
    found = load_cifar10(source)
    assert_same(found, arrays)
    assert (found.name, found.note) == ("cifar10", "")


def test_interrupting_the_download_is_not_swallowed(monkeypatch):
    import keras

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", interrupt)
    before = socket.getdefaulttimeout()
    with pytest.raises(KeyboardInterrupt):
        load_cifar10()
    assert socket.getdefaulttimeout() == before


def test_sample():
    sample = load_cifar10("sample")
    assert sample.name == "sample"
    assert "embedded sample of 2,000 real images" in sample.note
    assert sample.x_train.shape == (1600, 32, 32, 3)
    assert sample.x_test.shape == (400, 32, 32, 3)
    assert np.bincount(sample.y_train).tolist() == [160] * 10
    assert np.bincount(sample.y_test).tolist() == [40] * 10
    images = np.concatenate([sample.x_train, sample.x_test]).reshape(2000, -1)
    assert len(np.unique(images, axis=0)) > 1990  # real images: they differ, and each has contrast
    assert (images.std(axis=1) > 2).all()
    assert sample.y_train[:10].tolist() == list(range(10))  # so that any prefix is balanced
    again = load_cifar10("sample")
    assert_same(again, (sample.x_train, sample.y_train, sample.x_test, sample.y_test))


def test_sample_labels_belong_to_the_rows_of_the_sheet():
    from PIL import Image

    with Image.open(SAMPLE_PATH) as image:
        assert image.size == (1600, 1280)
        sheet = np.asarray(image)
    sample = load_cifar10("sample")
    for label in range(10):
        rows = sheet[label * 128 : (label + 1) * 128]
        train = sample.x_train[sample.y_train == label]
        test = sample.x_test[sample.y_test == label]
        np.testing.assert_array_equal(train[51], rows[32:64, 32:64])
        np.testing.assert_array_equal(train[159], rows[96:128, 288:320])
        np.testing.assert_array_equal(test[0], rows[96:128, 320:352])
        np.testing.assert_array_equal(test[39], rows[96:128, 1568:1600])


def test_sample_file_is_small():
    assert SAMPLE_PATH.stat().st_size <= 5_000_000


# ---------------------------------------------------------------- bad paths


@pytest.mark.parametrize("source", ["", 3, ["a.npz"], np.zeros(3)])
def test_source_of_another_kind(source):
    with pytest.raises(ValueError, match="source is .*expected 'cifar10', 'sample' or a path"):
        load_cifar10(source)


def test_missing_file_suggests_the_nearest(tmp_path, arrays):
    write_npz(tmp_path / "cifar10.npz", arrays)
    assert_refused(tmp_path / "cifar01.npz", r"no such file or folder: did you mean 'cifar10.npz'\?")
    assert_refused(tmp_path / "zzz", "no such file or folder: check the path; expected .npz")
    assert_refused(tmp_path / "nowhere" / "zzz", "no such file or folder: check the path")


def test_mistyped_keyword_suggests_the_keyword(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused("samples", r"did you mean 'sample'\?")
    assert_refused("cifar-10", r"did you mean 'cifar10'\?")


@pytest.mark.parametrize("name", ["a.npz", "a.tar.gz", "a.tar", "a.zip", "a.csv"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    assert_refused(tmp_path / name, "the file is empty: download or copy it again")


@pytest.mark.parametrize("name", ["a.npz", "a.tar.gz", "folder"])
def test_folder_without_batches(tmp_path, name):
    write_folder(tmp_path / name, {"cat.jpg": b"x", "dog.jpg": b"x"})
    assert_refused(tmp_path / name, "no CIFAR-10 batches in it, it holds cat.jpg, dog.jpg: expected .npz")


def test_empty_folder(tmp_path):
    assert_refused(tmp_path, "no CIFAR-10 batches in it, it holds nothing: expected .npz")


def test_folder_with_two_data_sets(tmp_path, arrays):
    write_folder(tmp_path / "one", batch_files(arrays))
    write_folder(tmp_path / "two", batch_files(arrays, "binary"))
    assert_refused(tmp_path, "several folders in it have batches, it holds one, two")


@pytest.mark.parametrize("name", ["a.csv", "data_batch_1", "a.npy", "a.gz"])
def test_unknown_extension(tmp_path, name):
    (tmp_path / name).write_bytes(b"1,2,3")
    assert_refused(tmp_path / name, "unknown kind of file '.*': expected .npz, .tar.gz")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["a.npz", "a.tar"])
def test_pipe_is_not_opened(tmp_path, name):
    os.mkfifo(tmp_path / name)  # opening it would wait forever
    assert_refused(tmp_path / name, "unknown kind of file")


def test_permission_denied(tmp_path, arrays, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    path = write_tar(tmp_path / "a.tar", batch_files(arrays), "w")
    monkeypatch.setattr(cifar10, "open", deny, raising=False)  # chmod would not stop root
    assert_refused(path, r"Permission denied: make it readable for you \(chmod u\+r\)")


# ---------------------------------------------------------------- bad files


@pytest.mark.parametrize("kind", ["python2", "binary"])
@pytest.mark.parametrize("container", ["folder", "a.tar.gz", "a.zip"])
def test_missing_batch_is_named(tmp_path, arrays, kind, container):
    files = batch_files(arrays, kind)
    name = "data_batch_3.bin" if kind == "binary" else "data_batch_3"
    del files[name]
    if container == "folder":
        path = write_folder(tmp_path / container, files)
    elif container == "a.zip":
        path = write_zip(tmp_path / container, files)
    else:
        path = write_tar(tmp_path / container, files, "w:gz")
    assert_refused(path, f"{name} missing of its six batches, it holds .*'test_batch")


@pytest.mark.parametrize("container", ["a.tar", "a.zip"])
def test_archive_without_batches(tmp_path, container):
    if container == "a.zip":
        path = write_zip(tmp_path / container, {"cat.jpg": b"x"})
    else:
        path = write_tar(tmp_path / container, {"cat.jpg": b"x"}, "w")
    assert_refused(path, r"data_batch_1, .*test_batch missing of its six batches, it holds \[\]")


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a.npz", "damaged or incomplete .*not a zip"),
        ("a.zip", "damaged or incomplete .*not a zip"),
        ("a.tar.gz", "damaged or incomplete"),
        ("a.tar", "damaged or incomplete"),
    ],
)
def test_other_content_than_the_extension_says(tmp_path, name, match):
    (tmp_path / name).write_bytes(b"<html>404 not found</html>" * 100)
    assert_refused(tmp_path / name, match)


def test_gzip_that_is_no_tar(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"hello" * 1000))
    assert_refused(tmp_path / "a.tar.gz", "damaged or incomplete")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.zip", "a.npz"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_truncated_archive(tmp_path, arrays, name, share):
    if name == "a.npz":
        write_npz(tmp_path / name, arrays)
    elif name == "a.zip":
        write_zip(tmp_path / name, batch_files(arrays))
    else:
        write_tar(tmp_path / name, batch_files(arrays), "w:gz" if name.endswith("gz") else "w")
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    assert_refused(tmp_path / name, "damaged or incomplete .*: download or copy it again|missing of its six")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_python_batch(tmp_path, arrays, share):
    files = batch_files(arrays)
    files["data_batch_2"] = files["data_batch_2"][: int(len(files["data_batch_2"]) * share)]
    path = write_folder(tmp_path / "f", files)
    assert_refused(path, "data_batch_2 is not a CIFAR-10 batch: .*; download or copy it again")


@pytest.mark.parametrize("size", [0, 1, 3072, 3074, 2 * 3073 - 1])
def test_truncated_binary_batch(tmp_path, arrays, size):
    files = batch_files(arrays, "binary")
    files["test_batch.bin"] = files["test_batch.bin"][:size]
    path = write_folder(tmp_path / "f", files)
    assert_refused(path, f"test_batch.bin has {size:,} bytes, not a whole number of records of 3,073")


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ([1, 2], "expected a dict with b'data' and b'labels'"),
        ({b"fine_labels": [1], b"data": 1}, "lacks data or labels"),
        ({b"data": [[1] * 3072], b"labels": [1]}, "'list' object has no attribute 'state'"),
        ({b"data": np.zeros((1, 100), np.uint8), b"labels": [1]}, r"shape \(1, 100\), expected \[n, 3072\]"),
        ({b"data": np.zeros(3072, np.uint8), b"labels": [1]}, r"shape \(3072,\), expected \[n, 3072\]"),
        ({b"data": np.zeros((1, 3072), np.float32), b"labels": [1]}, "another dtype, expected uint8"),
        ({b"data": np.zeros((1, 3072), object), b"labels": [1]}, "another dtype, expected uint8"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1.5]}, "labels are not integers"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": 1}, "not iterable"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1, 2]}, "has 1 images but 2 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": []}, "has 1 images but 0 labels"),
    ],
)
def test_pickle_of_something_else(tmp_path, arrays, batch, match):
    files = batch_files(arrays) | {"data_batch_4": pickle.dumps(batch, 2)}
    assert_refused(write_folder(tmp_path / "f", files), f"data_batch_4 is not a CIFAR-10 batch: .*{match}")


def test_label_out_of_range_in_a_batch(tmp_path, arrays):
    x_train, y_train, x_test, y_test = arrays
    for kind in ("python2", "binary"):
        files = batch_files((x_train, np.full_like(y_train, 10), x_test, y_test), kind)
        path = write_folder(tmp_path / kind, files)
        assert_refused(path, "y_train of '.*' has labels 10 to 10: expected 0 to 9")


@pytest.mark.parametrize("label", [-1, 2**40, 2**63, 10**30])
def test_absurd_label_in_a_pickle(tmp_path, arrays, label):
    pixels = np.zeros((1, 3072), np.uint8)
    files = batch_files(arrays) | {"test_batch": pickle.dumps({b"data": pixels, b"labels": [label]}, 2)}
    match = "y_test of 'f' (has labels|is object: expected integers)"
    assert_refused(write_folder(tmp_path / "f", files), match)


# ---------------------------------------------------------------- hostile pickles


class RunsCode:
    """Pickles to a call of any function with any arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("container", ["folder", "a.tar.gz", "a.zip"])
def test_hostile_pickle_runs_nothing(tmp_path, arrays, protocol, container):
    marker = tmp_path / "marker"
    hostile = pickle.dumps({b"data": RunsCode(os.mkdir, str(marker)), b"labels": [1]}, protocol)
    pickle.loads(hostile)
    assert marker.is_dir()  # the pickle does run code where it is let
    marker.rmdir()
    files = batch_files(arrays) | {"data_batch_1": hostile}
    if container == "folder":
        path = write_folder(tmp_path / container, files)
    elif container == "a.zip":
        path = write_zip(tmp_path / container, files)
    else:
        path = write_tar(tmp_path / container, files, "w:gz")
    match = r"data_batch_1 is not a CIFAR-10 batch: forbidden global (posix|nt)\.mkdir, which could run code"
    assert_refused(path, match)
    assert not marker.exists()


# As a key it has 2 ** 49 leaves to hash.
TUPLES_OF_TUPLES = (
    b"\x80\x02)q\1" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(1, 50)) + b"}h2Ns."
)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x80\x02c__builtin__\neval\nU\x011\x85R.", "forbidden global __builtin__.eval"),
        (b"\x80\x02cnumpy\nload\nU\x01x\x85R.", "forbidden global numpy.load"),
        (b"\x80\x02cnumpy.core.multiarray\nscalar\n.", "forbidden global numpy.core.multiarray.scalar"),
        (b"\x80\x02c_codecs\ndecode\n.", "forbidden global _codecs.decode"),
        (b"\x80\x02ccopy_reg\n_reconstructor\n.", "forbidden global copy_reg._reconstructor"),
        (
            b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93.",
            "forbidden global numpy.ndarray.__reduce__",
        ),
        (b"\x80\x02Ppersistent\n.", "persistent"),
        (b"\x80\x02\x82\x01.", "unregistered extension"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "memo bomb"),
        (b"\x80\x02}p2000000000\n.", "memo bomb"),
        (TUPLES_OF_TUPLES, "the same tuples too often"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.", "expected .* bytes"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", "expected .* bytes"),
        (b"\x80\x02cnumpy\nndarray\nN}X\x05\x00\x00\x00stateK\x01s\x86b.", "missing 1 required positional"),
        (b"\xff\xfe", "unknown"),
        (b"", "pickle exhausted"),
    ],
)
def test_hostile_opcodes(tmp_path, arrays, content, match):
    files = batch_files(arrays)
    path = write_folder(tmp_path / "f", files | {"data_batch_5": content})
    assert_refused(path, f"data_batch_5 is not a CIFAR-10 batch: .*({match})")
    assert_same(load_cifar10(write_folder(tmp_path / "good", files)), arrays)  # nothing was left changed


def test_pickle_cannot_change_what_later_files_are_read_with(tmp_path, arrays):
    # BUILD with a slot state sets attributes: here the default arguments of the stand-in for encode.
    content = b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__)s\x86b."
    path = write_folder(tmp_path / "f", batch_files(arrays) | {"data_batch_5": content})
    assert_refused(path, "data_batch_5 is not a CIFAR-10 batch: it lacks data or labels")  # BUILD went well
    encode = cifar10._BatchUnpickler(io.BytesIO()).find_class("_codecs", "encode")
    assert encode.__defaults__ is None


# ---------------------------------------------------------------- hostile archives


def test_npz_that_promises_too_much(tmp_path, arrays):
    path = write_npz(tmp_path / "a.npz", arrays, x_train=None)
    header = io.BytesIO()
    shape = (10**9, 32, 32, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", header.getvalue() + bytes(100))
    assert_refused(path, "x_train promises 3,072,000,000,000 bytes .* but holds 100: damaged")


def test_npz_shape_below_zero(tmp_path, arrays):
    path = write_npz(tmp_path / "a.npz", arrays, y_test=None)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (-2, -3)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y_test.npy", header.getvalue() + bytes(6))
    assert_refused(path, "y_test promises 6 bytes .* but holds 6: damaged, download")


def test_npz_of_too_many_bytes(tmp_path, arrays, monkeypatch):
    path = write_npz(tmp_path / "a.npz", arrays, np.savez_compressed)
    monkeypatch.setattr(cifar10, "_MAX_NPZ_BYTES", 50_000)
    assert_refused(path, "its arrays take .* bytes: use at most 50,000")


def test_npz_of_objects(tmp_path, arrays):
    marker = tmp_path / "marker"
    hostile = np.array([RunsCode(os.mkdir, str(marker))], dtype=object)
    path = write_npz(tmp_path / "a.npz", arrays, y_train=hostile)
    assert_refused(path, "y_train holds Python objects, not numbers: save it as uint8")
    assert not marker.exists()


def test_npz_without_the_arrays(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", train_images=arrays[0], y_train=arrays[1])
    match = "x_train, x_test, y_test missing, it holds train_images, y_train: expected the arrays x_train, y"
    assert_refused(tmp_path / "a.npz", match)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.zip"])
def test_archive_that_unpacks_to_too_much(tmp_path, arrays, monkeypatch, name):
    files = batch_files(arrays) | {"data_batch_1": bytes(100_000)}
    if name == "a.zip":
        path = write_zip(tmp_path / name, files)
    else:
        path = write_tar(tmp_path / name, files, "w:gz" if name.endswith("gz") else "w")
    monkeypatch.setattr(cifar10, "_MAX_BATCH_BYTES", 50_000)
    assert_refused(path, "data_batch_1 unpacks to more than 50,000 bytes")
    monkeypatch.setattr(cifar10, "_MAX_ARCHIVE_BYTES", 20_000)
    assert_refused(path, f"{name} unpacks to more than 20,000 bytes: this is no CIFAR-10 original")


def test_folder_with_a_huge_batch(tmp_path, arrays, monkeypatch):
    path = write_folder(tmp_path / "f", batch_files(arrays) | {"data_batch_1": bytes(100_000)})
    monkeypatch.setattr(cifar10, "_MAX_BATCH_BYTES", 50_000)
    assert_refused(path, "data_batch_1 unpacks to more than 50,000 bytes")


def test_batch_twice_in_an_archive(tmp_path, arrays):
    files = batch_files(arrays) | {"copy/data_batch_1": b"x"}
    assert_refused(write_tar(tmp_path / "a.tar", files, "w"), "data_batch_1 is twice in it")
    assert_refused(write_zip(tmp_path / "a.zip", files), "data_batch_1 is twice in it")


def test_links_and_devices_in_a_tar_are_not_followed(tmp_path, arrays):
    secret = tmp_path / "secret"
    secret.write_bytes(batch_files(arrays)["data_batch_1"])
    files = batch_files(arrays)
    del files["data_batch_1"]
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        path = write_tar(tmp_path / "a.tar", files, "w")
        with tarfile.open(path, "a") as archive:
            info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
        assert_refused(path, "data_batch_1 missing of its six batches")


def test_links_in_a_zip_are_not_read(tmp_path, arrays):
    files = batch_files(arrays)
    del files["data_batch_1"]
    path = write_zip(tmp_path / "a.zip", files)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("cifar-10-batches-py/data_batch_1")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert_refused(path, "data_batch_1 missing of its six batches")


def test_nothing_is_extracted(tmp_path, arrays, monkeypatch):
    (tmp_path / "work").mkdir()
    path = write_tar(tmp_path / "work" / "a.tar.gz", batch_files(arrays) | {"../../escaped": b"x"}, "w:gz")
    monkeypatch.chdir(tmp_path / "work")
    assert_same(load_cifar10(path), arrays)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.tar.gz", "work"]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.zip", "a.npz", "folder"])
def test_damaged_files_raise_nothing_else(tmp_path, name):
    """Flips bytes all over small files: each loads or is refused in one line that names the file."""
    arrays, path = make_arrays(per_batch=1), tmp_path / name
    target = path
    if name == "folder":
        write_folder(path, batch_files(arrays))
        target = path / "data_batch_1"
    elif name == "a.npz":
        write_npz(path, arrays, np.savez_compressed)
    elif name == "a.zip":
        write_zip(path, batch_files(arrays))
    else:
        write_tar(path, batch_files(arrays), "w:gz" if name.endswith("gz") else "w")
    content, generator, num_refused = target.read_bytes(), np.random.default_rng(0), 0
    for trial in range(60):
        damaged = np.frombuffer(content, np.uint8).copy()
        # Half of the trials hit the ends, where headers and directories lie.
        places = generator.integers(0, len(damaged), 8) if trial % 2 else generator.integers(-300, 300, 8)
        damaged[places] = generator.integers(0, 256, 8)
        target.write_bytes(damaged.tobytes())
        try:
            load_cifar10(path)
        except ValueError as error:
            num_refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
    assert num_refused > 5


# ---------------------------------------------------------------- the arrays


def make_data(**changes):
    x_train, y_train, x_test, y_test = make_arrays()
    values = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return ImageData(**(values | {"class_names": CIFAR10_CLASSES, "name": "mine"} | changes))


def test_image_data_is_frozen_and_flat():
    found = make_data(y_train=make_arrays()[1][:, None].astype(np.uint8))
    assert found.y_train.shape == (20,)
    assert found.y_train.dtype == np.int64
    with pytest.raises(AttributeError, match="cannot assign to field 'name'"):
        found.name = "other"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8, bool])
def test_images_must_be_uint8(dtype):
    images = make_arrays()[0].astype(dtype)
    match = rf"x_train of 'mine' is {np.dtype(dtype)}: expected uint8 in 0 .. 255, use x.round\(\).astype"
    with pytest.raises(ValueError, match=match):
        make_data(x_train=images)


def test_float_images_in_a_file(tmp_path, arrays):
    path = write_npz(tmp_path / "a.npz", arrays, x_test=arrays[2].astype(np.float32))
    assert_refused(path, "x_test of 'a' is float32: expected uint8 in 0 .. 255, .* by 255 if they lie in 0")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("x_train", np.zeros((20, 32, 32), np.uint8)), r"\(20, 32, 32\): expected \[n, h, w, c\]; gray"),
        (("x_test", np.zeros((4, 3072), np.uint8)), r"has shape \(4, 3072\): expected \[n, h, w, c\]"),
        (("x_train", np.zeros((0, 32, 32, 3), np.uint8)), "expected at least one image"),
        (("x_train", np.zeros((20, 3, 32, 32), np.uint8)), "1, 3 or 4 channels last, use x.transpose"),
        (("x_train", np.zeros((19, 32, 32, 3), np.uint8)), "has 19 images, y_train of 'mine' 20 labels"),
        (("y_train", np.zeros(20)), "is float64: expected integers"),
        (("y_train", np.zeros(20, bool)), "is bool: expected integers"),
        (("y_train", np.array(["cat"] * 20)), "is <U3: expected integers"),
        (("y_train", np.zeros((20, 10), int)), r"\(20, 10\): expected \[n\] or \[n, 1\], not one-hot"),
        (("y_train", np.array(3)), r"has shape \(\): expected \[n\] or \[n, 1\]"),
        (("y_test", np.zeros(0, int)), r"has shape \(0,\): expected at least one label"),
        (("y_test", np.array([0, 1, 2, 10])), "has labels 0 to 10: expected 0 to 9"),
        (("y_train", np.full(20, -1)), "has labels -1 to -1: expected 0 to 9"),
        (("y_train", np.full(20, 2**64 - 1, np.uint64)), "has labels 1844.*: expected 0 to 9"),
    ],
)
def test_arrays_that_are_refused(change, match):
    name, array = change
    with pytest.raises(ValueError, match=f"^{name} of 'mine' .*{match}"):
        make_data(**{name: array})


def test_train_and_test_images_must_be_of_one_size():
    match = r"images of 'mine' are \(32, 32, 3\) in x_train but \(28, 28, 3\) in x_test: expected one size"
    with pytest.raises(ValueError, match=match):
        make_data(x_test=np.zeros((4, 28, 28, 3), np.uint8))


def test_labels_must_have_class_names():
    with pytest.raises(ValueError, match="y_test of 'mine' has labels .*: expected 0 to 0"):
        make_data(class_names=("cat",), y_train=np.zeros(20, int))


# ---------------------------------------------------------------- stratified_split


def test_split_is_proportional_disjoint_and_complete():
    labels = np.repeat(np.arange(10), [500, 400, 300, 200, 100, 90, 80, 70, 60, 50])
    labels = np.random.default_rng(1).permutation(labels)
    train, validation = stratified_split(labels, 0.1, seed=0)
    assert train.dtype == validation.dtype == np.int64
    assert np.bincount(labels[validation]).tolist() == [50, 40, 30, 20, 10, 9, 8, 7, 6, 5]
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(labels)))
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()


def test_split_shares_remainders_out_to_the_largest():
    labels = np.repeat([0, 1, 2], [13, 16, 11])  # quotas 2.6, 3.2, 2.2 of 8
    _, validation = stratified_split(labels, 0.2, seed=0)
    assert np.bincount(labels[validation]).tolist() == [3, 3, 2]


def test_split_takes_from_all_over_a_class():
    labels = np.zeros(1000, int)
    _, validation = stratified_split(labels, 0.2, seed=0)
    assert len(validation) == 200
    assert validation.min() < 100 and validation.max() >= 900


@pytest.mark.parametrize(("fraction", "expected"), [(0.01, [1, 1, 0]), (0.99, [1, 4, 0])])
def test_split_leaves_each_class_one_in_each_part(fraction, expected):
    labels = np.array([7, 7, 3000, 3000, 3000, 3000, 3000, 99999])
    _, validation = stratified_split(labels, fraction, seed=0)
    assert [int((labels[validation] == label).sum()) for label in (7, 3000, 99999)] == expected


def test_split_depends_on_the_seed_alone():
    labels = make_arrays(per_batch=40)[1]
    first, second = (stratified_split(labels, 0.25, seed=5) for _ in range(2))
    other = stratified_split(labels[:, None].astype(np.uint8), 0.25, seed=6)
    same = stratified_split(labels[:, None].astype(np.uint8), 0.25, seed=5)
    for index in (0, 1):
        np.testing.assert_array_equal(first[index], second[index])
        np.testing.assert_array_equal(first[index], same[index])
        assert not np.array_equal(first[index], other[index])
        assert len(first[index]) == len(other[index])


@pytest.mark.parametrize("fraction", [0, 1, 0.0, 1.0, -0.1, 1.5, float("nan"), "0.1", None, True])
def test_split_refuses_fraction(fraction):
    with pytest.raises(ValueError, match="fraction is .*: expected a number between 0 and 1, such as 0.1"):
        stratified_split(np.zeros(10, int), fraction, seed=0)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None])
def test_split_refuses_seed(seed):
    with pytest.raises(ValueError, match="seed is .*: expected an integer >= 0"):
        stratified_split(np.zeros(10, int), 0.1, seed)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (np.zeros(10), "labels is float64: expected integers"),
        (np.zeros((10, 2), int), r"labels has shape \(10, 2\): expected \[n\] or \[n, 1\]"),
        (np.zeros(0, int), "labels has shape .*: expected at least one label"),
        (np.arange(10), "no class of labels has two members"),
    ],
)
def test_split_refuses_labels(labels, match):
    with pytest.raises(ValueError, match=match):
        stratified_split(labels, 0.1, seed=0)


# ---------------------------------------------------------------- tools/make_cifar10_sample.py


@pytest.fixture
def make_sample(monkeypatch):
    """Returns a function that runs the script with arguments and returns its exit code."""
    path = ROOT / "tools" / "make_cifar10_sample.py"
    spec = importlib.util.spec_from_file_location("make_cifar10_sample", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["make_cifar10_sample.py", *map(str, arguments)])
        return script.main()

    return run


def test_script_makes_the_embedded_sample_again(tmp_path, make_sample, capsys):
    from PIL import Image

    sample = load_cifar10("sample")
    arrays = (sample.x_train, sample.y_train, sample.x_test, sample.y_test)
    source = write_npz(tmp_path / "full.npz", arrays)
    out = tmp_path / "made" / "sheet.png"
    out.parent.mkdir()
    assert make_sample(source, out) == 0
    assert "wrote" in capsys.readouterr().out
    with Image.open(out) as made, Image.open(SAMPLE_PATH) as embedded:
        np.testing.assert_array_equal(np.asarray(made), np.asarray(embedded))
    assert [path.name for path in out.parent.iterdir()] == ["sheet.png"]  # no temporary file is left


def test_script_refuses_in_one_line(tmp_path, arrays, make_sample, capsys):
    small = write_npz(tmp_path / "small.npz", arrays)
    gray = write_npz(tmp_path / "gray.npz", (arrays[0][..., :1], arrays[1], arrays[2][..., :1], arrays[3]))
    out = tmp_path / "out.png"
    out.write_bytes(b"old")
    for source, target, message in (
        (tmp_path / "nothing.npz", out, "no such file or folder"),
        (small, out, "class 'airplane' of 'small' has"),
        (gray, out, r"images of 'gray' are (32, 32, 1)"),
        ("sample", out, "the sample is made from the full data set"),
    ):
        assert make_sample(source, target) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.startswith("error: ") and error.count("\n") == 1
    assert out.read_bytes() == b"old"


def test_script_refuses_where_it_cannot_write(tmp_path, make_sample, capsys):
    sample = load_cifar10("sample")
    source = tmp_path / "full.npz"
    write_npz(source, (sample.x_train, sample.y_train, sample.x_test, sample.y_test))
    assert make_sample(source, tmp_path / "out.jpg") == 2
    assert "give a name that ends in .png" in capsys.readouterr().err
    assert make_sample(source, tmp_path / "nowhere" / "out.png") == 2
    assert "there is no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        make_sample()
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: the following arguments are required: source; see --help\n"
