"""How nearly our outputs agree with those of another library."""

import keras
import numpy as np

TOLERANCE = 1e-4  # of the largest value


def assert_agree(actual, expected):
    actual, expected = keras.ops.convert_to_numpy(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert np.abs(expected).max() > 0.1 and np.ptp(expected[0] - expected[1]) > 1e-3  # it says something
    difference = np.abs(actual - expected).max() / np.abs(expected).max()
    assert difference <= TOLERANCE, f"{difference:.1e} of the largest value"
