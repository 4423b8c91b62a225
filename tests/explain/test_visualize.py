"""Colours of features, similarity of positions, and filters."""

import keras
import numpy as np
import pytest
from support.explained import small

import vit_tf

pytestmark = pytest.mark.every_backend


def test_colours_tell_what_is_alike():
    rng = np.random.default_rng(0)
    features = np.zeros((2, 6, 8, 10))
    features[..., 0] = -5
    features[:, 2:4, 2:6] = rng.normal(size=(10,)) * 3  # an object in the middle of each
    features += rng.normal(size=features.shape) * 0.1
    colours = vit_tf.features_to_rgb(features)
    assert colours.shape == (2, 6, 8, 3) and colours.min() >= 0 and colours.max() <= 1
    inside = np.zeros((6, 8), bool)
    inside[2:4, 2:6] = True
    for image in colours:  # the first component separates the two
        assert abs(image[inside, 0].mean() - image[~inside, 0].mean()) > 0.8
    black = vit_tf.features_to_rgb(features, foreground=True)
    np.testing.assert_array_equal((black.sum(-1) > 0)[:, inside].mean() > 0.9, True)
    assert not black[:, ~inside].any()
    turned = vit_tf.features_to_rgb(features @ np.linalg.qr(rng.normal(size=(10, 10)))[0])
    np.testing.assert_allclose(turned[..., 0], colours[..., 0], atol=1e-3)


def test_position_similarity():
    model = small(num_registers=2)
    found = vit_tf.position_similarity(model)
    assert found.shape == (2, 3, 2, 3)
    table = keras.ops.convert_to_numpy(model.get_layer("patch_encoder").position_embedding)[0, 3:]
    a, b = table[1], table[5]  # row 0, column 1; row 1, column 2
    np.testing.assert_allclose(found[0, 1, 1, 2], a @ b / np.linalg.norm(a) / np.linalg.norm(b), rtol=1e-4)
    np.testing.assert_allclose(np.einsum("ijij->ij", found), 1, rtol=1e-5)


@pytest.mark.parametrize("stem", ["conv", "patches", "overlap", "whitened", "pooled", "resnet_v2"])
def test_patch_filters(stem):
    model = small(patch_stem=stem)
    if stem in (
        "whitened",
        "pooled",
    ):  # random filters are no principal components
        whitening = model.get_layer("patch_embedding").whitening
        whitening.assign(np.linalg.qr(np.random.default_rng(0).normal(size=(27, 27)))[0].reshape(3, 3, 3, 27))
    found = vit_tf.patch_filters(model, 5)
    side = {"overlap": 3, "whitened": 3, "pooled": 3, "resnet_v2": 7}.get(stem, 4)
    assert found.shape == (5, side, side, 3)
    flat = found.reshape(5, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(5), atol=1e-5)
    if stem == "conv":  # one direction, more or less of it in each filter
        direction = np.random.default_rng(1).normal(size=(4, 4, 3))
        kernel = direction[..., None] * np.linspace(-1, 2, 16)
        model.get_layer("patch_embedding").projection.kernel.assign(kernel)
        (first,) = vit_tf.patch_filters(model)  # there is no second component
        assert abs(np.sum(first * direction)) == pytest.approx(np.linalg.norm(direction), rel=1e-5)
