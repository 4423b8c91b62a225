"""Weights that nobody names: the variant is found by their shapes."""

import re
from functools import partial

import numpy as np
import pytest
from conftest import randomize

from vit_tf import build_vit, load, save_weights
from vit_tf.hub.lazy_tensor import LazyTensor
from vit_tf.variants import VARIANTS
from vit_tf.weights import open_named, open_weights
from vit_tf.weights.formats import timm
from vit_tf.weights.recognition import recognise


def tensors_of(name, **overrides):
    """Returns the tensors of a variant at full width and depth, without values, from a model of one block."""
    model = build_vit(name, num_layers=1, **overrides)
    shapes = {key: mapping.shape for key, mapping in timm.weight_mappings(model).items()}
    for key in list(shapes):
        for i in range(1, VARIANTS[name].num_layers):
            if key.startswith("blocks.0."):
                shapes[key.replace("blocks.0.", f"blocks.{i}.")] = shapes[key]
    return {key: LazyTensor(shape, None) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    "name, overrides, expected",
    [
        ("vit_tiny_patch16_224", {}, ("vit_tiny_patch16_224", {})),
        ("vit_tiny_patch16_384", {}, ("vit_tiny_patch16_384", {})),
        ("vit_tiny_patch16_224", dict(image_size=256), ("vit_tiny_patch16_224", dict(image_size=(256, 256)))),
        ("deit_tiny_patch16_224", dict(num_classes=3), ("vit_tiny_patch16_224", {})),
        ("deit_tiny_distilled_patch16_224", dict(num_classes=3), ("deit_tiny_distilled_patch16_224", {})),
        (
            "vit_small_patch14_reg4_dinov2",
            dict(image_size=224),
            ("vit_small_patch14_reg4_dinov2", dict(image_size=(224, 224))),
        ),
        ("vit_dwee_patch16_reg1_gap_256", {}, ("vit_dwee_patch16_reg1_gap_256", {})),
        ("test_vit3", {}, ("test_vit3", {})),
    ],
)
def test_found(name, overrides, expected):
    assert recognise(tensors_of(name, **overrides)) == expected


@pytest.mark.parametrize(
    "name, overrides",
    [
        ("vit_xsmall_patch16_clip_224", dict(hidden_dim=260)),
        ("vit_tiny_patch16_224", dict(image_size=(224, 256))),
        ("vit_tiny_patch16_224", dict(qkv_bias=False)),
    ],
)
def test_not_found(name, overrides):
    with pytest.raises(ValueError, match="no variant has weights of these shapes"):
        recognise(tensors_of(name, **overrides))


@pytest.mark.slow
def test_several():
    names = "vit_base_patch32_clip_224, vit_base_patch32_clip_quickgelu_224"
    with pytest.raises(ValueError, match=f"weights of these shapes have {names}"):
        recognise(tensors_of("vit_base_patch32_clip_224", num_classes=512))


def test_a_bare_file(tmp_path):
    model = randomize(build_vit("test_vit", num_classes=5))
    path = save_weights(model, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match=re.escape(f"{str(path)!r} looks like test_vit: building that")):
        again = build_vit(weights=path)
    assert again.name == "test_vit" and again.output_shape == (None, 5)
    for old, new in zip(model.weights, again.weights):
        np.testing.assert_array_equal(old, new)


def test_a_bare_file_that_looks_like_nothing(tmp_path):
    path = save_weights(build_vit("test_vit", hidden_dim=48, num_layers=1), tmp_path / "model.safetensors")
    for open_source in (open_weights(path).describe, partial(open_named, path), partial(load, path)):
        with pytest.raises(ValueError, match="bare file, which names no variant: add --model NAME"):
            open_source()
