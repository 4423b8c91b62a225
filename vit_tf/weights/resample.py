"""The matrix of a 1-D resize, that of `torch.nn.functional.interpolate`, and the resampling of patch kernels.

Position tables are resampled with the same matrix in `vit_tf.weights.positions`.
"""

import numpy as np

from vit_tf.checks import check_choice

METHODS = ("bicubic", "bilinear")


def resize_matrix(old, new, method="bicubic", antialias=True, align_corners=False, offset=0.0):
    """Returns the matrix (new, old) in float64 that resizes a vector of `old` values to `new`.

    Pixel centres are at half-integers, unless `align_corners` maps the ends onto each other. As in
    PyTorch, `antialias` widens the filter when it shrinks, renormalises it at the borders, and makes
    the cubic kernel's parameter -0.5; without it the parameter is -0.75 and borders are repeated.
    `offset` makes the scale (new + offset) / old, as DINO and DINOv2 do to avoid rounding errors.
    """
    check_choice("method", method, METHODS)
    if align_corners and new > 1:
        centers = np.arange(new) * (old - 1) / (new - 1)
    else:
        centers = (np.arange(new) + 0.5) * old / (new + offset) - 0.5
    radius = 2 if method == "bicubic" else 1
    if antialias and not align_corners:
        stretch = max(1.0, old / new)
        distance = (np.arange(old)[None] - centers[:, None]) / stretch  # (new, old)
        weights = kernel(distance, method, a=-0.5)
        return weights / weights.sum(axis=1, keepdims=True)
    if method == "bilinear":
        centers = np.clip(centers, 0, old - 1)
    matrix = np.zeros((new, old))
    first = np.floor(centers).astype(int) - radius + 1
    for tap in range(2 * radius):
        position = first + tap
        weights = kernel(position - centers, method, a=-0.75)
        np.add.at(matrix, (np.arange(new), np.clip(position, 0, old - 1)), weights)
    return matrix


def kernel(x, method, a):
    """Returns the interpolation kernel at the distances `x`: a triangle, or Keys's cubic."""
    x = np.abs(x)
    if method == "bilinear":
        return np.maximum(0, 1 - x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


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
