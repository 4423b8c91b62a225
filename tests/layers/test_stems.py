"""Stems before the patches."""

import numpy as np
import pytest
from keras import ops
from support.layer_cases import IMAGES, random

from vit_tf import layers

pytestmark = pytest.mark.every_backend


def test_whitening_decorrelates_the_surroundings_of_pixels():
    layer = layers.WhitenedPatchEmbedding(8, 2)
    layer.build(IMAGES)
    images = random((40, 8, 12, 3))
    images = np.cumsum(images, axis=2)  # neighbours resemble each other
    layer.adapt(images, epsilon=0.0)
    white = ops.conv(images, layer.whitening.value, padding="valid", data_format="channels_last")
    white = np.reshape(ops.convert_to_numpy(white), (-1, 27))
    # float32 sums over 2,400 patches of variances from 1e-2 to 1e2
    np.testing.assert_allclose(white.T @ white / len(white), np.eye(27), rtol=0, atol=0.01)


def test_whitening_is_not_trained():
    layer = layers.WhitenedPatchEmbedding(8, 2)
    layer.build(IMAGES)
    assert [v.path.rpartition("/")[2] for v in layer.non_trainable_variables] == ["whitening"]
    assert len(layer.trainable_variables) == 2


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("shape", [(4, 8, 8, 1), (8, 8, 3), (4, 2, 8, 3), (0, 8, 8, 3)])
def test_whitening_of_bad_images(shape):
    layer = layers.WhitenedPatchEmbedding(8, 2)
    layer.build(IMAGES)
    with pytest.raises(ValueError, match=r"\(b, h, w, 3\) of at least 3x3"):
        layer.adapt(np.zeros(shape))


@pytest.mark.parametrize(
    ("blocks", "said"),
    [((1,), "have 2 stages: .* got \\(1,\\)"), ((1, -1), "`blocks` must be a positive int, got -1")],
)
def test_convolutions_of_a_pooled_stem_are_given_for_each_stage(blocks, said):
    with pytest.raises(ValueError, match=said):
        layers.PooledPatchEmbedding(8, 4, stem_width=6, blocks=blocks)
