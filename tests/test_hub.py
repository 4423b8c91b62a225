import argparse
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile

import huggingface_hub
import keras
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import constants, errors
from safetensors.numpy import save_file

from vit_tf.hub import sources as checkpoint
from vit_tf.hub.lazy_tensor import LazyTensor
from vit_tf.hub.sources import open_checkpoint, read_config

CONFIG = {"architecture": "vit_tiny_patch16_224", "num_classes": 7}


@pytest.fixture(autouse=True)
def seeded():
    """Nothing here uses Keras, whose state takes longer to clear than most of these tests."""


@pytest.fixture
def arrays():
    rng = np.random.default_rng(3)
    return {
        "cls_token": rng.normal(size=(1, 1, 6)).astype("float32"),
        "blocks.0.weight": rng.normal(size=(6, 4)).astype("float32"),
        "scale": rng.normal(size=()).astype("float32"),
        "index": rng.integers(-9, 9, (5,)),
    }


def assert_equal(tensors, arrays):
    assert set(tensors) == set(arrays)
    for name, array in arrays.items():
        loaded = tensors[name].load()
        assert tensors[name].shape == loaded.shape == array.shape
        assert loaded.dtype == array.dtype and loaded.flags.writeable
        np.testing.assert_array_equal(loaded, array)


def fails(source, *parts):
    """Opening `source` is one ValueError, whose message holds every part of `parts`."""
    with pytest.raises(ValueError) as caught:
        open_checkpoint(source)
    assert type(caught.value) is ValueError or isinstance(caught.value, checkpoint._Missing)
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


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


def make_folder(folder, arrays, name="model.safetensors", preprocessor=None):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if name:
        save_file(arrays, folder / name)
    return folder


def make_shards(folder, arrays):
    make_folder(folder, {}, name=None)
    weight_map = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(arrays)}
    for part in set(weight_map.values()):
        save_file({n: arrays[n] for n in arrays if weight_map[n] == part}, folder / part)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder, weight_map):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


# Tensors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function, shape",
    [
        (lambda t: t.transpose(2, 0, 1), (4, 2, 3)),
        (lambda t: t.transpose(), (4, 3, 2)),
        (lambda t: t.reshape(6, -1), (6, 4)),
        (lambda t: t.transpose(1, 0, 2).reshape(3, 8), (3, 8)),
        (lambda t: t[1], (3, 4)),
        (lambda t: t[:, 1:], (2, 2, 4)),
        (lambda t: t[0, 1, 2], ()),
        (lambda t: t + t[0], (2, 3, 4)),
        (lambda t: t[0] + t, (2, 3, 4)),
    ],
)
def test_tensor_algebra_is_numpys_and_lazy(function, shape):
    array = np.random.default_rng(5).normal(size=(2, 3, 4)).astype("float32")
    loads = []

    def load():
        loads.append(1)
        return array

    tensor = function(LazyTensor((2, 3, 4), load))
    assert tensor.shape == shape and not loads
    result = tensor.load()
    assert isinstance(result, np.ndarray) and loads
    np.testing.assert_array_equal(result, function(array))


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_concatenate_and_map(axis):
    rng = np.random.default_rng(5)
    first = rng.normal(size=(2, 3, 4))
    second = rng.normal(size=(5, 3, 4) if axis == 0 else (2, 5, 4))
    tensors = [LazyTensor(array.shape, lambda array=array: array) for array in (first, second)]
    joined = LazyTensor.concatenate(tensors, axis)
    expected = np.concatenate([first, second], axis)
    assert joined.shape == expected.shape
    np.testing.assert_array_equal(joined.load(), expected)
    mapped = joined.map(lambda array: array.sum(-1), expected.shape[:-1])
    assert mapped.shape == expected.shape[:-1]
    np.testing.assert_array_equal(mapped.load(), expected.sum(-1))


def test_tensor_mistakes_are_found_without_reading():
    tensor = LazyTensor((2, 3), lambda: pytest.fail("was read"))
    for mistake in (
        lambda: tensor.reshape(4, -1),
        lambda: tensor.transpose(0),
        lambda: tensor + tensor[:, :2],
        lambda: LazyTensor.concatenate([tensor, tensor[:, :2]], 0),
        lambda: LazyTensor.concatenate([tensor, tensor], 2),
        lambda: LazyTensor.concatenate([], 0),
    ):
        with pytest.raises(ValueError):
            mistake()
    assert len(list(tensor)) == 2  # NumPy's IndexError ends a loop, as it does over an array
    with pytest.raises(TypeError):
        tensor + 1


def test_shapes_of_large_tensors_take_no_memory():
    tensor = LazyTensor((10**6, 10**5), lambda: pytest.fail("was read"))
    assert tensor.transpose(1, 0).reshape(-1, 10, 10**6)[5:].shape == (10**4 - 5, 10, 10**6)
    assert LazyTensor.concatenate([tensor, tensor], 1).shape == (10**6, 2 * 10**5)


# Files --------------------------------------------------------------------------------------------


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="Keras imports PyTorch itself then")
def test_pytorch_is_not_imported():
    program = "import sys, vit_tf.hub; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_safetensors(tmp_path, arrays):
    path = tmp_path / "a.safetensors"
    save_file(arrays, path)
    opened = open_checkpoint(str(path))
    assert (opened.source, opened.path, opened.config, opened.preprocessor) == (str(path), path, {}, {})
    assert_equal(opened.tensors, arrays)
    assert read_config(path) == ({}, {})
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


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


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
    fails(path.rename(tmp_path / "a.pth"), "is compressed")


def test_paths_and_endings(tmp_path, arrays):
    missing = tmp_path / "missing.npz"
    fails(missing, repr(str(missing)), "no file or folder", "hf:owner/name")
    fails("google/vit-base-patch16-224", "no file or folder", "hf:owner/name")
    fails("a\0b", "no file or folder")
    fails("a" * 300, "no file or folder")
    (tmp_path / "a.h5").write_bytes(b"x")
    fails(tmp_path / "a.h5", "must end in .safetensors, .npz, .pth, .pt, .bin", "a.h5")
    for ending in (".safetensors", ".npz", ".pth", ".pt", ".bin"):
        (tmp_path / f"empty{ending}").write_bytes(b"")
        fails(tmp_path / f"empty{ending}", f"empty{ending}", "is empty")
    save_file({}, tmp_path / "none.safetensors")
    fails(tmp_path / "none.safetensors", "holds no tensors")
    save_file(arrays, tmp_path / "A.SafeTensors")
    assert_equal(open_checkpoint(tmp_path / "A.SafeTensors").tensors, arrays)


# PyTorch ------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_torch(tmp_path, arrays, torch, name, is_zip):
    state = {key: torch.from_numpy(array) for key, array in arrays.items()}
    half = torch.from_numpy(arrays["blocks.0.weight"]).bfloat16()
    state["half"] = torch.nn.Parameter(half).T
    state["double"] = torch.from_numpy(arrays["cls_token"]).double()
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=is_zip)
    expected = arrays | {"half": half.float().T.numpy(), "double": arrays["cls_token"]}
    assert_equal(open_checkpoint(tmp_path / name).tensors, expected)


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "model_ema"])
def test_torch_nested_and_data_parallel(tmp_path, arrays, torch, key):
    arrays["patch_embed.proj.weight"] = arrays["blocks.0.weight"]  # what tells where the ViT is
    state = {f"module.{name}": torch.from_numpy(array) for name, array in arrays.items()}
    torch.save({"epoch": 3, "step": torch.ones(1), key: state}, tmp_path / "a.pth")
    assert_equal(open_checkpoint(tmp_path / "a.pth").tensors, arrays)
    state["head"] = state.pop("module.scale")
    torch.save(state, tmp_path / "b.pth")
    opened = open_checkpoint(tmp_path / "b.pth")
    assert set(opened.tensors) == set(arrays) - {"scale"}
    assert (opened.prefix, opened.left) == ("module.", ("head",))


@pytest.mark.parametrize("is_zip", [True, False])
def test_torch_with_other_objects_runs_nothing(tmp_path, torch, is_zip):
    others = {"args": argparse.Namespace(lr=1), "best": np.float64(3), "b": Touch(tmp_path / "marker")}
    content = {"a": torch.ones(2), "sets": {1, 2}, "device": torch.device("cpu"), **others}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    assert_equal(open_checkpoint(tmp_path / "a.pth").tensors, {"a": np.ones(2, "float32")})
    assert not (tmp_path / "marker").exists()
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert (tmp_path / "marker").exists()  # the file is what it should be


def test_torch_plain_pickle_runs_nothing(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps(Touch(tmp_path / "marker"), 2))
    fails(tmp_path / "a.pth", "a.pth", "is damaged")
    assert not (tmp_path / "marker").exists()


def test_torch_whole_model(tmp_path, torch):
    torch.save(torch.nn.Linear(2, 3), tmp_path / "a.pth")
    fails(tmp_path / "a.pth", "torch.nn.modules.linear.Linear", "save its `state_dict()`")
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:  # as `torch.jit.save` writes
        archive.writestr("b/constants.pkl", b"x")
    fails(tmp_path / "b.pth", "TorchScript program", "state_dict()")


@pytest.mark.parametrize("content", [{"epoch": 3}, {"model": {"lr": 0.1}}, [1, 2], {}, 7])
def test_torch_without_tensors(tmp_path, torch, content):
    torch.save(content, tmp_path / "a.pth")
    fails(tmp_path / "a.pth", "a.pth", "holds no tensors")


def test_torch_tensors_that_are_not_plain(tmp_path, torch):
    torch.save({"a": torch.ones(2, device="meta")}, tmp_path / "a.pth")
    fails(tmp_path / "a.pth", "has 'a' sparse, quantized or without values")
    torch.save({"a": torch.arange(9, dtype=torch.uint8).view(torch.bits8)}, tmp_path / "a.pth")
    fails(tmp_path / "a.pth", "a.pth", "has 'a' as numbers of a UntypedStorage that NumPy lacks")
    torch.save({"a": torch.ones(1).expand(10**12)}, tmp_path / "a.pth")
    fails(tmp_path / "a.pth", "has 'a' of shape (1000000000000,) with less data")
    negative = torch.complex(torch.rand(3), torch.rand(3)).conj().imag
    assert negative.is_neg()
    torch.save({"a": negative}, tmp_path / "a.pth")
    assert_equal(open_checkpoint(tmp_path / "a.pth").tensors, {"a": negative.resolve_neg().numpy()})


@pytest.mark.parametrize("is_zip", [True, False])
def test_torch_damaged(tmp_path, torch, is_zip):
    torch.save({"a": torch.rand(1000)}, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    whole = (tmp_path / "a.pth").read_bytes()
    for size in (1, 3, 10, 200, len(whole) // 2, len(whole) - 3):
        (tmp_path / "a.pth").write_bytes(whole[:size])
        fails(tmp_path / "a.pth", "a.pth", "is damaged")
    (tmp_path / "a.pth").write_bytes(b"<!doctype html>")
    message = fails(tmp_path / "a.pth", "a.pth", "is damaged")
    assert "weights_only" not in message  # PyTorch's own message advises to run the code


# Folders ------------------------------------------------------------------------------------------


def test_folder(tmp_path, arrays):
    folder = make_folder(tmp_path / "vit", arrays, preprocessor={"image_mean": [0.5]})
    (folder / "pytorch_model.bin").write_bytes(b"not looked at")
    opened = open_checkpoint(folder)
    assert (opened.source, opened.path) == (str(folder), folder / "model.safetensors")
    assert (opened.config, opened.preprocessor) == (CONFIG, {"image_mean": [0.5]})
    assert_equal(opened.tensors, arrays)
    assert read_config(folder) == (CONFIG, {"image_mean": [0.5]})


@pytest.mark.parametrize("name", ["other.safetensors", "other.npz"])
def test_folder_with_one_other_file(tmp_path, arrays, name):
    folder = make_folder(tmp_path / "vit", {}, name=None)
    assert read_config(folder) == (CONFIG, {})  # needs no weights
    fails(folder, "must hold one of model.safetensors, ", "got none")
    np.savez(folder / name, **arrays) if name.endswith(".npz") else save_file(arrays, folder / name)
    opened = open_checkpoint(folder)
    assert (opened.path, opened.preprocessor) == (folder / name, {})
    assert_equal(opened.tensors, arrays)
    for i in range(14):
        (folder / f"more{i:02}.npz").write_bytes(b"x")
    message = fails(folder, "more00.npz, more01.npz", "(15 in all)", "by its own path")
    assert "more09.npz" in message and "more10.npz" not in message


def test_folder_with_a_torch_file(tmp_path, arrays, torch):
    folder = make_folder(tmp_path / "vit", {}, name=None)
    torch.save({name: torch.from_numpy(a) for name, a in arrays.items()}, folder / "pytorch_model.bin")
    (folder / "training_args.bin").write_bytes(b"not looked at")
    assert_equal(open_checkpoint(folder).tensors, arrays)


def test_folder_without_config(tmp_path, arrays):
    folder = make_folder(tmp_path / "vit", arrays)
    (folder / "config.json").unlink()
    fails(folder, "has no config.json", "can be given by its own path")
    with pytest.raises(ValueError, match="has no config.json"):
        read_config(folder)


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "is not JSON"),
        (b"{'a': 1}", "is not JSON"),
        (b"\xff\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'["a"]', "must hold a JSON object, got list"),
        (b"null", "must hold a JSON object, got NoneType"),
    ],
)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_config_that_is_no_object(tmp_path, arrays, name, content, reason):
    folder = make_folder(tmp_path / "vit", arrays)
    (folder / name).write_bytes(content)
    fails(folder, name, reason)
    with pytest.raises(ValueError, match=reason):
        read_config(folder)


def test_shards(tmp_path, arrays):
    make_shards(tmp_path / "vit", arrays)
    opened = open_checkpoint(tmp_path / "vit")
    assert opened.path.name == "model.safetensors.index.json" and opened.config == CONFIG
    assert_equal(opened.tensors, arrays)


def test_shards_relative_to_the_working_folder(tmp_path, arrays, monkeypatch):
    make_shards(tmp_path / "vit", arrays)
    monkeypatch.chdir(tmp_path / "vit")
    assert_equal(open_checkpoint(".").tensors, arrays)


@pytest.mark.parametrize("link", [False, True])
def test_shards_stay_in_their_folder(tmp_path, arrays, link):
    weight_map = make_shards(tmp_path / "vit", arrays)
    save_file(arrays, tmp_path / "outside.safetensors")
    outside = str(tmp_path / "outside.safetensors")
    for part in (
        "../outside.safetensors",
        outside,
        "..\\outside.safetensors",
        "C:a.safetensors",
        3,
        None,
        ["a"],
    ):
        write_index(tmp_path / "vit", weight_map | {"scale": part})
        fails(tmp_path / "vit", "must name plain .safetensors files")
    (tmp_path / "vit/link.safetensors").symlink_to("model-0.safetensors" if link else outside)
    write_index(tmp_path / "vit", {"cls_token": "link.safetensors"})
    if link:  # to a file beside it
        assert_equal(open_checkpoint(tmp_path / "vit").tensors, {"cls_token": arrays["cls_token"]})
    else:
        fails(tmp_path / "vit", "link.safetensors", "link out of its folder")


def test_shards_that_lack_something(tmp_path, arrays):
    weight_map = make_shards(tmp_path / "vit", arrays)
    write_index(tmp_path / "vit", weight_map | {f"x{i:02}": "model-0.safetensors" for i in range(30)})
    message = fails(tmp_path / "vit", "not in their files: x00, x01", "(30 in all)")
    assert "x09" in message and "x10" not in message
    (tmp_path / "vit/model-1.safetensors").unlink()
    fails(tmp_path / "vit", "has no model-1.safetensors")
    for content in ({}, [], "text", None):
        write_index(tmp_path / "vit", content)
        fails(tmp_path / "vit", "index.json", "`weight_map`")


# The hub ------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A folder that plays the hub: hub/owner/name/revision/file; `hub.calls` lists the questions."""
    calls = []

    def download(repository, name, *, revision=None):
        calls.append((repository, name, revision))
        path = tmp_path / "hub" / repository / (revision or "main") / name
        if not path.is_file():
            raise errors.EntryNotFoundError.__new__(errors.EntryNotFoundError, "404")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return calls


def test_hub(tmp_path, arrays, hub):
    make_folder(tmp_path / "hub/a/b-c.d/main", arrays, preprocessor={"size": 7})
    opened = open_checkpoint("hf:a/b-c.d")
    assert (opened.source, opened.config, opened.preprocessor) == ("hf:a/b-c.d", CONFIG, {"size": 7})
    assert_equal(opened.tensors, arrays)
    assert [name for _, name, _ in hub] == ["config.json", "preprocessor_config.json", "model.safetensors"]
    hub.clear()
    assert read_config("hf:a/b-c.d") == (CONFIG, {"size": 7})
    assert [name for _, name, _ in hub] == ["config.json", "preprocessor_config.json"]


def test_hub_revision_and_shards(tmp_path, arrays, hub):
    make_shards(tmp_path / "hub/a/b/refs/pr/1", arrays)
    opened = open_checkpoint("hf:a/b@refs/pr/1")
    assert_equal(opened.tensors, arrays)
    assert opened.preprocessor == {} and {revision for *_, revision in hub} == {"refs/pr/1"}


def test_hub_without_weights_or_config(tmp_path, hub):
    make_folder(tmp_path / "hub/a/b/main", {}, name=None)
    fails("hf:a/b", "no weights", "pytorch_model.bin", "hf:a/b", "no such file")
    (tmp_path / "hub/a/b/main/config.json").unlink()
    fails("hf:a/b", "config.json of hf:a/b", "no such file")


@pytest.mark.parametrize(
    "name",
    ["hf:", "hf:a", "hf:a/b/c", "hf://a/b", "hf:a/b@", "hf:a/b@x y", "hf:../b", "hf:a/b@../x", "hf:a/é"],
)
def test_malformed_hub_names(hub, name):
    fails(name, repr(name), "hf:owner/name@revision")
    with pytest.raises(ValueError, match="hf:owner/name"):
        read_config(name)
    assert not hub


@pytest.mark.parametrize(
    "kind, reason",
    [
        (errors.RepositoryNotFoundError, "no such repository"),
        (errors.GatedRepoError, "gated: accept its terms on huggingface.co/a/b"),
        (errors.RevisionNotFoundError, "no revision 'v1'"),
        (errors.HfHubHTTPError, "cannot be downloaded: what the library says"),
        (errors.HFValidationError, "cannot be downloaded: what the library says"),
        (OSError, "cannot be downloaded: what the library says"),
        (RuntimeError, "cannot be downloaded: what the library says"),
    ],
)
def test_hub_errors(monkeypatch, kind, reason):
    def download(*args, **kwargs):
        error = kind.__new__(kind)  # made by hand, as the library makes it of an answer of the hub
        error.args = ("what the\nlibrary says",)
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    fails("hf:a/b@v1", "config.json of hf:a/b@v1", reason)


def test_hub_without_network(monkeypatch):
    def download(*args, **kwargs):
        raise errors.LocalEntryNotFoundError("not in the cache") from OSError("name resolution failed")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    fails("hf:a/b", "not in the cache", "the hub cannot be reached (name resolution failed)")


@pytest.fixture
def offline_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_hub_offline_with_an_empty_cache(offline_cache):
    fails("hf:a/b", "config.json of hf:a/b", "not in the cache", "HF_HUB_OFFLINE is set")


@pytest.mark.parametrize("sharded", [False, True])
def test_hub_offline_with_a_cache(offline_cache, arrays, sharded, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = offline_cache / "models--a--b"
    snapshot = repository / "snapshots" / commit
    if sharded:
        make_shards(snapshot, arrays)
    else:
        make_folder(snapshot, arrays)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    (repository / "blobs").mkdir()
    for i, path in enumerate(sorted(snapshot.iterdir())):  # links, as the library makes them
        path.rename(repository / "blobs" / str(i))
        path.symlink_to(f"../../blobs/{i}")
    monkeypatch.chdir(snapshot)
    for source in ("hf:a/b", f"hf:a/b@{commit}", snapshot, "."):
        opened = open_checkpoint(source)
        assert (opened.config, opened.preprocessor) == (CONFIG, {})
        assert_equal(opened.tensors, arrays)
    fails("hf:a/b@v2", "hf:a/b@v2", "HF_HUB_OFFLINE is set")
