"""Position tables of another grid: `load_weights` calls `fit_positions`, which calls `resample_positions`."""

import math
from functools import partial

import numpy as np

from vit_tf.checks import pair
from vit_tf.hub.config_values import config_image_size, config_value
from vit_tf.hub.readers import read_metadata
from vit_tf.interpolation import grid_matrices
from vit_tf.weights.fitting import PATCH_KERNEL


def fit_positions(tensors, encoder, weights, sampling, grid_size, report):
    """Returns the tensors with a position table of the grid of the model's own table."""
    table, prefix, new = tensors.get("pos_embed"), encoder.num_prefix_positions, encoder.position_grid
    if table is None or len(table.shape) != 3 or table.shape[0] != 1 or 0 in table.shape:
        return tensors
    old = source_grid(table.shape[1] - prefix, new, weights, grid_size)
    if old is None or old == new:
        return tensors
    options = sampling.positions
    report.resampled.append(f"pos_embed: {old} to {new}, {sampling.describe(options)}")
    shape = (1, prefix + new[0] * new[1], table.shape[2])
    resampled = partial(resample_positions, old_grid=old, new_grid=new, num_prefix=prefix, **options)
    return {**tensors, "pos_embed": table.map(resampled, shape)}


def source_grid(count, model_grid, weights, grid_size):
    """Returns (rows, columns) of a table of `count` patches; None if no rectangle fits."""
    if grid_size is not None and math.prod(grid_size) != count:
        raise ValueError(f"`{grid_size=}` does not have the {count} patches of the source's table")
    side = round(max(count, 0) ** 0.5)
    for grid in (grid_size, *declared_grids(weights), (side, side), model_grid):
        if grid is not None and grid[0] * grid[1] == count and count:
            return tuple(grid)
    return None


def declared_grids(weights):
    """Yields the grids that the file's metadata and the config.json declare."""
    rows, _, columns = read_metadata(weights.checkpoint.path).get("grid_size", "").partition("x")
    if rows.isdecimal() and columns.isdecimal():
        yield int(rows), int(columns)
    patch, config = weights.tensors.get(PATCH_KERNEL), weights.checkpoint.config
    if patch is None or len(patch.shape) != 4 or 0 in patch.shape:
        return
    arguments = config_value(config, "model_args", dict, {})
    for size in (
        config_value(arguments, "img_size", (int, list)),
        config_image_size(config),
        config_value(config, "image_size", (int, list)),
    ):
        if size is not None:
            yield tuple(side // p for side, p in zip(pair(size, "image_size"), patch.shape[2:]))


def resample_positions(table, old_grid, new_grid, num_prefix=0, **options):
    """Resamples a position table to another grid. Both grids may be rectangular.

    Args:
        table: array `(1, num_prefix + rows * columns, d)`.
        old_grid, new_grid: (rows, columns).
        num_prefix: int, the number of first rows, which belong to prefix tokens and do not change.
        **options: how, see `grid_matrices`; by default bicubic with antialias.

    Returns:
        float32 array `(1, num_prefix + new rows * new columns, d)`: timm's `resample_abs_pos_embed`.
    """
    table = np.asarray(table, "float32")
    prefix, patches = table[:, :num_prefix], table[0, num_prefix:]
    if tuple(old_grid) == tuple(new_grid):
        return table
    rows, columns = grid_matrices(old_grid, new_grid, **options)
    grid = patches.reshape(*old_grid, -1).astype("float64")
    grid = np.einsum("rh,cw,hwd->rcd", rows, columns, grid, optimize=True)
    return np.concatenate([prefix, grid.reshape(1, -1, grid.shape[-1]).astype("float32")], axis=1)
