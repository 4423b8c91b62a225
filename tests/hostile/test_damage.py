"""Damaged files that once raised something else than a ValueError, or loaded."""

import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import vit_tf
from vit_tf import build_vit, classifier, load_weights, training
from vit_tf.checks import brief, listing, quoted, shown
from vit_tf.data.augment.randaugment import RandAugment
from vit_tf.explain import attention_maps, class_relevance
from vit_tf.training.run_folder import read_config, read_model
from vit_tf.weights import open_weights

SIZES = dict(
    image_size=32, patch_size=16, hidden_dim=24, num_layers=2, num_heads=3, mlp_dim=32, num_classes=5
)
LONG = "x" * 60_000
IMAGES = np.full((1, 32, 32, 3), 0.5, "float32")


@pytest.fixture(autouse=True)
def seeded():
    """Nothing here uses chance, and clearing Keras's state takes longer than most of these tests."""


@pytest.fixture(scope="module")
def model():
    return build_vit("vit_b16", **SIZES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("model")
    classifier.save(folder, model, "vit_base_patch16_224", SIZES, None, list("abcde"))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    text = json.dumps({**config, **changes}).replace('"HUGE"', "1" + 400 * "0")
    (folder / "config.json").write_text(text)


def refused(function, *args):
    with pytest.raises(ValueError) as caught:
        function(*args)
    assert len(str(caught.value)) < 2000, len(str(caught.value))
    return str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        *(
            {"vit_tf": {"variant": "vit_b16", "hyperparameters": {key: value}}}
            for key, value in (
                ("name", "x"),
                ("mlp_dim", float("inf")),
                ("image_size", ["HUGE", 16]),
                ("norm_epsilon", 1e400),
                ("layer_scale_init", "HUGE"),
                ("activation", {"class_name": "Lambda"}),
                (LONG, 1),
                ("mlp_dim", LONG),
            )
        ),
        {"vit_tf": {"variant": LONG}},
        {"vit_tf": {"variant": ["vit_b16"], "hyperparameters": []}},
        {"vit_tf": LONG},
        *(
            {"vit_tf": None, "architecture": "vit_base_patch16_224", "model_args": arguments}
            for arguments in (
                {"mlp_ratio": float("inf")},
                {"mlp_ratio": "HUGE"},
                {"global_pool": [1]},
                {LONG: 1},
                {"depth": "HUGE"},
            )
        ),
        {"model_type": "dinov2", "mlp_ratio": float("inf")},
        {"label_names": list("abcd")},
        {"label_names": list("abcdef")},
        {"label_names": [LONG, 3, "c", "d", "e"]},
        {"pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": "HUGE"}},
        {"pretrained_cfg": {"input_size": [3, 32, 32], "mean": [LONG] * 3}},
    ],
)
def test_configs(folder, config):
    if "model_type" in config or config.get("vit_tf", 0) is None:
        config = {"pretrained_cfg": {}, **config}
        original = json.loads((folder / "config.json").read_text())
        del original["vit_tf"]
        (folder / "config.json").write_text(json.dumps(original))
        config.pop("vit_tf", None)
    change(folder, **config)
    refused(vit_tf.load, folder)


@pytest.mark.parametrize(
    "name", ["head.weight", "patch_embed.proj.weight", "pos_embed", "cls_token", "norm.weight"]
)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (1, 10**8, 0), (1,) * 7])
def test_tensors_of_other_shapes(folder, name, shape):
    arrays = load_file(folder / "model.safetensors")
    save_file({**arrays, name: np.zeros(shape, "float32")}, folder / "model.safetensors")
    refused(vit_tf.load, folder)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 0), (1,) * 7])
def test_flat_patch_kernels_of_other_shapes(tmp_path, model, shape):
    save_file({"to_patch_embedding.2.weight": np.zeros(shape, "float32")}, tmp_path / "a.safetensors")
    assert "missing" in refused(load_weights, model, tmp_path / "a.safetensors")
    assert not load_weights(model, tmp_path / "a.safetensors", strict=False).loaded


def test_long_names_of_tensors(folder):
    arrays = load_file(folder / "model.safetensors")
    save_file({**arrays, LONG: np.zeros(3, "float32")}, folder / "model.safetensors")
    assert LONG[:40] in refused(vit_tf.load, folder)
    save_file({LONG: np.zeros(3, "float32")}, folder / "model.safetensors")
    refused(open_weights, folder)
    np.savez(folder / "a.npz", **{LONG[:60_000]: np.array("text")})
    refused(open_weights, folder / "a.npz")
    refused(build_vit, LONG)
    refused(vit_tf.get_preprocessing, LONG)


@pytest.mark.parametrize("damage", ["text", "references", "group", "nothing"])
def test_keras_weights(tmp_path, model, damage):
    path = tmp_path / "a.weights.h5"
    model.save_weights(path)
    before = [keras.ops.convert_to_numpy(variable) for variable in model.variables]
    with h5py.File(path, "r+") as file:
        variables = file["layers/dense/vars"]
        shape = variables["0"].shape
        del variables["0"]
        if damage == "text":
            variables.create_dataset("0", shape, h5py.string_dtype())
        elif damage == "references":
            variables.create_dataset("0", shape, h5py.ref_dtype)
        elif damage == "group":
            variables.create_group("0")
    refused(load_weights, model, path)
    for old, variable in zip(before, model.variables):
        np.testing.assert_array_equal(old, keras.ops.convert_to_numpy(variable))


MODEL = {
    "variant": "vit_b16",
    "hyperparameters": SIZES,
    "preprocessing": {"image_size": 32},
    "new_head": True,
}


@pytest.mark.parametrize(
    "config",
    [
        *({"model": model} for model in (None, [], "vit_b16", {}, {**MODEL, "variant": 3})),
        *(
            {"model": {**MODEL, key: value}}
            for key in MODEL
            if key != "new_head"
            for value in (None, [1], "a")
        ),
        *({"model": {**MODEL, "hyperparameters": {name: 1}}} for name in ("name", "weights", LONG)),
        {"command": {}},
        {"command": {"data": 3, "settings": {}}},
        {"command": {"data": "a", "settings": [LONG]}},
    ],
)
def test_runs(tmp_path, config):
    def read():
        saved = read_config(tmp_path)
        read_model(saved)
        saved["command"]["data"], saved["command"]["settings"]

    good = {"command": {"data": "a", "settings": {}}, "recipe": {}, "model": MODEL}
    (tmp_path / "config.json").write_text(json.dumps(good))
    read()
    (tmp_path / "config.json").write_text(json.dumps({**good, **config}))
    refused(read)


def test_what_messages_show():
    assert shown("cat") == "'cat'" and shown([1, 2]) == "[1, 2]"
    assert shown("a" * 50 + "b" * 500, 20) == "'aaaaaaa...bbbbbbb'"
    assert listing(range(12), 3) == "0, 1, 2, ... (12 in all)" and listing([]) == ""
    assert len(listing(["x" * 1000] * 1000)) < 1200
    assert brief(ValueError(" a\n b ")) == "a b" and brief(KeyError()) == "KeyError"
    assert quoted("abcdef") == "'a', 'b', 'c', 'd', 'e', ... (6 in all)" and len(quoted([LONG])) == 99
    nested = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(nested) == "<list>" and shown(10**5000) == "<int>"


@pytest.mark.parametrize("value", [LONG, LONG.encode(), ["x"] * 30_000, {LONG}], ids=type)
@pytest.mark.parametrize(
    "function",
    [
        lambda model, value: open_weights(value),
        lambda model, value: vit_tf.save_weights(model, str(value) if isinstance(value, str) else LONG),
        lambda model, value: vit_tf.get_preprocessing(value),
        lambda model, value: vit_tf.decode_predictions(np.zeros((1, 3)), top=value),
        lambda model, value: vit_tf.decode_predictions(value),
        lambda model, value: attention_maps(model, value),
        lambda model, value: attention_maps(model, IMAGES, layers=[str(value)[:2] + LONG]),
        lambda model, value: class_relevance(model, IMAGES, value),
        lambda model, value: training.get_recipe("full", optimizer=value),
        lambda model, value: training.freeze(model, value),
        lambda model, value: training.add_lora(model, rank=value),
        lambda model, value: training.make_optimizer(model, value),
        lambda model, value: RandAugment(value),
    ],
)
def test_no_message_repeats_its_input_at_length(model, function, value):
    refused(function, model, value)
