"""How well a classifier's probabilities agree with how often it is right."""

import numpy as np


def expected_calibration_error(probabilities, labels, num_bins=15):
    """Returns the expected calibration error: the mean gap between confidence and accuracy, over bins.

    The confidence of an image is the probability of its predicted class. Bins have equal widths, and the gap
    of each counts with its share of the images: Guo et al. 2017 (https://arxiv.org/abs/1706.04599), eq. 3.

    Args:
        probabilities: float array (n, k), rows that sum to one.
        labels: int array (n,).
        num_bins: int, number of bins in (0, 1].

    Returns:
        A float in [0, 1].
    """
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * num_bins).astype(int) - 1
    gaps = np.zeros(num_bins)
    np.add.at(gaps, np.clip(bins, 0, num_bins - 1), is_right - confidence)
    return float(np.abs(gaps).sum() / len(labels))
