import json
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from support.tensors import Touch, assert_equal, fails

from vit_tf.hub.sources import open_checkpoint, read_source_config


def write_safetensors(path, header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def write_npy(path, shape, data, descr="<f4", file_size=None, compression=zipfile.ZIP_STORED):
    """An .npz file of one array "a" whose header and directory may say anything."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}}}\n".encode()
    npy = b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("a.npy", npy)
        if file_size is not None:
            archive.infolist()[0].file_size = len(npy) - len(data) + file_size
    return path


def test_safetensors(tmp_path, arrays):
    path = tmp_path / "a.safetensors"
    save_file(arrays, path)
    opened = open_checkpoint(str(path))
    assert (opened.source, opened.path, opened.config, opened.preprocessor) == (str(path), path, {}, {})
    assert_equal(opened.tensors, arrays)
    assert read_source_config(path) == ({}, {})
    opened.tensors["blocks.0.weight"].load()[:] = 0
    assert_equal(open_checkpoint(path).tensors, arrays)  # writing to an array never reaches the file


@pytest.mark.parametrize("dtype", ["float64", "float16", ml_dtypes.bfloat16])
def test_safetensors_floats_become_float32(tmp_path, dtype):
    array = np.random.default_rng(1).normal(size=(3, 5)).astype(dtype)
    save_file({"a": array, "none": array[:0]}, tmp_path / "a.safetensors")
    tensors = open_checkpoint(tmp_path / "a.safetensors").tensors
    assert_equal(tensors, {"a": array.astype("float32"), "none": np.empty((0, 5), "float32")})


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int32", "uint64"])
def test_safetensors_other_kinds_stay(tmp_path, dtype):
    array = np.random.default_rng(1).integers(0, 100, 40).astype(dtype)
    save_file({"a": array}, tmp_path / "a.safetensors")
    assert_equal(open_checkpoint(tmp_path / "a.safetensors").tensors, {"a": array})


def test_safetensors_of_odd_offsets_and_names(tmp_path):
    array = np.random.default_rng(1).normal(size=3).astype("float32")
    entry = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
    header = json.dumps({"../é\0": entry, "__metadata__": {"format": "pt"}}).encode()
    header += b" " * (1 - len(header) % 2)  # an odd length: the array lies across the boundaries of its words
    path = write_safetensors(tmp_path / "a.safetensors", header, array.tobytes())
    assert_equal(open_checkpoint(path).tensors, {"../é\0": array})


def test_safetensors_are_read_one_at_a_time(tmp_path):
    arrays = {f"a{i}": np.random.default_rng(i).random(1 << 20, "float32") for i in range(4)}
    save_file(arrays, tmp_path / "a.safetensors")
    tracemalloc.start()
    tensors = open_checkpoint(tmp_path / "a.safetensors").tensors
    sums = {name: tensor.load().sum() for name, tensor in tensors.items()}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sums == {name: array.sum() for name, array in arrays.items()}
    assert peak < 2 << 20  # an array has 4 MiB, and lies in the file


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header, data",
    [
        ({"a": ENTRY}, b"1234567"),  # truncated
        ({"a": ENTRY}, b"123456789"),
        ({"a": ENTRY | {"shape": [3]}}, b"12345678"),
        ({"a": ENTRY | {"data_offsets": [0, 10**12]}}, b"12345678"),
        ({"a": ENTRY | {"data_offsets": [8, 0]}}, b"12345678"),
        ({"a": ENTRY, "b": ENTRY}, b"12345678"),
        ({"a": ENTRY | {"dtype": "Q9"}}, b"12345678"),
        ({"a": ENTRY | {"shape": [1] * 99 + [2]}}, b"12345678"),
        ({"a": ENTRY | {"shape": [0, 2**62], "data_offsets": [0, 0]}}, b""),
        (b"not json", b""),
        (b"[" * 10_000, b""),
        (b"\xff\xfe", b""),
    ],
)
def test_safetensors_with_a_header_that_lies(tmp_path, header, data):
    path = write_safetensors(tmp_path / "a.safetensors", header, data)
    fails(path, "a.safetensors", "is damaged", "download or save it again")


@pytest.mark.parametrize(
    "content", [b"1234", (2**60).to_bytes(8, "little") + b"{}", b"<!doctype html><html>"]
)
def test_not_safetensors(tmp_path, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    fails(tmp_path / "a.safetensors", "a.safetensors", "is damaged")


def test_safetensors_truncated_anywhere(tmp_path, arrays):
    save_file(arrays, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for size in range(1, len(whole), 17):
        (tmp_path / "b.safetensors").write_bytes(whole[:size])
        fails(tmp_path / "b.safetensors", "b.safetensors", "is damaged")


def test_safetensors_of_a_kind_that_is_not_read(tmp_path):
    entry = {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}
    path = write_safetensors(tmp_path / "a.safetensors", {"a": entry}, b"12")
    fails(path, "has 'a' as F8_E4M3", "expected one of F64, F32, F16, BF16")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, arrays, save):
    arrays["path/of/kernel"] = np.asfortranarray(arrays["blocks.0.weight"])
    save(tmp_path / "a.npz", **arrays)
    assert_equal(open_checkpoint(tmp_path / "a.npz").tensors, arrays)


@pytest.mark.parametrize("dtype", ["float64", "float16", ">f4", ml_dtypes.bfloat16])
def test_npz_floats_become_float32(tmp_path, dtype):
    array = np.random.default_rng(1).normal(size=(3, 5)).astype(dtype)
    np.savez(tmp_path / "a.npz", a=array)
    assert_equal(open_checkpoint(tmp_path / "a.npz").tensors, {"a": array.astype("float32")})


def test_npz_with_objects_runs_nothing(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.array([Touch(tmp_path / "marker")], object))
    fails(tmp_path / "a.npz", "'a' of type object", "expected numbers")
    assert not (tmp_path / "marker").exists()
    np.load(tmp_path / "a.npz", allow_pickle=True)["a"]
    assert (tmp_path / "marker").exists()  # the file is what it should be


@pytest.mark.parametrize("array", [np.array("text"), np.zeros(2, [("x", "f4")]), np.zeros(2, "M8[s]")])
def test_npz_with_other_kinds(tmp_path, array):
    np.savez(tmp_path / "a.npz", a=array)
    fails(tmp_path / "a.npz", "has 'a' of type", "expected numbers")


def test_npz_that_is_no_zip(tmp_path, arrays):
    (tmp_path / "a.npz").write_bytes(b"\x93NUMPY and so on")
    fails(tmp_path / "a.npz", "a.npz", "is damaged", "not a zip file")
    np.savez(tmp_path / "b.npz", **arrays)
    (tmp_path / "b.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:-30])
    fails(tmp_path / "b.npz", "b.npz", "is damaged")


def test_npz_with_other_members(tmp_path):
    for name in ("readme.txt", "a/"):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr(name, b"")
        fails(tmp_path / "a.npz", "must hold .npy arrays", repr(name))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_with_a_flipped_byte_fails_at_once(tmp_path, save):
    save(tmp_path / "a.npz", a=np.random.default_rng(1).normal(size=1000))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    fails(tmp_path / "a.npz", "a.npz", "is damaged")


def test_npz_with_the_same_name_twice(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.npy", archive.read("a.npy"))
    fails(tmp_path / "a.npz", "each once, got 'a'")


@pytest.mark.parametrize("shape", [(10**11,), (3,), (1,), (10**30,), (-1, -2), (1,) * 80, (0, 2**62), "x"])
def test_npz_with_a_header_that_lies(tmp_path, shape):
    write_npy(tmp_path / "good.npz", (2,), b"12345678")
    assert open_checkpoint(tmp_path / "good.npz").tensors["a"].shape == (2,)
    path = write_npy(tmp_path / "a.npz", shape, b"12345678")
    tracemalloc.start()
    fails(path, "a.npz", "is damaged")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_npz_whose_header_and_directory_lie(tmp_path, compression):
    count = 60_000_000  # 240 MB, which is less than what is refused as a bomb
    path = write_npy(tmp_path / "a.npz", (count,), b"12345678", file_size=4 * count, compression=compression)
    tracemalloc.start()
    fails(path, "a.npz", "is damaged")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20


def test_npz_is_not_read_beyond_its_header(tmp_path):
    path = write_npy(tmp_path / "a.npz", (2,), bytes(30 << 20), compression=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    fails(path, "a.npz", "is damaged")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20


def test_zip_bomb(tmp_path):
    path = write_npy(tmp_path / "a.npz", (2**30,), b"12345678", file_size=2**32)
    fails(path, "a.npz", "claims to unpack to 4,294,967,", "more than 200 times")
    fails(path.rename(tmp_path / "a.pth"), "is not what its ending says (a zip without data.pkl)")
