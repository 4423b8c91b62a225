import argparse
import pickle

import numpy as np
import pytest
from support.tensors import Touch, assert_equal, fails
from support.torch_files import op, op_global, op_module, op_tensor, write_torch

from vit_tf.hub.sources import open_checkpoint


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


@pytest.mark.parametrize("kind", ["script", "trace"])
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript(tmp_path, torch, kind):
    """All tensors of a program, also of half precision, and buffers that are not in its state_dict."""
    layers = [torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Sequential(torch.nn.Linear(4, 2))]
    module = torch.nn.Sequential(*layers).eval()
    module[1].register_buffer("extra", torch.ones(2, 3).T, persistent=False)
    module[2].register_parameter("small", torch.nn.Parameter(torch.rand(2, dtype=torch.float16)))
    program = torch.jit.script(module) if kind == "script" else torch.jit.trace(module, torch.rand(5, 3))
    program.save(tmp_path / "a.pt")
    expected = {name: t.numpy() for name, t in program.state_dict().items()} | {
        "1.extra": np.ones((3, 2), "f4")
    }
    expected["2.small"] = expected["2.small"].astype("float32")
    assert_equal(open_checkpoint(tmp_path / "a.pt").tensors, expected)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_without_names(tmp_path, torch):
    module = torch.jit.freeze(torch.jit.script(torch.nn.Linear(2, 3).eval()))
    module.save(tmp_path / "a.pt")
    fails(tmp_path / "a.pt", "a.pt", "holds no tensors")


def test_torchscript_written_by_hand(tmp_path):
    data = np.arange(6, dtype="<f4").tobytes()
    block = op_module("__torch__.nn.___torch_mangle_3.Block", weight=op_tensor(), training=op(True))
    program = op_module(blocks=op_module("__torch__.nn.List", **{"0": block}), name=op("ViT"))
    write_torch(tmp_path / "a.pt", program, {"0": data})
    expected = {"blocks.0.weight": np.arange(6, dtype="float32").reshape(2, 3)}
    assert_equal(open_checkpoint(tmp_path / "a.pt").tensors, expected)
    for damaged in (op_global("__torch__.Model") + b")\x81K\1b", program + b"K\1K\2s"):
        fails(write_torch(tmp_path / "a.pt", damaged, {"0": data}), "a.pt", "is damaged")


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
