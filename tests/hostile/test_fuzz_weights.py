"""Readers of weights and configurations over damaged files: each returns, or raises one short ValueError."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from support.cases import random_weights
from support.damage import (
    BUDGET,
    BYTE_EDITS,
    EDITS,
    SIZES,
    WEIRD,
    damaged,
    damaged_bytes,
    survives,
    write_json,
)
from support.paths import FIXTURES
from support.torch_files import op_dict, op_module, op_storage, op_tensor, write_legacy, write_torch

from vit_tf import build_vit, classifier, get_preprocessing, load_weights
from vit_tf.data import load_cifar
from vit_tf.hub.sources import open_checkpoint
from vit_tf.labels import labels_from_config, problem_type_from_config, thresholds_from_config
from vit_tf.weights import open_weights

CONFIGS = {
    "own": {
        "vit_tf": {"variant": "vit_base_patch16_224", "hyperparameters": SIZES},
        "label_names": list("abcde"),
        "problem_type": "multi_label_classification",
        "thresholds": [0.5, 0.25, 0.5, 0.5, 0.5],
        "pretrained_cfg": {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0},
    },
    "timm": {
        "architecture": "vit_base_patch16_224",
        "model_args": dict(img_size=32, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2, init_values=None),
        "pretrained_cfg": {"input_size": [3, 32, 32], "crop_mode": "center", "label_names": list("abcde")},
    },
    "huggingface": {
        "model_type": "dinov2",
        "id2label": {str(i): letter for i, letter in enumerate("abcde")},
        **dict(image_size=32, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=2),
        **dict(patch_size=16, architectures=["Dinov2ForImageClassification"], hidden_act="gelu"),
    },
    "open_clip": {
        "model_cfg": {
            "embed_dim": 5,
            "quick_gelu": True,
            "vision_cfg": dict(layers=2, width=24, head_width=8, patch_size=16, image_size=32, mlp_ratio=2.0),
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"},
    },
}
PREPROCESSOR = {
    "size": {"height": 32, "width": 32},
    "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    **dict(do_resize=True, do_center_crop=False, do_normalize=True, resample=3, rescale_factor=1 / 255),
}


SHAPES = st.sampled_from([(), (0,), (1,), (5,), (24,), (1, 0, 24), (0, 0), (24, 5), (1,) * 6, (2, 3, 16, 16)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model's weights as .safetensors, .npz and .weights.h5."""
    folder = tmp_path_factory.mktemp("model")
    build_vit("vit_b16", **SIZES).save_weights(folder / "model.weights.h5")
    classifier.save(folder, build_vit("vit_b16", **SIZES), "vit_base_patch16_224", SIZES, None, list("abcde"))
    return folder


@pytest.fixture(scope="module")
def model():
    return build_vit("vit_b16", **SIZES)


def read_everything(folder):
    weights = open_weights(folder)
    weights.describe()
    config = weights.checkpoint.config
    labels_from_config(config), problem_type_from_config(config), thresholds_from_config(config, 5)
    get_preprocessing(folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_config(folder, name):
    @BUDGET
    @given(EDITS)
    def check(edits):
        write_json(path, damaged(CONFIGS[name], edits))
        survives(read_everything, folder)

    path = folder / ("open_clip_config.json" if name == "open_clip" else "config.json")
    (folder / "config.json").unlink(missing_ok=True)
    write_json(path, CONFIGS[name])
    if name == "own":
        read_everything(folder)
    check()


@pytest.mark.slow
def test_preprocessor(folder):
    @BUDGET
    @given(EDITS)
    def check(edits):
        write_json(folder / "preprocessor_config.json", damaged(PREPROCESSOR, edits))
        survives(get_preprocessing, folder)

    write_json(folder / "config.json", {"model_type": "vit"})
    check()
    (folder / "preprocessor_config.json").unlink()


def load_all(path):
    for tensor in open_checkpoint(path).tensors.values():
        assert tensor.load().shape == tensor.shape


def test_safetensors(folder, tmp_path):
    whole = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])

    @BUDGET
    @given(EDITS, BYTE_EDITS, st.booleans())
    def check(edits, byte_edits, by_bytes):
        text = json.dumps(damaged(header, edits)).encode()
        content = len(text).to_bytes(8, "little") + text + whole[8 + size :]
        (tmp_path / "a.safetensors").write_bytes(damaged_bytes(whole, byte_edits) if by_bytes else content)
        survives(load_all, tmp_path / "a.safetensors")

    check()


def test_shards(folder, tmp_path):
    (tmp_path / "a.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    write_json(tmp_path / "config.json", CONFIGS["own"])
    index = {"weight_map": {"cls_token": "a.safetensors", "pos_embed": "a.safetensors"}, "metadata": {}}

    @BUDGET
    @given(EDITS)
    def check(edits):
        write_json(tmp_path / "model.safetensors.index.json", damaged(index, edits))
        survives(load_all, tmp_path)

    check()


def test_presets(folder, tmp_path):
    whole = (folder / "model.weights.h5").read_bytes()
    config = {"registered_name": "keras_hub>ViTBackbone", "class_name": "ViTBackbone", "config": SIZES}
    write_json(tmp_path / "config.json", config)

    @BUDGET
    @given(EDITS, BYTE_EDITS)
    def check(edits, byte_edits):
        write_json(tmp_path / "config.json", damaged(config, edits))
        (tmp_path / "model.weights.h5").write_bytes(damaged_bytes(whole, byte_edits))
        survives(load_all, tmp_path)

    check()


def npy_member(shape, descr, is_fortran, data):
    text = f"{{'descr': {descr!r}, 'fortran_order': {is_fortran!r}, 'shape': {shape!r}}}\n"
    text = text.encode("utf-8", "replace")
    return b"\x93NUMPY\2\0" + len(text).to_bytes(4, "little") + text + data


@pytest.mark.parametrize("reader", ["weights", "cifar10"])
def test_npz(tmp_path, reader):
    path = tmp_path / "a.npz"
    names = ["x_train", "y_train", "x_test", "y_test"]
    data = bytes(2 * 4 * 4 * 3)

    @BUDGET
    @given(st.lists(WEIRD, max_size=4), WEIRD, WEIRD, BYTE_EDITS, st.integers(0, 7))
    def check(shape, descr, order, edits, choice):
        shape = tuple(shape) if choice & 1 else (2, 4, 4, 3)
        descr = descr if choice & 2 else "|u1"
        member = npy_member(shape, descr, order if choice & 4 else False, data)
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(f"{name}.npy", member)
        if not choice & 3:
            path.write_bytes(damaged_bytes(path.read_bytes(), edits))
        survives(load_all if reader == "weights" else load_cifar, path)

    check()


@pytest.mark.parametrize("write", [write_torch, write_legacy])
def test_torch(tmp_path, write):
    path = tmp_path / "a.pth"

    @BUDGET
    @given(st.tuples(*[WEIRD] * 6), BYTE_EDITS, st.integers(0, 255))
    def check(weird, edits, choice):
        def pick(i, value):
            return weird[i] if choice & 1 << i else value

        storage = op_storage(pick(0, "0"), pick(1, 6), "LongStorage" if choice & 64 else "FloatStorage")
        tensor = op_tensor(pick(2, (2, 3)), pick(3, (3, 1)), pick(4, 0), storage)
        content = op_module(a=op_module(b=tensor)) if choice & 128 else op_dict(a=tensor)
        if choice & 32:
            content = damaged_bytes(content, edits)
        write(path, content)
        if choice == 0:
            path.write_bytes(damaged_bytes(path.read_bytes(), edits))
        survives(load_all, path)

    check()
    assert list(open_checkpoint(write(path, op_dict(a=op_tensor()))).tensors) == ["a"]


def format_cases():
    cases = json.loads((FIXTURES / "logits.json").read_text())
    return {case["format"]: case for case in cases if "variant" in case}


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("name", sorted(format_cases()))
def test_shapes_of_every_format(tmp_path, name):
    """Tensors of other ranks and kinds under known names, and names left out."""
    case = format_cases()[name]
    model = build_vit(case["variant"], **case["overrides"])
    arrays = random_weights(case["shapes"])

    @settings(BUDGET, max_examples=15)
    @given(st.lists(st.tuples(st.integers(0, 999), SHAPES, st.sampled_from("fib?")), min_size=1, max_size=3))
    def check(edits):
        changed = dict(arrays)
        for choice, shape, kind in edits:
            changed[sorted(changed)[choice % len(changed)]] = np.zeros(shape, kind)
        save_file(changed, tmp_path / "a.safetensors")
        survives(lambda: open_weights(tmp_path / "a.safetensors").describe("vit_b16"))
        survives(load_weights, model, tmp_path / "a.safetensors", False)

    check()


H5_KINDS = st.sampled_from(["delete", "shape", "text", "object", "group", "attribute"])
H5_EDITS = st.lists(
    st.tuples(H5_KINDS, st.integers(0, 999), SHAPES),
    min_size=1,
    max_size=3,
)


def damage_h5(path, edits):
    with h5py.File(path, "r+") as file:
        for kind, choice, shape in edits:
            names = []
            file.visit(names.append)
            if not names:
                return
            name = names[choice % len(names)]
            if kind == "attribute":
                file[name].attrs["name"] = np.zeros(shape)
                continue
            del file[name]
            if kind == "shape":
                file.create_dataset(name, shape, "f8")
            elif kind == "text":
                file[name] = "text"
            elif kind == "object":
                file.create_dataset(name, (24,), h5py.ref_dtype)
            elif kind == "group":
                file.create_group(name)


@pytest.mark.slow
def test_keras_weights(folder, model, tmp_path):
    whole, path = (folder / "model.weights.h5").read_bytes(), tmp_path / "a.weights.h5"
    rng = np.random.default_rng(0)

    @settings(BUDGET, max_examples=20)
    @given(H5_EDITS)
    def check(edits):
        path.write_bytes(whole)
        damage_h5(path, edits)
        survives(load_weights, model, path)

    check()
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    for _ in range(25):  # flipped bytes of the file's structure
        content = bytearray(whole)
        for place in rng.integers(0, len(content), 40):
            content[place] = rng.integers(256)
        path.write_bytes(content[: rng.integers(len(content)) if rng.random() < 0.2 else None])
        if survives(load_weights, model, path) is None:
            after = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
            assert all(np.array_equal(x, y, equal_nan=True) for x, y in zip(before, after))
        before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
