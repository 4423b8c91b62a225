"""softmax(Q K^T) V, one chunk of queries at a time: memory grows linearly with the number of tokens.

Shapes in the comments: b batch, H heads, n tokens, m queries of a chunk, k head width.
"""

import keras
from keras import ops

from vit_tf.layers.norms import use_kernels


def chunked_attention(
    query, key, value, chunk_size, scale=1.0, dropout_rate=0.0, seed_generator=None, bias=None
):
    """Returns softmax(scale Q K^T + bias) V with the scores of only one chunk of queries in memory.

    The backward pass computes the scores of a chunk again instead of keeping them. Each softmax runs over all
    keys, so the result is exact.

    Reference: Rabe and Staats, "Self-attention Does Not Need O(n^2) Memory"
    (https://arxiv.org/abs/2112.05682); the backward pass is that of Dao et al., "FlashAttention"
    (https://arxiv.org/abs/2205.14135), appendix B.2, with chunks of queries only.

    Args:
        query, key: tensors `(b, H, n, k)` of a floating dtype; n must be known.
        value: tensor `(b, H, n, any width)`.
        chunk_size: int, the maximum number of queries in a chunk.
        scale: float, factor on the queries.
        dropout_rate: float in [0, 1), dropout of the probabilities.
        seed_generator: a `keras.random.SeedGenerator`, for dropout.
        bias: tensor `(H, n, n)`, added to the scores; None for none.

    Returns:
        A tensor `(b, n, H, any width)` of the dtype of `value`.
    """
    chunks = split_evenly(query.shape[2], chunk_size)
    seeds = [seed_generator.next() for _ in chunks] if dropout_rate else []
    num_biases = int(bias is not None)

    @ops.custom_gradient
    def attend(query, key, value, *others):
        biases, seeds = others[:num_biases], others[num_biases:]

        def dropout(x, index):
            return keras.random.dropout(x, dropout_rate, seed=FixedSeed(seeds[index])) if seeds else x

        outputs, previous = [], ()
        for i, chunk in enumerate(chunks):
            (q,) = optimization_barrier(previous, query[:, :, chunk])  # (b, H, m, k)
            scores = chunk_scores(q * scale, key, biases, chunk)
            x = ops.matmul(dropout(ops.cast(scores, value.dtype), i), value)
            outputs.append(x)
            previous = (x,)

        def backward(*args, upstream=None):  # PyTorch passes it by name
            gradient = args[0] if upstream is None else upstream
            gradients = chunked_attention_backward(
                query, key, value, scale, biases, output, gradient, chunks, dropout
            )
            return (*gradients, *[None] * len(seeds))

        x = ops.transpose(ops.concatenate(outputs, axis=2), (0, 2, 1, 3))
        output = ops.stop_gradient(x)  # on PyTorch, `x` would keep itself in memory
        return x, backward

    return attend(query, key, value, *[bias] * num_biases, *seeds)


def chunk_scores(query, key, biases, chunk):
    """Returns the attention probabilities `(b, H, m, n)` of the scaled queries in a chunk, a slice."""
    scores = matmul_transposed(query, key)
    for bias in biases:
        scores = scores + bias[:, chunk]
    return softmax(scores)


def chunked_attention_backward(query, key, value, scale, biases, output, gradient, chunks, dropout):
    """Returns the gradients with respect to query, key, value and each bias, from that of the output."""
    dtype = keras.backend.result_type(query.dtype, "float32")  # of the softmax and of its sums
    sum_dtype = dtype if len(chunks) > 1 else query.dtype  # of the sums over chunks
    inner = ops.sum(ops.cast(output, dtype) * ops.cast(gradient, dtype), axis=-1)
    inner = ops.expand_dims(ops.swapaxes(inner, 1, 2), -1)  # (b, H, n, 1)
    gradient = ops.swapaxes(gradient, 1, 2)
    barrier = optimization_barrier if len(chunks) > 1 else execution_barrier
    query_gradients, key_gradient, value_gradient, previous = [], 0, 0, (gradient,)
    bias_gradients = []
    for i, chunk in enumerate(chunks):
        q, g = barrier(previous, query[:, :, chunk], gradient[:, :, chunk])  # (b, H, m, k)
        q = q * scale
        scores = chunk_scores(q, key, biases, chunk)
        dropped = dropout(ops.cast(scores, value.dtype), i)
        value_gradient += ops.cast(ops.matmul(ops.swapaxes(dropped, -1, -2), g), sum_dtype)
        # Dropout is a product with a mask: it is its own gradient.
        scores_gradient = ops.cast(dropout(matmul_transposed(g, value), i), dtype)
        scores_gradient = scores * (scores_gradient - inner[:, :, chunk])
        if biases:
            bias_gradients.append(ops.sum(scores_gradient, axis=0))  # (H, m, n)
        scores_gradient = ops.cast(scores_gradient, query.dtype)
        query_gradients.append(ops.matmul(scores_gradient, key) * scale)
        key_gradient += ops.cast(ops.matmul(ops.swapaxes(scores_gradient, -1, -2), q), sum_dtype)
        previous = (query_gradients[-1], key_gradient, value_gradient)
    gradients = [ops.concatenate(query_gradients, axis=2), key_gradient, value_gradient]
    if biases:
        gradients.append(ops.concatenate(bias_gradients, axis=1))
    return [ops.cast(x, tensor.dtype) for x, tensor in zip(gradients, (query, key, value, *biases))]


def softmax(scores, training=None):
    """Returns the softmax over the last axis; computed in float32 under half precision.

    With `training` on TensorFlow its gradient is one kernel.
    """
    if use_kernels(training) and scores.shape[-1]:
        from vit_tf.layers import tensorflow_kernels

        return tensorflow_kernels.softmax(scores)
    return ops.softmax(ops.cast(scores, "float32") if is_half(scores.dtype) else scores)


def is_half(dtype):
    return keras.backend.standardize_dtype(dtype) in ("float16", "bfloat16")


class FixedSeed(keras.random.SeedGenerator):
    """A seed that stays the same, so that the backward pass draws the same mask again."""

    def __init__(self, seed):
        self.seed = seed
        self._initial_seed = 0  # on PyTorch, Keras reads None as PyTorch's own generator

    def next(self, ordered=True):
        return self.seed


def split_evenly(n, chunk_size):
    """Returns the fewest slices of at most `chunk_size` rows; their sizes differ by one at most."""
    count = -(-n // chunk_size)
    bounds = [n * i // count for i in range(count + 1)]
    return [slice(start, stop) for start, stop in zip(bounds, bounds[1:])]


def optimization_barrier(dependencies, *tensors):
    """Returns `tensors`, made to depend on `dependencies`.

    Without the barrier, the executor of a graph runs independent chunks at the same time, and a compiler
    keeps the scores of the forward pass for the backward pass. The condition of `where` is never true, since
    |tanh| <= 1, but no compiler can prove that.
    """
    if not dependencies or keras.backend.backend() == "torch":  # PyTorch computes in order
        return tensors
    largest = sum(ops.tanh(ops.cast(ops.max(x, initial=0), "float32")) for x in dependencies)
    return [ops.where(largest > 2 * len(dependencies), ops.zeros((), x.dtype), x) for x in tensors]


def execution_barrier(dependencies, *tensors):
    """`optimization_barrier` where little is gained: on TensorFlow it costs no time, and XLA removes it."""
    if keras.backend.backend() != "tensorflow":
        return optimization_barrier(dependencies, *tensors)
    import tensorflow as tf

    with tf.control_dependencies(dependencies):
        return [tf.identity(x) for x in tensors]


def matmul_transposed(x, y):
    return ops.matmul(x, ops.swapaxes(y, -1, -2))
