"""Damaged and hostile files of CIFAR-10: each is refused in one line, and runs nothing."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
from support.cifar_files import (
    assert_refused,
    assert_same,
    batch_files,
    cifar100_files,
    make_arrays,
    write_folder,
    write_npz,
    write_tar,
    write_zip,
)

from vit_tf.data import cifar, cifar_batches, load_cifar
from vit_tf.data.cifar_batches import BatchUnpickler


@pytest.fixture
def arrays():
    return make_arrays()


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
    assert_refused(tmp_path / name, "damaged or incomplete .*: download or copy it again|missing: expected")


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


@pytest.mark.parametrize("size", [0, 1, 3073, 3075])
def test_truncated_binary_batch_of_cifar100(tmp_path, size):
    files = cifar100_files(make_arrays(num_classes=100), "binary")
    files["train.bin"] = files["train.bin"][:size]
    path = write_folder(tmp_path / "f", files)
    assert_refused(path, f"train.bin has {size:,} bytes, not a whole number of records of 3,074")


def test_cifar100_without_fine_labels(tmp_path):
    files = cifar100_files(make_arrays(num_classes=100))
    batch = {b"data": np.zeros((1, 3072), np.uint8), b"coarse_labels": [1]}
    path = write_folder(tmp_path / "f", files | {"test": pickle.dumps(batch, 2)})
    assert_refused(path, "test is not a CIFAR-100 batch: it lacks data or fine labels")


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
    assert_same(load_cifar(write_folder(tmp_path / "good", files)), arrays)  # nothing was left changed


def test_pickle_cannot_change_what_later_files_are_read_with(tmp_path, arrays):
    # BUILD with a slot state sets attributes: here the default arguments of the stand-in for encode.
    content = b"\x80\x02c_codecs\nencode\nN}X\x0c\x00\x00\x00__defaults__)s\x86b."
    path = write_folder(tmp_path / "f", batch_files(arrays) | {"data_batch_5": content})
    assert_refused(path, "data_batch_5 is not a CIFAR-10 batch: it lacks data or labels")  # BUILD went well
    encode = BatchUnpickler(io.BytesIO()).find_class("_codecs", "encode")
    assert encode.__defaults__ is None


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
    monkeypatch.setattr(cifar, "MAX_NPZ_BYTES", 50_000)
    assert_refused(path, "its arrays take .* bytes: expected at most 50,000")


def test_npz_of_objects(tmp_path, arrays):
    marker = tmp_path / "marker"
    hostile = np.array([RunsCode(os.mkdir, str(marker))], dtype=object)
    path = write_npz(tmp_path / "a.npz", arrays, y_train=hostile)
    assert_refused(path, "y_train holds Python objects, not numbers: save it as uint8")
    assert not marker.exists()


def test_npz_without_the_arrays(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", train_images=arrays[0], y_train=arrays[1])
    match = "x_train, x_test, y_test missing: expected the arrays x_train, .*, got train_images, y_train"
    assert_refused(tmp_path / "a.npz", match)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar", "a.zip"])
def test_archive_that_unpacks_to_too_much(tmp_path, arrays, monkeypatch, name):
    files = batch_files(arrays) | {"data_batch_1": bytes(100_000)}
    if name == "a.zip":
        path = write_zip(tmp_path / name, files)
    else:
        path = write_tar(tmp_path / name, files, "w:gz" if name.endswith("gz") else "w")
    monkeypatch.setattr(cifar_batches, "MAX_BATCH_BYTES", 50_000)
    assert_refused(path, "data_batch_1 unpacks to more than 50,000 bytes")
    monkeypatch.setattr(cifar_batches, "MAX_ARCHIVE_BYTES", 20_000)
    assert_refused(path, f"{name} unpacks to more than 20,000 bytes: this is not an original file of CIFAR")


def test_folder_with_a_huge_batch(tmp_path, arrays, monkeypatch):
    path = write_folder(tmp_path / "f", batch_files(arrays) | {"data_batch_1": bytes(100_000)})
    monkeypatch.setattr(cifar_batches, "MAX_BATCH_BYTES", 50_000)
    assert_refused(path, "data_batch_1 unpacks to more than 50,000 bytes")


def test_batch_twice_in_an_archive(tmp_path, arrays):
    files = batch_files(arrays) | {"copy/data_batch_1": b"x"}
    assert_refused(write_tar(tmp_path / "a.tar", files, "w"), "data_batch_1 occurs twice")
    assert_refused(write_zip(tmp_path / "a.zip", files), "data_batch_1 occurs twice")


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
        assert_refused(path, "data_batch_1 missing: expected 6 batches of CIFAR-10")


def test_links_in_a_zip_are_not_read(tmp_path, arrays):
    files = batch_files(arrays)
    del files["data_batch_1"]
    path = write_zip(tmp_path / "a.zip", files)
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("cifar-10-batches-py/data_batch_1")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert_refused(path, "data_batch_1 missing: expected 6 batches of CIFAR-10")


def test_nothing_is_extracted(tmp_path, arrays, monkeypatch):
    (tmp_path / "work").mkdir()
    path = write_tar(tmp_path / "work" / "a.tar.gz", batch_files(arrays) | {"../../escaped": b"x"}, "w:gz")
    monkeypatch.chdir(tmp_path / "work")
    assert_same(load_cifar(path), arrays)
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
            load_cifar(path)
        except ValueError as error:
            num_refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
    assert num_refused > 5
