import json
import shutil

import numpy as np
import pytest
from conftest import randomize
from PIL import Image
from support.exported import write_features, write_folder

from vit_tf import build_vit, save_weights


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """A model, and a folder laid out as its hub repository with two images and a folder called as a file."""
    folder = tmp_path_factory.mktemp("repository")
    model = randomize(build_vit("test_vit", image_size=32, num_classes=4))
    save_weights(model, folder / "model.safetensors")
    config = dict(
        architecture="test_vit",
        label_names=["apple", "pear", "plum", "quince"],
        pretrained_cfg=dict(input_size=[3, 32, 32], mean=[0.4, 0.5, 0.6], std=[0.2, 0.2, 0.3], crop_pct=0.8),
    )
    (folder / "config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3)).astype("uint8")
    (folder / "folder.keras").mkdir()
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(folder / f"obst {i}.png")
    return model, folder


@pytest.fixture
def hub(repository, tmp_path):
    """The model of `repository`, and a copy of its folder."""
    model, folder = repository
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return model, tmp_path


@pytest.fixture
def exported(tmp_path):
    """An exported folder, and the paths of seven images."""
    folder = write_folder(tmp_path / "exported", output_names=["logits"])
    (tmp_path / "photos").mkdir()
    paths = [tmp_path / "photos" / f"{i}.png" for i in range(7)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((9, 9, 3), 30 * i, "uint8")).save(path)
    return folder, paths


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """An exported folder of a model without a head."""
    return write_features(tmp_path_factory.mktemp("model") / "exported")


@pytest.fixture
def photos(tmp_path):
    """A folder with a folder per class, of one colour each, and a copy of one photograph."""
    folder, rng = tmp_path / "photos", np.random.default_rng(3)
    for name, colour in (("red", [200, 20, 40]), ("green", [20, 190, 50]), ("blue", [10, 40, 220])):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            pixels = np.clip(colour + rng.normal(0, 30, 3) + rng.normal(0, 9, (30, 40, 3)), 0, 255)
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{i}.png")
    shutil.copy(folder / "red" / "1.png", folder / "red" / "copy of 1.png")
    return folder


@pytest.fixture
def embedded(features, photos, tmp_path):
    """The options that embed the photographs, and the file."""
    return ["embed", photos, "--weights", features, "--out", tmp_path / "x.npz", "--runtime", "onnxruntime"]
