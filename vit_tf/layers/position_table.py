"""A position table of another grid, computed in the graph: gradients flow back to the table."""

from typing import Any

from keras import ops

from vit_tf.config import Tensor
from vit_tf.interpolation import grid_matrices


def resample_table(
    table: Tensor,
    old_grid: tuple[int, int],
    new_grid: tuple[Any, Any],
    num_prefix: int = 0,
    **options: Any,
) -> Tensor:
    """Returns a position table of another grid: `vit_tf.weights.positions.resample_positions` in the graph.

    A table of the right grid is returned as it is.

    Args:
        table: float32 tensor `(1, num_prefix + rows * columns, d)` of the old grid.
        old_grid: (rows, columns), ints.
        new_grid: (rows, columns), ints; in a graph of TensorFlow also scalar int tensors.
        num_prefix: int, the number of first rows, which belong to prefix tokens and do not change.
        **options: see `vit_tf.interpolation.grid_matrices`.

    Returns:
        A float32 tensor `(1, num_prefix + new rows * new columns, d)`.
    """
    prefix, patches = table[:, :num_prefix], table[0, num_prefix:]
    if all(isinstance(side, int) for side in new_grid):
        if tuple(new_grid) == tuple(old_grid):
            return table
        patches = multiply(patches, old_grid, grid_matrices(old_grid, new_grid, **options))
    else:
        resampled = multiply(patches, old_grid, grid_matrices(old_grid, new_grid, xp=ops, **options))
        # Exact for the table's own grid, also where a GPU rounds products. XLA cannot differentiate `cond`.
        is_own = ops.logical_and(new_grid[0] == old_grid[0], new_grid[1] == old_grid[1])
        indices = ops.minimum(ops.arange(ops.shape(resampled)[0]), patches.shape[0] - 1)
        patches = ops.where(is_own, ops.take(patches, indices, axis=0), resampled)
    return ops.concatenate([prefix, patches[None]], axis=1) if num_prefix else patches[None]


def multiply(patches, grid, matrices):
    """Returns the rows `(n, d)` of a table, of a grid whose sides are multiplied by two matrices."""
    rows, columns = (ops.cast(ops.convert_to_tensor(matrix), "float32") for matrix in matrices)
    d = patches.shape[-1]
    x = ops.einsum("rh,hwd->rwd", rows, ops.reshape(patches, (*grid, d)))
    return ops.reshape(ops.einsum("cw,rwd->rcd", columns, x), (-1, d))
