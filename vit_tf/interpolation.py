"""The matrices that resize a vector, or a grid of vectors, as `torch.nn.functional.interpolate` does.

They are of NumPy, or of `keras.ops` where the new size is a tensor in a graph. Position tables and patch
kernels are resampled by them.
"""

from typing import Any

import numpy as np

from vit_tf.checks import check_choice

METHODS = ("bicubic", "bilinear")


def resize_matrix(
    old: int,
    new: Any,
    method: str = "bicubic",
    antialias: bool = True,
    align_corners: bool = False,
    offset: Any = 0.0,
    xp: Any = np,
) -> Any:
    """Returns the matrix (new, old) in float64 that resizes a vector of `old` values to `new`.

    Pixel centres are at half-integers, unless `align_corners` maps the ends onto each other. As in
    PyTorch, `antialias` widens the filter when it shrinks, renormalises it at the borders, and makes
    the cubic kernel's parameter -0.5; without it the parameter is -0.75 and borders are repeated.
    `offset` makes the scale (new + offset) / old, as DINO and DINOv2 do to avoid rounding errors.

    Args:
        old: int.
        new: int, or an int tensor where `xp` is `keras.ops`.
        method: "bicubic" or "bilinear".
        antialias, align_corners: bool.
        offset: float, or a float64 tensor.
        xp: NumPy, or `keras.ops`. JAX computes in float32 unless it is configured otherwise.
    """
    check_choice("method", method, METHODS)
    positions, old_positions = xp.arange(new, dtype="float64"), np.arange(old, dtype="float64")
    size = xp.cast(new, "float64") if xp is not np else new
    centers = (positions + 0.5) * old / (size + offset) - 0.5
    if align_corners:
        aligned = positions * (old - 1) / xp.maximum(size - 1, 1)
        centers = xp.where(size > 1, aligned, centers)
    centers = centers[:, None]
    if antialias and not align_corners:
        stretch = xp.maximum(1.0, old / size)
        weights = kernel((old_positions - centers) / stretch, method, -0.5, xp)  # (new, old)
        return weights / xp.sum(weights, axis=1, keepdims=True)
    if method == "bilinear":
        centers = xp.clip(centers, 0, old - 1)
    radius = 2 if method == "bicubic" else 1
    taps = xp.floor(centers) + np.arange(1.0 - radius, radius + 1)  # (new, 2 * radius)
    weights = kernel(taps - centers, method, -0.75, xp)
    is_at = xp.clip(taps, 0, old - 1)[:, :, None] == old_positions  # (new, 2 * radius, old)
    return xp.sum(xp.where(is_at, weights[:, :, None], 0.0), axis=1)


def kernel(x, method, a, xp=np):
    """Returns the interpolation kernel at the distances `x`: a triangle, or Keys's cubic."""
    x = xp.abs(x)
    if method == "bilinear":
        return xp.maximum(0.0, 1 - x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return xp.where(x <= 1, near, xp.where(x < 2, far, 0.0))


def grid_matrices(
    old_grid: tuple[int, int], new_grid: tuple[Any, Any], square: bool = False, xp: Any = np, **options: Any
) -> tuple[Any, Any]:
    """Returns the matrices (new rows, old rows) and (new columns, old columns) that resize a grid.

    Args:
        old_grid, new_grid: (rows, columns), see `resize_matrix`.
        square: bool. True resizes to a square of the longer side, and keeps its upper left part, as RADIO.
        xp, **options: see `resize_matrix`.
    """
    sides = new_grid
    if square:
        sides = (xp.maximum(*new_grid),) * 2
    rows, columns = (
        resize_matrix(old, side, xp=xp, **options)[:new] for old, side, new in zip(old_grid, sides, new_grid)
    )
    return rows, columns
