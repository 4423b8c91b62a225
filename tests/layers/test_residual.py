import numpy as np
import pytest
from keras import ops
from support.layer_cases import random

from vit_tf import layers

pytestmark = pytest.mark.every_backend


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    layer = layers.DropPath(0.25, seed=1)
    x = 1 + np.abs(random((4000, 3, 2)))
    y = ops.convert_to_numpy(layer(x, training=True))
    kept = np.isclose(y, x / 0.75, rtol=1e-5).all((1, 2))
    dropped = (y == 0).all((1, 2))
    assert (kept | dropped).all()
    assert 0.22 < dropped.mean() < 0.28  # 4 standard deviations of 4,000 draws
    np.testing.assert_array_equal(layer(x, training=False), x)
