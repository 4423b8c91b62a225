"""The convolutional networks of hybrids."""

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.layer_cases import random

from vit_tf import build_vit, layers
from vit_tf.training.freezing import freeze

pytestmark = pytest.mark.every_backend
SMALL = dict(hidden_dim=12, num_layers=1, num_heads=3, mlp_dim=20, num_classes=5)
RESNET_D = dict(patch_stem="resnet_d", stem_width=8, stem_blocks=(1, 1))


def test_kernels_are_standardised_per_filter():
    layer = layers.StandardizedConv2D(4, 3, padding="same")
    layer.build((None, 5, 7, 2))
    kernel = ops.convert_to_numpy(layer.kernel) + 3.0
    standardized = (kernel - kernel.mean((0, 1, 2))) / kernel.std((0, 1, 2))
    x = random((2, 5, 7, 2))
    expected = ops.conv(x, standardized, padding="same")
    for factor in (1, 5):  # neither size nor mean of a kernel matters
        layer.kernel.assign(factor * kernel)
        np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_kernels_are_standardised_before_they_are_rounded(policy):
    layer = layers.StandardizedConv2D(4, 3, padding="same", dtype=policy)
    layer.build((None, 5, 7, 2))
    noise = random((3, 3, 2, 4))
    layer.kernel.assign(100 + 0.01 * noise)  # of which half precision leaves hardly anything
    x = random((2, 5, 7, 2))
    kernel = 0.01 * (noise - noise.mean((0, 1, 2)))
    expected = ops.convert_to_numpy(ops.conv(x, kernel / kernel.std((0, 1, 2)), padding="same"))
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == policy.removeprefix("mixed_")
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(y, "float32")), expected, atol=0.05)


def test_a_shortcut_averages_the_pixels_that_exist():
    layer = layers.Bottleneck(8, 2, norm="batch", projects=True)
    layer.build((None, 3, 3, 8))
    layer.conv_3.norm.gamma.assign(np.zeros(8))  # leaves the shortcut alone
    layer.shortcut.convolution.kernel.assign(np.eye(8)[None, None])
    x = np.abs(random((1, 3, 3, 8)))
    parts = [x[:, :2, :2], x[:, :2, 2:], x[:, 2:, :2], x[:, 2:, 2:]]
    expected = np.stack([part.mean((1, 2)) for part in parts], axis=1).reshape(1, 2, 2, 8)
    np.testing.assert_allclose(layer(x), expected / np.sqrt(1 + 1e-5), rtol=1e-5)


@pytest.mark.tensorflow_only
def test_batch_norm_learns_from_batches_until_it_is_frozen():
    model = build_vit("vit_b16", image_size=16, patch_size=8, **SMALL, **RESNET_D)
    mean, x = model.get_layer("patch_embedding").first[0].norm.moving_mean, random((4, 16, 16, 3)) + 2
    values = [ops.convert_to_numpy(mean)]
    for what in ("none", "backbone"):
        freeze(model, what)
        model(x, training=True)
        values.append(ops.convert_to_numpy(mean))
    assert np.abs(values[1] - values[0]).min() > 0
    np.testing.assert_array_equal(values[2], values[1])


@pytest.mark.tensorflow_only
def test_an_empty_batch():
    layer = layers.ResNetEmbedding(8, 8, width=32, blocks=(1, 1))
    layer.build((None, 16, 16, 3))
    assert layer(np.zeros((0, 16, 16, 3), "float32")).shape == (0, 4, 8)


@pytest.mark.tensorflow_only
def test_unknown_image_sizes():
    layer = layers.ResNetEmbedding(8, 8, "resnet_d", 8, (1, 1))
    images = keras.Input((None, None, 3))
    model = randomize(keras.Model(images, layer(images)))
    assert model(random((2, 13, 21, 3))).shape == (2, 2 * 3, 8)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "overrides, message",
    [
        (dict(stem_blocks=(1, 2)), "stem_blocks=.* needs patch_stem='resnet_v2' or .* 'pooled', got 'conv'"),
        (dict(stem_blocks=(1, 0)), "tuple of positive ints"),
        (dict(stem_blocks=3), "tuple of positive ints"),
        (dict(patch_stem="resnet_v2", stem_width=48), "multiple of 32 as `stem_width`, got 48"),
        (dict(patch_stem="resnet_d", stem_width=9), "multiple of 2 as"),
        (dict(patch_stem="resnet_v2", stem_blocks=(1, 1, 1, 1)), "choose a multiple of 32"),
        (dict(patch_stem="resnet_v2", image_size=20), "patch size .* does not divide"),
        (dict(patch_stem="mobileclip", patch_size=8), "needs patches of 16"),
        (dict(patch_stem="resnet_v2", allow_remainder=True), "needs patch_stem='conv' or 'mobileclip'"),
    ],
)
def test_bad_settings(overrides, message):
    with pytest.raises(ValueError, match=message):
        build_vit("vit_b16", **{**SMALL, "image_size": 32, **overrides})
