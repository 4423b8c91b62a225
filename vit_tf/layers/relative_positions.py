"""Relative positions: a learned bias of the attention scores for each offset between two patches.

Shapes in the comments: b batch, H heads, p prefix tokens, r and c rows and columns of patches, n = p + r c
tokens, m chosen queries.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from vit_tf.checks import check_int, pair
from vit_tf.config import Shape, Size, Tensor
from vit_tf.layers.composite import arguments, register
from vit_tf.layers.patches import check_num_tokens

NUM_PREFIX_ROWS = 3  # of a table with prefix tokens: from a prefix token, to one, between two


@register
class RelativePositions(keras.layers.Layer):
    """Adds a learned number to the score of each query and key, which depends on their offset in the grid.

    The table has a column per head. Its rows are for the offsets in the grid, from the most negative one on,
    columns fastest. If there are prefix tokens, three rows follow: for the scores of a prefix token for a
    patch, of a patch for a prefix token, and between prefix tokens.
    Reference: Bao et al., "BEiT" (https://arxiv.org/abs/2106.08254); timm 1.0.31, `models/beit.py`.

    Args:
        grid_size: (rows, columns) of the patches, which come last among the tokens.
        num_prefix_tokens: int, the number p of tokens before the patches.

    Call arguments:
        scores: tensor `(b, H, m, n)`.
        queries: slice of the n tokens, whose scores these are. Defaults to all.

    Output shape: that of `scores`.

    Raises:
        ValueError: at build, n differs from p plus the size of the grid.
    """

    def __init__(self, grid_size: Size, num_prefix_tokens: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        check_int("num_prefix_tokens", num_prefix_tokens, 0)
        self.grid_size, self.num_prefix_tokens = pair(grid_size, "grid_size"), num_prefix_tokens

    def build(self, input_shape: Shape) -> None:
        heads, n = input_shape[1], input_shape[3]
        check_num_tokens(n, self.grid_size, self.num_prefix_tokens)
        rows = table_rows(self.grid_size, self.num_prefix_tokens)
        self.table = self.add_weight(shape=(rows, heads), initializer="zeros", name="table")

    def call(self, scores: Tensor, queries: slice = slice(None)) -> Tensor:
        return scores + self.bias()[:, queries]

    def bias(self) -> Tensor:
        """Returns the numbers for all queries and keys, `(H, n, n)`."""
        (rows, columns), p = self.grid_size, self.num_prefix_tokens
        table = ops.transpose(self.table)  # (H, rows of the table)
        heads, n = table.shape[0], rows * columns
        x = ops.reshape(table[:, : (2 * rows - 1) * (2 * columns - 1)], (heads, 2 * rows - 1, -1))
        x = ops.take(ops.take(x, offsets(rows), axis=1), offsets(columns), axis=3)  # (H, r, r, c, c)
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4)), (heads, n, n))
        if not p:
            return x
        start, end, both = (table[:, i, None, None] for i in range(-NUM_PREFIX_ROWS, 0))
        first = [ops.broadcast_to(both, (heads, p, p)), ops.broadcast_to(start, (heads, p, n))]
        last = [ops.broadcast_to(end, (heads, n, p)), x]
        return ops.concatenate([ops.concatenate(row, axis=2) for row in (first, last)], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **arguments(self, "grid_size", "num_prefix_tokens")}


def table_rows(grid_size, num_prefix_tokens):
    """Returns the number of rows of the table for a grid of (rows, columns) patches."""
    rows, columns = grid_size
    return (2 * rows - 1) * (2 * columns - 1) + NUM_PREFIX_ROWS * (num_prefix_tokens > 0)


def relative_index(grid_size, num_prefix_tokens):
    """Returns the row of the table for each query and key, an int array `(n, n)`, for other libraries."""
    (rows, columns), p = grid_size, num_prefix_tokens
    across = offsets(rows)[:, None, :, None] * (2 * columns - 1) + offsets(columns)[:, None]
    last, n = table_rows(grid_size, p), p + rows * columns
    index = np.full((n, n), last - 1)  # between two prefix tokens
    index[:p, p:], index[p:, :p] = last - 3, last - 2
    index[p:, p:] = across.reshape(n - p, n - p)
    return index


def offsets(side):
    """Returns the offset of each query from each key along a side, from 0 on, `(side, side)`."""
    places = np.arange(side, dtype="int32")
    return places[:, None] - places + side - 1
