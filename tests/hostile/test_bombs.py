"""Files that claim more than they hold: refused before memory or time is spent on the claim."""

import bz2
import gzip
import json
import lzma
import struct
import tarfile
import time
import tracemalloc
import zipfile
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.torch_files import op, op_call, op_dict, op_global, op_module, op_storage, op_tensor, write_torch

import vit_tf
from vit_tf import build_vit, zips
from vit_tf.data import load_cifar
from vit_tf.hub.sources import open_checkpoint
from vit_tf.weights import open_weights, resample

MANY = 1 << 28  # bytes


@contextmanager
def cheaply(most_bytes=24 << 20, most_seconds=5):
    """A scope that may take neither much memory nor much time."""
    start = time.perf_counter()
    tracemalloc.start()
    try:
        yield
    finally:  # after an error, too
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most_bytes and time.perf_counter() - start < most_seconds


def refused(function, source, *messages):
    """The call is one short ValueError with all the messages, and costs little."""
    with pytest.raises(ValueError) as caught, cheaply():
        function(source)
    for message in messages:
        assert message in str(caught.value), str(caught.value)
    assert len(str(caught.value)) < 1000


def npy(shape, data, descr="|u1"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}}}\n".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data


def write_claim(path, names, content, compression, claimed):
    """A zip of members, of which the first claims `claimed` bytes, whatever it unpacks to."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(names[0], content)
        archive.infolist()[0].file_size = claimed
        for name in names[1:]:
            archive.writestr(name, npy((8,), bytes(8)))
    return path


# ---------------------------------------------------------------------------------------------------
# Zips and tars
# ---------------------------------------------------------------------------------------------------
NPZ_READERS = {
    "weights": (open_checkpoint, ["a.npy"]),
    "cifar10": (load_cifar, [f"{name}.npy" for name in ("x_train", "y_train", "x_test", "y_test")]),
}


@pytest.mark.parametrize("reader", NPZ_READERS)
@pytest.mark.parametrize("method", ["LZMA", "BZIP2"])
def test_npz_packed_by_what_python_unpacks_at_once(tmp_path, reader, method):
    function, names = NPZ_READERS[reader]
    content = npy((8,), bytes(16 << 20))
    path = write_claim(tmp_path / "a.npz", names, content, getattr(zipfile, f"ZIP_{method}"), 200)
    refused(function, path, "members packed by", "expected deflate")


@pytest.mark.parametrize("reader", NPZ_READERS)
def test_npz_that_unpacks_to_more_than_it_says(tmp_path, reader):
    function, names = NPZ_READERS[reader]
    content = npy((8,), bytes(MANY // 8))
    path = write_claim(tmp_path / "a.npz", names, content, zipfile.ZIP_DEFLATED, len(npy((8,), bytes(8))))
    refused(function, path, "damaged")


@pytest.mark.parametrize("reader", NPZ_READERS)
def test_npy_header_of_any_length(tmp_path, reader):
    function, names = NPZ_READERS[reader]
    content = b"\x93NUMPY\2\0" + struct.pack("<I", MANY // 8) + b" " * (MANY // 8)
    path = write_claim(tmp_path / "a.npz", names, content, zipfile.ZIP_DEFLATED, len(content))
    refused(function, path, "reading array header")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip", "a.npz"])
def test_cifar10_archives_that_unpack_to_much_more(tmp_path, monkeypatch, name):
    monkeypatch.setattr(zips, "LARGE", 1 << 20)
    path = tmp_path / name
    if name == "a.tar.gz":
        path.write_bytes(gzip.compress(bytes(16 << 20)))
        refused(load_cifar, path, "unpacks to more than")
        return
    names = NPZ_READERS["cifar10"][1] if name == "a.npz" else [f"data_batch_{i}" for i in range(1, 6)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in names:
            archive.writestr(member, bytes(4 << 20))
    refused(load_cifar, path, "claims to unpack to")


@pytest.mark.parametrize("pack", [lzma.compress, bz2.compress])
def test_cifar10_zip_of_other_methods(tmp_path, pack):
    method = zipfile.ZIP_LZMA if pack is lzma.compress else zipfile.ZIP_BZIP2
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("data_batch_1", bytes(8 << 20))
    refused(load_cifar, tmp_path / "a.zip", "members packed by")


def test_cifar10_tar_with_holes(tmp_path):
    info = tarfile.TarInfo("cifar/data_batch_1")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (32 << 20)  # its real size; it holds nothing
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(1024))
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert archive.getmembers()[0].size == 32 << 20
    refused(load_cifar, tmp_path / "a.tar", "it has no CIFAR batches")


def test_cifar10_pickle_that_names_a_text_often(tmp_path):
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}").write_bytes(b"")
    encode = b"c_codecs\nencode\nq\1" + op("x" * 100_000) + b"q\2"
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02(" + encode + b"h\1h\2N\x86R" * 1000 + b"l.")
    (tmp_path / "test_batch").write_bytes(b"")
    refused(load_cifar, tmp_path, "data_batch_1 is not a CIFAR-10 batch: it lacks data")


# ---------------------------------------------------------------------------------------------------
# PyTorch's files
# ---------------------------------------------------------------------------------------------------
LONG = "x" * 100_000
TORCH_BOMBS = {
    "bytearray": op_dict(a=op_call("builtins.bytearray", op(MANY))),
    "tensor of any size": op_dict(a=op_call("torch.LazyTensor", op(100_000), op(100_000))),
    "storage": op_dict(a=op_call("torch.storage.UntypedStorage", op(MANY))),
    "memo": b"}r\xff\xff\xff\x7f",
    "more than the storage": op_dict(a=op_tensor((MANY, 3))),
    "a storage that lies": op_dict(a=op_tensor((MANY,), (1,), storage=op_storage(size=MANY))),
    "strides of zero": op_dict(a=op_tensor((MANY,), (0,))),
    "behind the storage": op_dict(a=op_tensor((1,), (1,), offset=MANY)),
    "strides beyond": op_dict(a=op_tensor((2,), (MANY,))),
    "negative strides": op_dict(a=op_tensor((2, 3), (-3, 1))),
    "negative shape": op_dict(a=op_tensor((-2, -3))),
    "no values": op_dict(a=op_tensor((MANY, MANY), (0, 0))),
    "copies of a text": b"c_codecs\nencode\nq\1" + op(LONG) + b"q\2" + b"h\1h\2N\x86R0" * 5000 + b"0",
    "copies of a dictionary": b"ccollections\nOrderedDict\nq\1}("
    + b"".join(op(i) + b"N" for i in range(5000))
    + b"uq\2("
    + b"h\1h\2\x85R" * 5000
    + b"l",
    "copies of a shape": b"]("
    + b"K\1" * 50_000
    + b"eq\1"
    + op_dict(
        **{
            f"a{i}": op_call("torch._utils._rebuild_tensor_v2", op_storage(), op(0), b"h\1", b"h\1")
            for i in range(50)
        }
    ),
    "copies of attributes": b"}("
    + b"".join(op(str(i)) + b"N" for i in range(5000))
    + b"uq\1"
    + op_dict(**{f"a{i}": op_call("collections.OrderedDict") + b"h\1b" for i in range(500)}),
    "copies of a name": op(LONG)
    + b"q\1"
    + op_tensor()
    + b"q\2"
    + op_dict(**{f"a{i}": b"}h\1h\2s" for i in range(5000)}),
    "tuples of tuples": b")q\1" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(1, 50)) + b"}h2Ns",
    "copies of a module": op_dict(**{"x" * 1000: b"N", **{str(i): b"N" for i in range(5000)}})
    + b"q\1"
    + op_module(**{f"a{i}": op_global("__torch__.A") + b")\x81h\1b" for i in range(5000)}),
    "modules in modules": op_module(a=op_tensor())
    + b"".join(b"q%c" % i + op_module(**{"a" * 50: b"h%c" % i, "b" * 50: b"h%c" % i}) for i in range(1, 99)),
    "a module in itself": op_global("__torch__.A") + b")\x81q\1" + op_dict(a=b"h\1", b=b"h\1") + b"b",
    "modules as names": b"}" + op_module() + b"Ns",
    "classes": b"".join(op_global(f"a.b{i}") + b"0" for i in range(20_000)) + b"N",
}


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("name", TORCH_BOMBS)
def test_torch_bombs(tmp_path, name):
    refused(open_checkpoint, write_torch(tmp_path / "a.pth", TORCH_BOMBS[name]), "a.pth")


def test_torch_bombs_are_what_they_should_be(tmp_path):
    """The same pickle with honest numbers loads."""
    good = op_dict(a=op_tensor(), b=op_call("builtins.bytearray", op(9)))
    data = np.arange(6, dtype="<f4").tobytes()
    tensors = open_checkpoint(write_torch(tmp_path / "a.pth", good, {"0": data})).tensors
    np.testing.assert_array_equal(tensors["a"].load(), np.arange(6).reshape(2, 3))
    assert list(tensors) == ["a"]


def test_torch_storage_under_many_names(tmp_path):
    size = 100_000
    tensor = op_tensor((size,), (1,), storage=op_storage(size=size))
    content = op_dict(**{f"a{i}": tensor for i in range(100)})
    refused(open_checkpoint, write_torch(tmp_path / "a.pth", content, {"0": bytes(4 * size)}), "save clones")


def test_torch_file_that_is_compressed(tmp_path):
    path = write_torch(
        tmp_path / "a.pth", op_dict(a=op_tensor()), {"0": bytes(MANY // 8)}, zipfile.ZIP_DEFLATED
    )
    refused(open_checkpoint, path, "is compressed")


# ---------------------------------------------------------------------------------------------------
# Shapes without values
# ---------------------------------------------------------------------------------------------------
def test_tensors_of_a_billion_times_nothing(tmp_path):
    names = ("LayerNorm_0/scale", "MlpBlock_3/Dense_0/kernel")
    stacked = {f"Transformer/encoderblock/{name}": np.zeros((10**9, 0), "float32") for name in names}
    np.savez(tmp_path / "a.npz", **{"embedding/kernel": np.zeros((2, 2, 3, 4), "float32")}, **stacked)
    refused(open_weights, tmp_path / "a.npz", "stacked blocks")


@pytest.mark.slow
def test_positions_of_a_billion_times_nothing(folder):
    arrays = load_file(folder / "model.safetensors")
    arrays["pos_embed"] = np.zeros((1, 10**8, 0), "float32")
    save_file(arrays, folder / "model.safetensors")
    refused(lambda path: build_vit(weights=path), folder, "pos_embed")


def test_a_patch_kernel_of_many_pixels_is_resampled_by_its_sides():
    kernel = np.random.default_rng(0).normal(size=(256, 256, 1, 1))
    with cheaply():
        resample.resample_patch_kernel(kernel, (16, 16))


# ---------------------------------------------------------------------------------------------------
# config.json
# ---------------------------------------------------------------------------------------------------
SIZES = dict(
    image_size=32, patch_size=16, hidden_dim=24, num_layers=2, num_heads=3, mlp_dim=32, num_classes=5
)
OWN = {"vit_tf": {"variant": "vit_base_patch16_224", "hyperparameters": SIZES}}
TIMM = {
    "architecture": "vit_base_patch16_224",
    "model_args": dict(img_size=32, embed_dim=24, depth=2, num_heads=3, mlp_ratio=4 / 3),
}
HUGGING_FACE = {
    "model_type": "vit",
    **dict(image_size=32, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32),
}
BILLION = 10**9
CLAIMS = [
    *((OWN, {"num_layers": n}) for n in (3, 1000, BILLION)),
    (OWN, {"hidden_dim": 3 * BILLION // 1000}),
    (OWN, {"mlp_dim": BILLION}),
    (OWN, {"head_dim": BILLION}),
    (OWN, {"num_registers": BILLION}),
    (OWN, {"in_channels": BILLION}),
    (OWN, {"image_size": 16 * 2**20}),
    (OWN, {"image_size": 1600, "patch_size": 1}),
    (OWN, {"image_size": [16, 16 * 2**20]}),
    (OWN, {"image_size": 2**20, "patch_size": 2**20}),
    (TIMM, {"depth": BILLION}),
    (TIMM, {"embed_dim": 3_000_000}),
    (TIMM, {"mlp_ratio": 4e7}),
    (TIMM, {"img_size": 16 * 2**20}),
    (TIMM, {"reg_tokens": BILLION}),
    (HUGGING_FACE, {"num_hidden_layers": BILLION}),
    (HUGGING_FACE, {"hidden_size": 3_000_000}),
    (HUGGING_FACE, {"intermediate_size": BILLION}),
    (HUGGING_FACE, {"image_size": 16 * 2**20}),
    (HUGGING_FACE, {"patch_size": 2**20, "image_size": 2**20}),
]


@pytest.fixture
def folder(tmp_path):
    model = build_vit("vit_b16", **SIZES)
    vit_tf.save_weights(model, tmp_path / "model.safetensors")
    write_config(tmp_path, OWN)
    return tmp_path


def write_config(folder, config, **changes):
    config = json.loads(json.dumps(config))
    if "vit_tf" in config:
        config["vit_tf"]["hyperparameters"].update(changes)
    else:
        config.get("model_args", config).update(changes)
    (folder / "config.json").write_text(json.dumps(config))
    return config


@pytest.mark.slow
def test_configs_that_claim_what_is_there(folder):
    assert build_vit(weights=folder).output_shape == (None, 5)
    write_config(folder, TIMM)
    assert build_vit(weights=folder).output_shape == (None, 5)
    write_config(folder, HUGGING_FACE)
    assert open_weights(folder).describe()[1]["num_layers"] == 2
    write_config(folder, OWN, image_size=256)  # more patches than the file has, and not many
    assert build_vit(weights=folder).input_shape == (None, 256, 256, 3)
    write_config(folder, OWN)
    assert build_vit(weights=folder, image_size=64, num_classes=9).output_shape == (None, 9)


@pytest.mark.slow
def test_configs_that_claim_a_giant(folder):
    for base, changes in CLAIMS:
        write_config(folder, base, **changes)
        refused(lambda path: build_vit(weights=path), folder, "config.json describes", "the weights have")


def test_a_head_that_is_wider_than_the_model(tmp_path):
    shapes = {"patch_embed.proj.weight": (24, 3, 16, 16), "head.weight": (10**6, 1)}
    path = tmp_path / "a.safetensors"
    save_file({name: np.ones(shape, "float32") for name, shape in shapes.items()}, path)
    refused(lambda path: build_vit("vit_b16", weights=path), path, "a head of 1 features")


def test_pictures_of_a_giant_size(tmp_path):
    for config in (
        {"pretrained_cfg": {"input_size": [3, 10**6, 10**6]}},
        {"model_type": "vit", "image_size": 10**6},
    ):
        refused(vit_tf.get_preprocessing, config, "1,000,000 x 1,000,000 pixels")


# ---------------------------------------------------------------------------------------------------
# HDF5
# ---------------------------------------------------------------------------------------------------
def test_keras_files_that_lead_elsewhere_or_are_packed(tmp_path):
    model = build_vit("vit_b16", **SIZES)
    model.save_weights(tmp_path / "a.weights.h5")
    whole = (tmp_path / "a.weights.h5").read_bytes()
    for kind in ("chunks", "external", "link"):
        (tmp_path / "a.weights.h5").write_bytes(whole)
        with h5py.File(tmp_path / "a.weights.h5", "r+") as file:
            group = file["layers/dense/vars"]
            shape = group["0"].shape
            del group["0"]
            if kind == "chunks":
                group.create_dataset("0", shape, "f4", compression="gzip")
            elif kind == "external":
                group.create_dataset("0", shape, "f4", external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)])
            else:
                group["0"] = h5py.ExternalLink("/dev/zero", "0")
        refused(
            lambda path: vit_tf.load_weights(model, path),
            tmp_path / "a.weights.h5",
            {"chunks": "compressed in chunks"}.get(kind, "another file"),
        )
