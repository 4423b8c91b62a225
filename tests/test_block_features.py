import keras
import numpy as np
import pytest
from support.explained import small, some_images

import vit_tf

pytestmark = pytest.mark.every_backend


def test_features_of_chosen_blocks():
    model = small(num_registers=1)
    images = some_images(model)
    maps = vit_tf.forward_features(model, images)
    tokens = vit_tf.forward_features(model, images, reshape=False)
    raw = vit_tf.forward_features(model, images, layers=["block_0"], norm=False, reshape=False)
    assert [x.shape for x in maps.values()] == 2 * [(2, 2, 3, 16)]
    assert [x.shape for x in tokens.values()] == 2 * [(2, 8, 16)]
    np.testing.assert_array_equal(maps["block_1"].reshape(2, 6, 16), tokens["block_1"][:, 2:])
    block = keras.Model(model.input, model.get_layer("block_0").output)(images)
    np.testing.assert_allclose(raw["block_0"], keras.ops.convert_to_numpy(block), atol=1e-6)
    assert np.abs(raw["block_0"] - tokens["block_0"]).max() > 0.1
