"""Patches and their embedding."""

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.layer_cases import IMAGES, LAYERS, random

from vit_tf import layers

pytestmark = pytest.mark.every_backend


def test_patches_are_rows_of_pixels():
    images = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    patches = ops.convert_to_numpy(layers.Patches((2, 3), dtype="int32")(images))
    assert patches.shape == (2, 4, 18)
    for i, (row, column) in enumerate([(0, 0), (0, 3), (2, 0), (2, 3)]):
        expected = images[:, row : row + 2, column : column + 3].reshape(2, -1)
        np.testing.assert_array_equal(patches[:, i], expected)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no dynamic image sizes")
@pytest.mark.parametrize("make", [LAYERS["patches"][0], LAYERS["patch_embedding"][0]])
def test_unknown_image_size(make):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, make()(inputs))
    assert model.output_shape[1] is None
    for shape in [(2, 8, 12, 3), (1, 16, 4, 3)]:
        x = random(shape)
        assert model(x).shape[1] == shape[1] * shape[2] // 8
        np.testing.assert_allclose(model(x), model.layers[-1](x), atol=1e-6)


@pytest.mark.parametrize("patch_size", [4, (2, 6)])
def test_convolution_and_dense_on_patches_are_the_same_function(patch_size):
    convolution = layers.PatchEmbedding(10, patch_size)
    convolution.build(IMAGES)
    randomize(convolution)
    kernel, bias = convolution.get_weights()
    dense = keras.layers.Dense(10)
    patches = layers.Patches(patch_size)(random(IMAGES))
    dense.build(patches.shape)
    dense.set_weights([kernel.reshape(-1, 10), bias])
    # float32 sums of 36 to 48 products of the order of 1, in another order
    np.testing.assert_allclose(dense(patches), convolution(random(IMAGES)), atol=1e-5)


@pytest.mark.tensorflow_only
def test_channels_first_config_changes_nothing():
    x = random(IMAGES)
    layer = layers.PatchEmbedding(8, 4)
    expected = layer(x)
    keras.config.set_image_data_format("channels_first")
    try:
        again = layers.PatchEmbedding(8, 4)
        again.build(IMAGES)
        again.set_weights(layer.get_weights())
        np.testing.assert_allclose(again(x), expected, atol=1e-6)
    finally:
        keras.config.set_image_data_format("channels_last")


def test_remainder_is_dropped_at_the_right_and_at_the_bottom():
    layer = layers.PatchEmbedding(8, 5, allow_remainder=True)
    x = random(IMAGES)
    np.testing.assert_allclose(layer(x), layer(x[:, :5, :10]), atol=1e-6)
