"""The ViT in what people's checkpoints wrap it in: keys, prefixes, foreign tensors beside it, endings."""

import argparse
import json
from itertools import pairwise

import numpy as np
import pytest
from conftest import randomize
from safetensors.numpy import load_file, save_file

from vit_tf import build_vit, load_weights, save_weights
from vit_tf.classifier import load
from vit_tf.hub.lazy_tensor import Refused
from vit_tf.hub.unwrap import flatten, unwrap
from vit_tf.weights import open_weights

SIZES = dict(image_size=16, patch_size=8, hidden_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
PREFIXES = ("model.", "backbone.", "encoder.", "net.", "vit.", "base_model.model.", "timm_model.")
WRAPPED = (*PREFIXES, "_orig_mod.", "module.", "pretrained.model.")
KEYS = ("teacher", "student", "ema", "net", "weights", "model", "state_dict", "model_state_dict", "encoder")


def is_array(value):
    return isinstance(value, np.ndarray)


@pytest.fixture(scope="module")
def state():
    """Names and arrays of a small ViT."""
    rng = np.random.default_rng(0)
    names = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "head.weight")
    return {name: rng.normal(size=(2, 3)).astype("float32") for name in names}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """The same of a model that can be built."""
    path = tmp_path_factory.mktemp("unwrap") / "model.safetensors"
    return load_file(save_weights(randomize(build_vit("vit_b16", num_classes=3, **SIZES)), path))


def prefixed(state, prefix):
    return {prefix + name: x for name, x in state.items()}


def assert_found(content, state, prefix, left=()):
    found = unwrap(flatten(content, is_array))
    assert (found.prefix, found.left) == (prefix, tuple(left))
    assert found.tensors.keys() == state.keys()
    assert all(found.tensors[name] is x for name, x in state.items())


@pytest.mark.parametrize("prefix", [*WRAPPED, *map("".join, pairwise(WRAPPED)), "".join(WRAPPED)])
def test_prefixes_in_any_order_and_depth(state, prefix):
    assert_found(prefixed(state, prefix), state, prefix)


@pytest.mark.parametrize("key", KEYS)
def test_keys_and_what_is_beside_them(state, key):
    content = {"epoch": 3, "args": argparse.Namespace(a=1), "best": np.float64(2), "n_averaged": np.ones(1)}
    content["optimizer"] = {"state": {0: {"exp_avg": np.ones(2)}}, "param_groups": [{"params": [0]}]}
    left = ("n_averaged", "optimizer.state.0.exp_avg")
    assert_found({**content, key: state}, state, f"{key}.", left)
    inner = {"model": {"state_dict": prefixed(state, "module.")}}
    assert_found({**content, key: inner}, state, f"{key}.model.state_dict.module.", left)


def test_wrappers_within_names(state):
    wrapped = {name.replace("blocks.0.", "blocks.0._orig_mod."): x for name, x in state.items()}
    assert_found(prefixed(wrapped, "_fsdp_wrapped_module."), state, "_fsdp_wrapped_module.")
    with pytest.raises(Refused, match="with and without a wrapper's name"):
        unwrap({**state, **wrapped})


@pytest.mark.parametrize(
    "first, second",
    [
        ("state_dict_ema", "state_dict"),
        ("model_ema", "model"),
        ("encoder", "target_encoder"),
        ("teacher", "student"),
    ],
)
def test_of_two_the_one_that_is_evaluated(state, first, second):
    other = {name: x + 1 for name, x in state.items()}
    assert_found({second: other, first: state}, state, f"{first}.", [f"{second}.{name}" for name in state])
    inner = {"model": {f"{second}.backbone.{name}": x for name, x in other.items()}}
    inner["model"] |= prefixed(state, f"{first}.backbone.")
    left = [f"model.{second}.backbone.{name}" for name in state]
    assert_found(inner, state, f"model.{first}.backbone.", left)


def test_several_are_an_error_that_lists_them_and_can_be_chosen_from(state, tmp_path):
    content = prefixed(state, "image.backbone.") | prefixed(state, "other.backbone.")
    with pytest.raises(Refused, match="holds 2 ViTs.*'image.backbone.', 'other.backbone.'.*prefix="):
        unwrap(content)
    assert unwrap(content, "other.backbone.").prefix == "other.backbone."
    with pytest.raises(Refused, match="no ViT under the prefix 'other.', but under 'image.backbone.'"):
        unwrap(content, "other.")
    save_file(content, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="two.safetensors' holds 2 ViTs"):
        open_weights(tmp_path / "two.safetensors")
    chosen = open_weights(tmp_path / "two.safetensors", prefix="image.backbone.")
    assert chosen.tensors.keys() == state.keys() and len(chosen.checkpoint.left) == len(state)


def test_without_a_patch_embedding_names_stay(state):
    content = {"model": {"layer.weight": np.ones(2)}, "other": np.ones(1)}
    found = unwrap(flatten(content, is_array))
    assert (set(found.tensors), found.prefix, found.left) == ({"model.layer.weight", "other"}, "", ())


@pytest.mark.slow
def test_nesting_is_bounded(state):
    deep = state
    for _ in range(12):
        deep = {"a": deep, "b": deep}
    assert flatten(deep, is_array) == {}
    wide = state
    for _ in range(4):
        wide = dict.fromkeys(range(100), wide)
    with pytest.raises(Refused, match="over 1,000,000 items"):
        flatten(wide, is_array)
    with pytest.raises(Refused, match="has the tensor 'a.b' twice"):
        flatten({"a": {"b": np.ones(1)}, "a.b": np.ones(1)}, is_array)


@pytest.mark.parametrize("prefix", ["", "model.", "_orig_mod.module.timm_model."])
def test_a_model_and_its_report(arrays, prefix, tmp_path):
    beside = {"n_averaged": np.ones(1, "int64"), "criterion.weight": np.ones(3, "float32")}
    within = {"mask_token": np.ones((1, 16), "float32"), "decoder.0.bias": np.ones(3, "float32")}
    save_file({**prefixed({**arrays, **within}, prefix), **beside}, tmp_path / "a.safetensors")
    model = build_vit("vit_b16", num_classes=3, **SIZES)
    report = load_weights(model, tmp_path / "a.safetensors")
    for name, array in load_file(save_weights(model, tmp_path / "b.safetensors")).items():
        np.testing.assert_array_equal(array, arrays[name])
    names = report.unused + report.left
    assert sorted(names) == sorted([*beside, *within]) and report.prefix == prefix
    assert all(name in str(report) for name in names) and repr(prefix) in f"{report}''"
    save_file({"rope.freqs": np.ones(2, "float32"), **arrays}, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="1 unexpected: rope.freqs"):  # what may matter is never left
        load_weights(model, tmp_path / "c.safetensors")


def test_a_head_beside_hugging_face_s_model(tmp_path):
    names = ("vit.embeddings.patch_embeddings.projection.weight", "vit.layernorm.weight", "classifier.weight")
    state = dict.fromkeys(names, np.ones((2, 2)))
    assert_found(prefixed(state, "module.model."), state, "module.model.")


def test_files_with_parts_by_the_path_of_their_index(arrays, tmp_path):
    wrapped = prefixed(arrays, "model.")
    names = sorted(wrapped)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, inside in parts.items():
        save_file({name: wrapped[name] for name in inside}, tmp_path / part)
    weight_map = {name: part for part, inside in parts.items() for name in inside}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    weights = open_weights(index)
    assert weights.tensors.keys() == arrays.keys() and weights.checkpoint.prefix == "model."


def test_timm_wrapper_folders(arrays, tmp_path):
    """What transformers' TimmWrapperForImageClassification.save_pretrained writes."""
    save_file(prefixed(arrays, "timm_model."), tmp_path / "model.safetensors")
    config = dict(architecture="vit_base_patch16_224", model_type="timm_wrapper", num_classes=3)
    arguments = dict(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.5)
    config |= dict(label_names=["cat", "dog", "eel"], model_args=arguments, do_pooling=True)
    config["pretrained_cfg"] = dict(input_size=[3, 16, 16], mean=[0.5] * 3, std=[0.5] * 3)
    (tmp_path / "config.json").write_text(json.dumps(config))
    classifier = load(tmp_path)
    assert list(classifier.labels) == ["cat", "dog", "eel"] and classifier.model.input_shape[1] == 16


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth.tar", ".pth", ".bin"])
def test_endings_and_harmless_objects(arrays, ending, tmp_path):
    torch = pytest.importorskip("torch")
    state = {f"model.{name}": torch.tensor(x) for name, x in arrays.items()}
    content = {"state_dict": state, "args": argparse.Namespace(lr=0.1), "acc": np.float64(0.5)}
    content |= {"n": np.int64(3), "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}
    torch.save(content, tmp_path / f"a{ending}")
    weights = open_weights(tmp_path / f"a{ending}")
    assert weights.checkpoint.prefix == "state_dict.model."
    for name, array in arrays.items():
        np.testing.assert_array_equal(weights.tensors[name].load(), array)
