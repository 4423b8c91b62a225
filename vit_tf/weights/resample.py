"""The resampling of patch kernels. Position tables are resampled in `vit_tf.weights.positions`."""

import numpy as np

from vit_tf.interpolation import resize_matrix


def resample_patch_kernel(weights, new_size, method="bicubic", antialias=True):
    """Resamples a patch kernel by the pseudo-inverse of the resize of its images.

    The embedding of an enlarged patch then equals the embedding of the original patch.
    Reference: Beyer et al., "FlexiViT" (https://arxiv.org/abs/2212.08013), section 3.4.

    Args:
        weights: array `(height, width, in, out)`.
        new_size: (height, width).
        method: "bicubic" or "bilinear".
        antialias: see `resize_matrix`.

    Returns:
        float32 array `(new height, new width, in, out)`.
    """
    old_size = weights.shape[:2]
    if tuple(old_size) == tuple(new_size):
        return np.asarray(weights, "float32")
    rows, columns = (resize_matrix(old, new, method, antialias) for old, new in zip(old_size, new_size))
    # The pseudo-inverse of a Kronecker product is that of its factors.
    rows, columns = np.linalg.pinv(rows), np.linalg.pinv(columns)  # (old, new)
    weights = np.asarray(weights, "float64")
    return np.einsum("hr,wc,hwio->rcio", rows, columns, weights, optimize=True).astype("float32")
