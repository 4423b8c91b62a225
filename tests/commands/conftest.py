import json

import numpy as np
import pytest
from conftest import randomize
from PIL import Image

from vit_tf import build_vit, save_weights


@pytest.fixture
def hub(tmp_path):
    """A model in a folder laid out as a hub repository, and a photograph's path."""
    model = randomize(build_vit("test_vit", image_size=32, num_classes=4))
    save_weights(model, tmp_path / "model.safetensors")
    config = dict(
        architecture="test_vit",
        label_names=["apple", "pear", "plum", "quince"],
        pretrained_cfg=dict(input_size=[3, 32, 32], mean=[0.4, 0.5, 0.6], std=[0.2, 0.2, 0.3], crop_pct=0.8),
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3)).astype("uint8")
    (tmp_path / "folder.keras").mkdir()
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"obst {i}.png")
    return model, tmp_path
