"""Weights of hybrids: which network they have, and which model they fit."""

import numpy as np
import pytest
from conftest import randomize
from safetensors.numpy import load_file, save_file

from vit_tf import build_vit, load_weights, resize_model, save_weights
from vit_tf.weights.formats.backbones import describe

SMALL = dict(hidden_dim=16, num_layers=1, num_heads=2, mlp_dim=32, num_classes=5, patch_size=16)
STEMS = {
    "a stem without a convolutional network": dict(),
    "a ResNetV2 stem without blocks": dict(patch_stem="resnet_v2", stem_width=32),
    "a ResNetV2 stem of 1 + 2 blocks": dict(patch_stem="resnet_v2", stem_width=32, stem_blocks=(1, 2)),
    "a ResNet-D stem of 1 + 2 blocks": dict(patch_stem="resnet_d", stem_width=8, stem_blocks=(1, 2)),
    "a ResNet-D stem of 1 + 1 blocks": dict(patch_stem="resnet_d", stem_width=8, stem_blocks=(1, 1)),
    "MobileCLIP's convolutional stem": dict(patch_stem="mobileclip"),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model and its file for each stem."""
    folder, result = tmp_path_factory.mktemp("stems"), {}
    for i, (name, stem) in enumerate(STEMS.items()):
        model = randomize(build_vit("vit_b16", image_size=(32, 48), **SMALL, **stem))
        result[name] = model, save_weights(model, folder / f"{i}.safetensors")
    return result


def test_a_checkpoint_with_another_network_is_refused_in_one_line(files):
    for name, (_, path) in files.items():
        assert describe(load_file(path)) == name
        for other, (model, _) in files.items():
            if other != name:
                with pytest.raises(ValueError, match="has a|has Mobile") as error:
                    load_weights(model, path)
                text = str(error.value)
                assert f"has {name}, and 'vit_base_patch16_224' {other}" in text and "\n" not in text


def test_pytorch_counters_and_other_channels(files, tmp_path):
    model, path = files["a ResNet-D stem of 1 + 2 blocks"]
    arrays = load_file(path)
    assert not any(name.endswith("num_batches_tracked") for name in arrays)
    assert sum(name.endswith("running_var") for name in arrays) == 3 + 3 * 3 + 2
    counter = "patch_embed.backbone.bn1.num_batches_tracked"
    save_file({**arrays, counter: np.array(7)}, tmp_path / "counted.safetensors")
    grey = build_vit(
        "vit_b16", image_size=(32, 48), in_channels=1, **SMALL, **STEMS["a ResNet-D stem of 1 + 2 blocks"]
    )
    report = load_weights(grey, tmp_path / "counted.safetensors")
    assert report.unused == [counter]
    assert report.adapted == ["patch_embed.backbone.conv1.0.weight: 3 input channels to 1"]
    x = np.random.default_rng(0).normal(size=(2, 32, 48, 1)).astype("float32")
    np.testing.assert_allclose(grey(x), model(np.repeat(x, 3, -1)), rtol=1e-4, atol=1e-4)


def test_other_image_sizes(files, tmp_path):
    for name, (model, path) in files.items():
        if "ResNet-D stem of 1 + 2" in name or "Mobile" in name:
            larger = resize_model(model, image_size=(64, 80))
            assert larger.get_layer("patch_encoder").grid_size == (4, 5)
            loaded = build_vit("vit_b16", image_size=(64, 80), **SMALL, **STEMS[name])
            report = load_weights(loaded, path)
            assert report.resampled[0].startswith("pos_embed: (2, 3) to (4, 5)")
            x = np.random.default_rng(0).normal(size=(1, 64, 80, 3)).astype("float32")
            np.testing.assert_allclose(larger(x), loaded(x), rtol=1e-4, atol=1e-5)
            with pytest.raises(ValueError, match="stems of several convolutions"):
                resize_model(model, patch_size=8)
