import numpy as np
import pytest

from vit_tf.training.calibration import expected_calibration_error


def test_expected_calibration_error_by_hand():
    """Three images of confidence 0.9, two of them right; one of 0.6, which is right."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    expected = 3 / 4 * abs(2 / 3 - 0.9) + 1 / 4 * abs(1 - 0.6)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected)
    assert expected_calibration_error(np.eye(2)[[0, 1]], np.array([0, 1])) == 0
    assert expected_calibration_error(np.eye(2)[[0, 1]], np.array([1, 0])) == 1


def test_expected_calibration_error_bin_by_bin():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5), 300)
    labels = np.array([rng.choice(5, p=row) for row in probabilities])
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(probabilities, labels) == pytest.approx(total)
    assert total < 0.1  # the labels are drawn by these probabilities
