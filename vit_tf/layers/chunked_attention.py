"""softmax(Q K^T) V in memory that grows with the tokens, not with their square: a block of queries at a time.

Shapes in the comments: b batch, H heads, n tokens, m queries of a block, k head width.
"""

from numbers import Integral

import keras
from keras import ops

from vit_tf.checks import shown

# Measured on a CPU with 12 heads. At 4,097 tokens blocks of 256 to 1,024 take the same time, and 512 an
# eighth of the memory. Training computes scores twice, a third more work: up to 1,024 tokens (50 MB of scores
# an image and layer) that is not worth the memory.
MAX_UNCHUNKED, BLOCK_SIZE = 1024, 512


def check_chunk_size(value):
    """Raises a ValueError unless `query_chunk_size` may have this value."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 0):
        raise ValueError(
            f"`query_chunk_size` must be an int from 0 (0 for no chunks) or None, got {shown(value)}"
        )


def choose_chunk_size(num_tokens, query_chunk_size=None):
    """Returns how many queries a block has, or 0 where there are no blocks.

    Args:
        num_tokens: int, or None where it is unknown, which allows no blocks.
        query_chunk_size: int, 0 for no chunks; None chooses by the number of tokens.
    """
    if query_chunk_size is None:
        query_chunk_size = BLOCK_SIZE if (num_tokens or 0) > MAX_UNCHUNKED else 0
    return query_chunk_size if num_tokens and num_tokens > query_chunk_size else 0


def chunked_attention(query, key, value, block_size, dropout_rate=0.0, seed_generator=None):
    """Returns softmax(Q K^T) V, without ever having the scores of more than one block of queries.

    The backward pass computes a block's scores again rather than keeping them. Rows of the softmax are
    whole, so the result is exact.

    Reference: Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory"
    (https://arxiv.org/abs/2112.05682); the backward pass is that of Dao et al., "FlashAttention"
    (https://arxiv.org/abs/2205.14135), appendix B.2, over blocks of queries alone.

    Args:
        query, key: tensors `(b, H, n, k)` of a floating dtype, scaled; n must be known.
        value: tensor `(b, H, n, any width)`.
        block_size: int, the most queries in a block.
        dropout_rate: float in [0, 1), dropout of the probabilities.
        seed_generator: a `keras.random.SeedGenerator`, for dropout.

    Returns:
        A tensor of the shape and dtype of `value`.
    """
    blocks = split_evenly(query.shape[2], block_size)
    seeds = [seed_generator.next() for _ in blocks] if dropout_rate else []

    @ops.custom_gradient
    def attend(query, key, value, *seeds):
        def dropout(x, index):
            return keras.random.dropout(x, dropout_rate, seed=FixedSeed(seeds[index])) if seeds else x

        outputs, done = [], ()
        for i, block in enumerate(blocks):
            (q,) = optimization_barrier(done, query[:, :, block])  # (b, H, m, k)
            scores = softmax(matmul_transposed(q, key))  # (b, H, m, n)
            x = ops.matmul(dropout(ops.cast(scores, value.dtype), i), value)
            outputs.append(x)
            done = (x,)
        x = ops.concatenate(outputs, axis=2)
        output = ops.stop_gradient(x)  # `x` itself would hold itself in memory on PyTorch

        def backward(*args, upstream=None):  # PyTorch's has a name
            gradient = args[0] if upstream is None else upstream
            gradients = chunked_attention_backward(query, key, value, output, gradient, blocks, dropout)
            return (*gradients, *[None] * len(seeds))

        return x, backward

    return attend(query, key, value, *seeds)


def chunked_attention_backward(query, key, value, output, gradient, blocks, dropout):
    """Returns the gradients of query, key and value for that of the output."""
    dtype = keras.backend.result_type(query.dtype, "float32")  # of the softmax and of all sums
    inner = ops.sum(ops.cast(output, dtype) * ops.cast(gradient, dtype), axis=-1, keepdims=True)
    query_gradients, key_gradient, value_gradient, done = [], 0, 0, (gradient,)
    for i, block in enumerate(blocks):
        q, g = optimization_barrier(done, query[:, :, block], gradient[:, :, block])  # (b, H, m, k)
        scores = softmax(matmul_transposed(q, key))  # (b, H, m, n)
        dropped = dropout(ops.cast(scores, value.dtype), i)
        value_gradient += ops.cast(ops.matmul(ops.swapaxes(dropped, -1, -2), g), dtype)
        # Dropout is a product with a mask: it is its own gradient.
        scores_gradient = ops.cast(dropout(matmul_transposed(g, value), i), dtype)
        scores_gradient = ops.cast(scores * (scores_gradient - inner[:, :, block]), query.dtype)
        query_gradients.append(ops.matmul(scores_gradient, key))
        key_gradient += ops.cast(ops.matmul(ops.swapaxes(scores_gradient, -1, -2), q), dtype)
        done = (query_gradients[-1], key_gradient, value_gradient)
    query_gradient = ops.concatenate(query_gradients, axis=2)
    return query_gradient, ops.cast(key_gradient, key.dtype), ops.cast(value_gradient, value.dtype)


def softmax(scores):
    """Returns the softmax over the last axis, in float32 under half precision."""
    return ops.softmax(ops.cast(scores, "float32") if is_half(scores.dtype) else scores)


def is_half(dtype):
    return keras.backend.standardize_dtype(dtype) in ("float16", "bfloat16")


class FixedSeed(keras.random.SeedGenerator):
    """A seed that stays the same, so that the backward pass draws a mask again."""

    def __init__(self, seed):
        self.seed = seed
        self._initial_seed = 0  # Keras on PyTorch would take None for PyTorch's own generator

    def next(self, ordered=True):
        return self.seed


def split_evenly(n, block_size):
    """Returns slices: the fewest of at most `block_size` rows whose sizes differ by one at most."""
    count = -(-n // block_size)
    bounds = [n * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in zip(bounds, bounds[1:])]


def optimization_barrier(done, *tensors):
    """Returns `tensors` once the tensors in `done` are computed.

    A graph's executor would compute blocks that do not need each other at the same time, and a compiler
    would keep the forward pass's scores for the backward pass, which computes the same. So these must seem
    to need `done`: no tanh is above 2, but no compiler knows.
    """
    if not done or keras.backend.backend() == "torch":  # which computes in order
        return tensors
    largest = sum(ops.tanh(ops.cast(ops.max(x, initial=0), "float32")) for x in done)
    return [ops.where(largest > 2 * len(done), ops.zeros((), x.dtype), x) for x in tensors]


def matmul_transposed(x, y):
    return ops.matmul(x, ops.swapaxes(y, -1, -2))
