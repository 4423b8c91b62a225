"""Presets of keras-hub that lack something or are hostile; good ones are in test_libraries.py."""

import json

import h5py
import numpy as np
import pytest
from support.tensors import fails

from vit_tf import get_preprocessing
from vit_tf.hub import open_checkpoint
from vit_tf.weights import open_weights

CONFIG = {"registered_name": "keras_hub>ViTBackbone", "class_name": "ViTBackbone", "config": {}}
NAME = "layers/vi_t_patching_and_embedding/patch_embedding/vars/0"


@pytest.fixture
def preset(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        file[NAME] = np.arange(24, dtype="float16").reshape(2, 2, 3, 2)
        file["optimizer/vars/0"] = np.int64(3)
    return tmp_path


def write_index(folder, part):
    (folder / "model.weights.h5").unlink(missing_ok=True)
    (folder / "model.weights.json").write_text(json.dumps({"weight_map": {"/layers": [part]}}))


def test_tensors(preset):
    opened = open_checkpoint(preset)
    assert opened.tensors.keys() == {NAME} and opened.config["class_name"] == "ViTBackbone"
    array = opened.tensors[NAME].load()
    assert array.dtype == "float32"
    np.testing.assert_array_equal(array, np.arange(24).reshape(2, 2, 3, 2))


def test_shards(preset):
    (preset / "a.weights.h5").write_bytes((preset / "model.weights.h5").read_bytes())
    write_index(preset, "a.weights.h5")
    assert open_checkpoint(preset).tensors.keys() == {NAME}
    write_index(preset, "lost.weights.h5")
    fails(preset, "model.weights.json' names lost.weights.h5, which is missing: download or copy it there")
    for part in ("../a.weights.h5", "/tmp/a.weights.h5", "a.safetensors", 3):
        write_index(preset, part)
        fails(preset, "must name plain .weights.h5 files")
    (preset / "model.weights.json").unlink()
    fails(preset, "has no model.weights.json")


def test_hostile_files(preset):
    path = preset / "model.weights.h5"
    whole = path.read_bytes()
    for content, message in ((b"", "is empty"), (whole[:100], "is damaged"), (b"PK" * 400, "is damaged")):
        path.write_bytes(content)
        fails(preset, "model.weights.h5", message)
    for write, message in (
        (lambda file: file.create_dataset("a", (10**9,), "f4"), "with less data"),
        (lambda file: file.create_dataset("a", (8,), "f4", compression="gzip"), "compressed in chunks"),
        (lambda file: file.create_dataset("a", data="text"), "expected numbers"),
        (lambda file: file.update({"a": h5py.ExternalLink("/etc/passwd", "b")}), "a link to another file"),
    ):
        with h5py.File(path, "w") as file:
            write(file)
        fails(preset, "model.weights.h5", message)


def test_descriptions(preset):
    for config, message in (
        ({"class_name": "BertBackbone"}, "has class_name 'BertBackbone', expected one of ViTBackbone"),
        ({}, "describes no ViTBackbone: it lacks patch_size, hidden_dim"),
        ({"config": {"image_shape": [1]}}, "as 'image_shape'"),
        ({"config": {"image_shape": "a"}}, "list as 'image_shape'"),
    ):
        (preset / "config.json").write_text(json.dumps(CONFIG | config))
        with pytest.raises(ValueError, match=message):
            open_weights(preset).describe()


def test_image_converters(preset):
    settings = dict(image_size=[64, 64], scale=[1 / 127.5] * 3, offset=[-1.0] * 3, crop_to_aspect_ratio=False)
    converter = preset / "image_converter.json"
    converter.write_text(json.dumps({"config": settings}))
    found = get_preprocessing(preset)
    assert (found.image_size, found.crop_mode, found.interpolation) == ((64, 64), "squash", "bilinear")
    np.testing.assert_allclose([*found.mean, *found.std], [0.5] * 6, atol=1e-12)
    converter.write_text(json.dumps({"config": {**settings, "scale": 1 / 255, "crop_to_aspect_ratio": True}}))
    found = get_preprocessing(preset)
    assert found.resized_size(100, 200) == (64, 128)
    np.testing.assert_allclose([*found.mean, *found.std], [1.0] * 6)
    for change in (dict(scale=0), dict(scale="a"), dict(image_size=None), dict(interpolation="area")):
        converter.write_text(json.dumps({"config": {**settings, **change}}))
        with pytest.raises(ValueError, match=r"image_converter.json must have|config.json must have"):
            get_preprocessing(preset)
