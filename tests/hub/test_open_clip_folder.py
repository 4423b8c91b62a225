"""Folders of OpenCLIP that lack something or describe no model; good ones are in test_libraries.py."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.tensors import fails

from vit_tf import get_preprocessing
from vit_tf.hub import open_checkpoint
from vit_tf.weights import open_weights

VISION = dict(layers=2, width=48, head_width=24, patch_size=16, image_size=48)


def write(folder, vision=VISION, **images):
    content = {"model_cfg": {"embed_dim": 4, "vision_cfg": vision}, "preprocess_cfg": images}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    names = ("visual.conv1.weight", "visual.class_embedding")
    save_file({n: np.ones((48, 3, 16, 16), "float32") for n in names}, folder / "open_clip_model.safetensors")
    return folder


def test_files(tmp_path):
    opened = open_checkpoint(write(tmp_path))
    assert opened.path.name == "open_clip_model.safetensors"
    assert opened.config == {"open_clip": {"embed_dim": 4, "vision_cfg": VISION}}
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')  # of another library
    assert open_checkpoint(tmp_path).config == {"model_type": "clip"}
    (tmp_path / "config.json").unlink()
    (tmp_path / "open_clip_config.json").unlink()
    fails(tmp_path, "has no config.json")


def test_images(tmp_path):
    default = get_preprocessing(write(tmp_path))
    assert default.image_size == (48, 48) and default.mean[0] == 0.48145466
    assert (default.interpolation, default.crop_mode, default.crop_fraction) == ("bicubic", "center", 1)
    assert get_preprocessing(write(tmp_path, {**VISION, "image_size": [32, 48]}, resize_mode="squash"))
    fails(write(tmp_path, resize_mode="longest"), "'resize_mode', got 'longest'")
    fails(write(tmp_path, {**VISION, "image_size": [32, 48]}), "for square images as 'resize_mode'")
    fails(write(tmp_path, interpolation="lanczos"), "as 'interpolation', got 'lanczos'")
    fails(write(tmp_path, mean="0.5"), "open_clip_config.json must have list as 'mean', got '0.5'")


@pytest.mark.parametrize(
    "vision, message",
    [
        (None, "must have 'vision_cfg' in 'model_cfg', got ['embed_dim', 'vision_cfg']"),
        ({"layers": [3, 4, 6, 3]}, "open_clip_config.json describes a ResNet, expected a ViT"),
        ({"attentional_pool": True, "qk_norm": True}, "with attentional_pool, qk_norm, which no model here"),
        ({"pool_type": "none"}, "must have 'tok' or 'avg' as 'pool_type', got 'none'"),
        ({"width": "48"}, "open_clip_config.json must have int as 'width', got '48'"),
        ({"head_width": 0}, "config.json is damaged"),
        ({"timm_model_name": "convnext_base"}, "convnext_base"),
        ({"timm_model_name": "vit_base_patch16_siglip_224", "timm_proj": "mlp"}, "has 'mlp' as 'timm_proj'"),
    ],
)
def test_image_towers_that_are_unknown(tmp_path, vision, message):
    with pytest.raises(ValueError) as caught:
        open_weights(write(tmp_path, vision)).describe()
    assert message in str(caught.value)


def test_a_text_tower_alone(tmp_path):
    write(tmp_path)
    arrays = {"token_embedding.weight": np.ones((3, 2), "float32")}
    save_file(arrays, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match=r"holds a text tower and no vision tower: give"):
        open_weights(tmp_path)
