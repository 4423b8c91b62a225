"""Relative positions: the bias of the scores, and every path through attention."""

import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.gradients import gradients
from support.layer_cases import random

from vit_tf import layers
from vit_tf.layers.relative_positions import relative_index

pytestmark = pytest.mark.every_backend
GRID, PREFIX, HEADS = (2, 3), 1, 2
OPTIONS = dict(relative_positions=True, grid_size=GRID, num_prefix_tokens=PREFIX)


def index_of_timm(rows, columns):
    """timm 1.0.31, `gen_relative_position_index` in `models/beit.py`, for one prefix token."""
    y, x = np.meshgrid(range(rows), range(columns), indexing="ij")
    y, x = y.ravel(), x.ravel()
    count = (2 * rows - 1) * (2 * columns - 1) + 3
    index = np.zeros((rows * columns + 1,) * 2, int)
    index[1:, 1:] = (y[:, None] - y + rows - 1) * (2 * columns - 1) + (x[:, None] - x + columns - 1)
    index[0, :], index[:, 0], index[0, 0] = count - 3, count - 2, count - 1
    return index


@pytest.mark.parametrize("grid", [(2, 3), (4, 1), (1, 1)])
def test_the_bias_is_that_of_timm(grid):
    layer = layers.RelativePositions(grid, 1)
    layer.build((2, HEADS, None, 1 + grid[0] * grid[1]))
    layer.table.assign(random(layer.table.shape))
    index = index_of_timm(*grid)
    np.testing.assert_array_equal(relative_index(grid, 1), index)
    expected = ops.convert_to_numpy(layer.table)[index].transpose(2, 0, 1)
    np.testing.assert_array_equal(layer.bias(), expected)


@pytest.mark.parametrize("prefix", [0, 3])
def test_other_numbers_of_prefix_tokens(prefix):
    layer = layers.RelativePositions(GRID, prefix)
    layer.build((2, HEADS, 4, 6 + prefix))
    layer.table.assign(random(layer.table.shape))
    assert layer.table.shape == (15 + 3 * bool(prefix), HEADS)
    index, table = relative_index(GRID, prefix), ops.convert_to_numpy(layer.table)
    np.testing.assert_array_equal(layer.bias(), table[index].transpose(2, 0, 1))
    np.testing.assert_array_equal(index[prefix:, prefix:], index_of_timm(*GRID)[1:, 1:])


def test_all_paths_through_attention_agree():
    chunked, whole = (layers.DotProductAttention(HEADS, query_chunk_size=size, **OPTIONS) for size in (3, 0))
    for layer in (chunked, whole):
        layer.build((2, 7, 24))
    randomize(chunked, 1.0)
    whole.set_weights(chunked.get_weights())
    qkv = random((2, 7, 24))
    x, scores = map(ops.convert_to_numpy, whole(qkv, return_attention_scores=True))
    np.testing.assert_allclose(chunked(qkv), x, atol=1e-5)
    np.testing.assert_allclose(whole.scores(qkv, slice(2, 5)), scores[:, :, 2:5], atol=1e-6)
    query, key, _ = ops.convert_to_numpy(qkv).reshape(2, 7, 3, HEADS, 4).transpose(2, 0, 3, 1, 4)
    logits = query @ key.swapaxes(2, 3) / 2 + ops.convert_to_numpy(whole.relative_positions.bias())
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    ours, theirs = (
        next(iter(gradients(layer, qkv, lambda y: ops.sum(ops.square(y))).values()))
        for layer in (chunked, whole)
    )
    assert np.abs(theirs).max() > 1e-3
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.tensorflow_only
def test_what_does_not_fit():
    with pytest.raises(ValueError, match="are 7 tokens, got 6"):
        layers.DotProductAttention(HEADS, **OPTIONS).build((2, 6, 24))
    with pytest.raises(ValueError, match="needs a known grid"):
        layers.DotProductAttention(HEADS, relative_positions=True)
    with pytest.raises(ValueError, match="needs attention='softmax', got 'differential'"):
        layers.DifferentialAttention(HEADS, attention="differential", **OPTIONS)
