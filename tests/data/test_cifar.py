"""Tests of vit_tf.data: every reader against the same arrays, and every mistake a user can make.

No test uses the network. The originals are rebuilt in miniature: the same files, fewer images.
"""

import io
import os
import pickle
import socket
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
from support.cifar_files import (
    assert_refused,
    assert_same,
    batch_files,
    batches_of,
    cifar100_files,
    make_arrays,
    write_folder,
    write_npz,
    write_tar,
    write_zip,
)

from vit_tf.data import (
    CIFAR10_CLASSES,
    CIFAR100_CLASSES,
    SAMPLE_PATH,
    ImageData,
    cifar_batches,
    load_cifar,
)
from vit_tf.training.datasets import is_array_source


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
    monkeypatch.setattr(keras.datasets.cifar100, "load_data", fail)
    return seen


# ---------------------------------------------------------------- readers


@pytest.mark.parametrize("kind", ["python2", "python3", "binary"])
def test_folder(tmp_path, arrays, kind):
    found = load_cifar(write_folder(tmp_path / "cifar-10-batches", batch_files(arrays, kind)))
    assert_same(found, arrays)
    assert found.name == "cifar-10-batches"
    assert found.class_names == CIFAR10_CLASSES
    assert found.note == ""


def test_folder_around_the_folder(tmp_path, arrays):
    write_folder(tmp_path / "around" / "cifar-10-batches-py", batch_files(arrays))
    (tmp_path / "around" / "other").mkdir()
    (tmp_path / "around" / "notes.txt").write_text("x")
    assert_same(load_cifar(str(tmp_path / "around")), arrays)


def test_folder_with_both_formats_reads_one(tmp_path, arrays):
    files = batch_files(arrays, "python2") | batch_files(arrays, "binary")
    assert_same(load_cifar(write_folder(tmp_path / "both", files)), arrays)


@pytest.mark.parametrize("kind", ["python2", "python3", "binary"])
@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.tar.gz", "w:gz"), ("a.tgz", "w:gz"), ("a.tar", "w"), ("A.TAR.GZ", "w:gz"), ("a.tar.gz", "w")],
)
def test_tar(tmp_path, arrays, kind, name, mode):
    assert_same(load_cifar(write_tar(tmp_path / name, batch_files(arrays, kind), mode)), arrays)


@pytest.mark.parametrize("kind", ["python2", "python3", "binary"])
def test_zip(tmp_path, arrays, kind):
    assert_same(load_cifar(write_zip(tmp_path / "a.zip", batch_files(arrays, kind))), arrays)


@pytest.mark.parametrize("kind", ["python2", "python3", "binary"])
@pytest.mark.parametrize("container", ["folder", "around", "a.tar.gz", "a.zip"])
def test_cifar100(tmp_path, kind, container):
    arrays = make_arrays(num_classes=100)
    files = cifar100_files(arrays, kind)
    if container == "a.zip":
        path = write_zip(tmp_path / container, files)
    elif container == "a.tar.gz":
        path = write_tar(tmp_path / container, files, "w:gz")
    else:
        write_folder(tmp_path / container / "cifar-100", files)
        path = tmp_path / container / ("cifar-100" if container == "folder" else "")
    assert is_array_source(str(path))
    found = load_cifar(path)
    assert_same(found, arrays)
    assert found.class_names == CIFAR100_CLASSES


def test_names_of_cifar100():
    assert len(set(CIFAR100_CLASSES)) == 100
    assert list(CIFAR100_CLASSES) == sorted(CIFAR100_CLASSES)  # as in the original, by the alphabet
    places = {0: "apple", 1: "aquarium_fish", 47: "maple_tree", 64: "possum", 81: "streetcar", 99: "worm"}
    assert {label: CIFAR100_CLASSES[label] for label in places} == places


def test_npz_of_100_classes(tmp_path):
    x_train, y_train, x_test, y_test = make_arrays(num_classes=100)
    y_train[3] = 99
    found = load_cifar(write_npz(tmp_path / "a.npz", (x_train, y_train, x_test, y_test)))
    assert found.class_names == CIFAR100_CLASSES
    y_train[:] = 98
    path = write_npz(tmp_path / "b.npz", (x_train, y_train, x_test, y_test))
    assert_refused(path, "y_train of 'b' has labels 98 to 98: expected 0 to 9")


def test_lists_named_train_and_images_are_not_cifar100(tmp_path):
    write_folder(tmp_path / "images", {"train": b"cats/1.jpg", "1.jpg": b"x"})
    write_folder(tmp_path / "images" / "test", {"1.jpg": b"x"})
    assert not is_array_source(str(tmp_path / "images"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, arrays, save):
    found = load_cifar(write_npz(tmp_path / "mine.npz", arrays, save))
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
    assert_same(load_cifar(path), arrays)


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
    assert_same(load_cifar(tmp_path / "a.npz"), arrays)


def test_batches_of_one_image_and_fortran_order(tmp_path):
    arrays = make_arrays(per_batch=1, seed=3)
    files = batch_files(arrays, "python3")
    for name, pixels, labels in batches_of(make_arrays(per_batch=2, seed=3)):
        files[name] = pickle.dumps({b"data": np.asfortranarray(pixels), b"labels": labels.tolist()}, 2)
    assert_same(load_cifar(write_folder(tmp_path / "f", files)), make_arrays(per_batch=2, seed=3))
    assert_same(load_cifar(write_folder(tmp_path / "b", batch_files(arrays, "binary"))), arrays)


def test_other_image_sizes(tmp_path):
    images = np.arange(3 * 8 * 6, dtype=np.uint8).reshape(3, 8, 6, 1)
    labels = np.array([0, 9, 4])
    found = load_cifar(write_npz(tmp_path / "gray.npz", (images, labels, images[:1], labels[:1])))
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
    assert load_cifar(path).name == name


def test_home_folder_is_expanded(tmp_path, arrays, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write_npz(tmp_path / "mine.npz", arrays)
    assert_same(load_cifar("~/mine.npz"), arrays)


def test_import_is_light():
    """The readers need NumPy and the standard library only."""
    script = (
        "import sys, vit_tf.data.cifar\n"
        "print([m for m in ('keras', 'tensorflow', 'PIL', 'matplotlib') if m in sys.modules])\n"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# ---------------------------------------------------------------- download and sample


def test_download_failure_falls_back_to_the_sample_and_says_why(no_network):
    before = socket.getdefaulttimeout()
    found = load_cifar()
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
        load_cifar("cifar10")
    assert "\n" not in str(caught.value)


def test_cifar100_needs_its_download(no_network):
    match = r"^CIFAR-100 could not be downloaded \(URL fetch failure .* give --data PATH$"
    with pytest.raises(ValueError, match=match):
        load_cifar("cifar100")


def test_download_of_cifar100(monkeypatch):
    import keras

    arrays = make_arrays(num_classes=100)
    downloaded = arrays[:1] + (arrays[1][:, None],), arrays[2:3] + (arrays[3][:, None],)
    monkeypatch.setattr(keras.datasets.cifar100, "load_data", lambda: downloaded)
    found = load_cifar("cifar100")
    assert_same(found, arrays)
    assert (found.name, found.class_names) == ("cifar100", CIFAR100_CLASSES)


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
    found = load_cifar(source)
    assert_same(found, arrays)
    assert (found.name, found.note) == ("cifar10", "")


def test_interrupting_the_download_is_not_swallowed(monkeypatch):
    import keras

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.datasets.cifar10, "load_data", interrupt)
    before = socket.getdefaulttimeout()
    with pytest.raises(KeyboardInterrupt):
        load_cifar()
    assert socket.getdefaulttimeout() == before


def test_sample():
    sample = load_cifar("sample")
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
    again = load_cifar("sample")
    assert_same(again, (sample.x_train, sample.y_train, sample.x_test, sample.y_test))


def test_sample_labels_belong_to_the_rows_of_the_sheet():
    from PIL import Image

    with Image.open(SAMPLE_PATH) as image:
        assert image.size == (1600, 1280)
        sheet = np.asarray(image)
    sample = load_cifar("sample")
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
    with pytest.raises(ValueError, match="source is .*expected 'cifar10', 'cifar100', 'sample' or a path"):
        load_cifar(source)


def test_missing_file_suggests_the_nearest(tmp_path, arrays):
    write_npz(tmp_path / "cifar10.npz", arrays)
    assert_refused(tmp_path / "cifar01.npz", r"no such file or folder \(did you mean 'cifar10.npz'\?")
    assert_refused(tmp_path / "zzz", "no such file or folder; expected .npz")
    assert_refused(tmp_path / "nowhere" / "zzz", "no such file or folder; expected")


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
    assert_refused(tmp_path / name, r"it has no CIFAR batches \(cat.jpg, dog.jpg\): expected .npz")


def test_empty_folder(tmp_path):
    assert_refused(tmp_path, r"it has no CIFAR batches \(it is empty\): expected .npz")


def test_folder_with_two_data_sets(tmp_path, arrays):
    write_folder(tmp_path / "one", batch_files(arrays))
    write_folder(tmp_path / "two", batch_files(arrays, "binary"))
    assert_refused(tmp_path, r"several folders in it have CIFAR batches \(one, two\)")


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
    monkeypatch.setattr(cifar_batches, "open", deny, raising=False)  # chmod would not stop root
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
    assert_refused(path, f"{name} missing: expected 6 batches of CIFAR-10, got .*'test_batch")


@pytest.mark.parametrize("container", ["a.tar", "a.zip"])
def test_archive_without_batches(tmp_path, container):
    if container == "a.zip":
        path = write_zip(tmp_path / container, {"cat.jpg": b"x"})
    else:
        path = write_tar(tmp_path / container, {"cat.jpg": b"x"}, "w")
    assert_refused(path, "it has no CIFAR batches: expected .npz")


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
