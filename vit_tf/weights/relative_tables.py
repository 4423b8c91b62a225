"""Tables of relative positions (BEiT) for another grid, as timm resizes them."""

import math
from functools import partial

import numpy as np

from vit_tf.layers.relative_positions import NUM_PREFIX_ROWS
from vit_tf.weights.positions import declared_grids

TABLE = "relative_position_bias_table"  # in timm's names


def resample_relative_table(table, old_grid, new_grid):
    """Resamples a table of relative positions to another grid. Both grids may be rectangular.

    The offsets of the old grid are spread over those of the new grid with steps that grow geometrically from
    1 in the middle, so that near neighbours stay near, and the values between them are linear.
    Reference: BEiT, https://github.com/microsoft/unilm, `beit/run_class_finetuning.py`, there with cubic
    splines; timm 1.0.31, `resize_rel_pos_bias_table` in `layers/pos_embed_rel.py`.

    Args:
        table: array `((2 rows - 1) * (2 columns - 1) + p, heads)`, p 0 or 3 rows for prefix tokens, which do
            not change.
        old_grid, new_grid: (rows, columns) of the patches.

    Returns:
        float32 array for the new grid.
    """
    table = np.asarray(table, "float32")
    if tuple(old_grid) == tuple(new_grid):
        return table
    old, new = ([2 * side - 1 for side in grid] for grid in (old_grid, new_grid))
    count = old[0] * old[1]
    rows, columns = map(linear_matrix, old, new)
    grid = table[:count].reshape(*old, -1).astype("float64")
    grid = np.einsum("rh,cw,hwn->rcn", rows, columns, grid, optimize=True)
    return np.concatenate([grid.reshape(-1, table.shape[1]).astype("float32"), table[count:]])


def linear_matrix(old, new):
    """Returns the matrix (new, old) that interpolates values at the positions of `geometric_positions`."""
    offsets = np.arange(new) - new // 2
    positions = geometric_positions(old, new)
    return np.stack([np.interp(offsets, positions, unit) for unit in np.eye(old)], axis=1)


def geometric_positions(old, new):
    """Returns the positions of `old` offsets among `new` ones, from the negative to the positive.

    Step i from the middle is ratio**i. The ratio is between 1.01 and 1.5, such that the outermost positions
    meet if that is possible.
    """
    half, low, high = old // 2, 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (ratio**half - 1) / (ratio - 1) > new // 2:
            high = ratio
        else:
            low = ratio
    steps = np.cumsum(ratio ** np.arange(half))
    return np.concatenate([-steps[::-1], [0], steps])


def fit_relative_tables(tensors, mappings, structure, weights, grid_size, report):
    """Returns the tensors with tables of relative positions for the model's grid.

    Args:
        tensors, mappings: by timm's names.
        structure: the `ViTStructure` of the model.
        weights: the `TimmWeights`.
        grid_size: the source's grid, if the user gives it; else None.
        report: the `LoadReport`, which gets a line.
    """
    fitted = {}
    for name, table in tensors.items():
        if not name.endswith(TABLE) or name not in mappings or len(table.shape) != 2 or 0 in table.shape:
            continue
        model_grid = structure.grid_size
        candidates = (grid_size, *declared_grids(weights), square_grid(table.shape[0]), model_grid)
        old = first_fitting(table.shape[0], candidates)
        if old is not None and old != tuple(model_grid):
            resample = partial(resample_relative_table, old_grid=old, new_grid=model_grid)
            fitted[name] = table.map(resample, (mappings[name].shape[0], table.shape[1]))
    if fitted:
        report.resampled.append(f"{len(fitted)} tables {TABLE}: {old} to {tuple(model_grid)}, as timm does")
    return {**tensors, **fitted}


def square_grid(count):
    """Returns the square grid whose table has `count` rows, or the next smaller one."""
    return ((math.isqrt(count) + 1) // 2,) * 2


def first_fitting(count, grids):
    """Returns the first of the grids whose table has `count` rows, with or without rows for prefix tokens."""
    for grid in grids:
        if grid is not None and count - (2 * grid[0] - 1) * (2 * grid[1] - 1) in (0, NUM_PREFIX_ROWS):
            return tuple(grid)
    return None
