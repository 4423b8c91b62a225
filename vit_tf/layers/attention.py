"""Attention: the projections around it, and two ways to weigh the values in between.

Shapes in the comments: b batch, n tokens, d model width, H heads, k head width.
"""

import math

import keras
from keras import ops

from vit_tf.checks import shown
from vit_tf.layers.chunked_attention import (
    check_chunk_size,
    choose_chunk_size,
    chunked_attention,
    softmax,
)
from vit_tf.layers.fused_attention import fused_attention, has_fused_attention
from vit_tf.layers.hooks import HookedLayer
from vit_tf.layers.norms import make_norm, register
from vit_tf.layers.token_dense import TokenDense


def attention_spec(layer, shape, return_attention_scores):
    """Returns the symbolic output, of a `shape`, of a `layer` that can return its attention scores."""
    outputs = keras.KerasTensor(shape, layer.compute_dtype)
    if not return_attention_scores:
        return outputs
    b, n, _ = shape
    return outputs, keras.KerasTensor((b, layer.num_heads, n, n), layer.compute_dtype)


def with_scores(attention, inputs, return_attention_scores, training):
    """Returns the output of an `attention` and its scores: None where they are not asked for."""
    x = attention(inputs, return_attention_scores=return_attention_scores, training=training)
    return x if return_attention_scores else (x, None)


@register
class DotProductAttention(HookedLayer):
    """softmax(Q K^T / sqrt(k)) V per head, on queries, keys and values that are projected already.

    The softmax runs in float32 under half precision. All scores at once are computed for few tokens, or
    if they are asked for; else a block of queries at a time, or by the backend's fused kernel if it has one.

    Args:
        num_heads: int.
        qk_norm: bool, whether each head's queries and keys are normalised (ViT-22B,
            https://arxiv.org/abs/2302.05442, section 2).
        norm, norm_epsilon: of that norm, see `make_norm`.
        dropout_rate: float in [0, 1), dropout of the attention probabilities.
        query_chunk_size: int, how many queries have their scores in memory at a time, see
            `chunked_attention`; 0 for all. None chooses by the number of tokens.

    Call arguments:
        qkv: tensor `(b, n, 3 * num_heads * k)`: queries, keys, values, each with its heads one after
            the other.
        return_attention_scores: bool, whether to return the attention probabilities too.
        training: bool, whether dropout is active.

    Output: the weighted values `(b, n, num_heads * k)`; with `return_attention_scores` also the scores
    `(b, num_heads, n, n)`.

    Hooks (see `vit_tf.layers.hooks`): "qkv" on the input; "scores" on the attention probabilities, all of
    which are then computed at once.

    Raises:
        ValueError: `query_chunk_size` is neither None nor an int from 0.
    """

    def __init__(
        self,
        num_heads,
        qk_norm=False,
        norm="layer",
        norm_epsilon=1e-6,
        dropout_rate=0.0,
        query_chunk_size=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_chunk_size(query_chunk_size)
        self.num_heads = num_heads
        self.qk_norm = qk_norm
        self.norm = norm
        self.norm_epsilon = norm_epsilon
        self.dropout_rate = dropout_rate
        self.query_chunk_size = query_chunk_size
        self.dropout = keras.layers.Dropout(dropout_rate, dtype=self.dtype_policy, name="dropout")
        if qk_norm:
            self.query_norm = make_norm(norm, norm_epsilon, self.dtype_policy, "query_norm")
            self.key_norm = make_norm(norm, norm_epsilon, self.dtype_policy, "key_norm")

    def build_parts(self, input_shape):
        b, n, width = input_shape
        self.head_width = width // (3 * self.num_heads)
        if self.qk_norm:
            self.query_norm.build((b, self.num_heads, n, self.query_width))
            self.key_norm.build((b, self.num_heads, n, self.query_width))

    @property
    def query_width(self):
        """The width of a head's queries and keys."""
        return self.head_width

    def call(self, qkv, return_attention_scores=False, training=None):
        qkv = self.hooked("qkv", qkv)
        b, n, _ = ops.shape(qkv)
        heads, width = self.num_heads, self.head_width
        needs_scores = return_attention_scores or self.has_hook("scores")
        if self.may_fuse(needs_scores, training) and has_fused_attention(self.compute_dtype, width):
            query, key, value = ops.unstack(ops.reshape(qkv, (b, n, 3, heads, width)), 3, axis=2)
            query, key = self.normalize(query, key)  # (b, n, H, k)
            x = fused_attention(query, key, value, self.query_width**-0.5)
            return ops.reshape(x, (b, n, heads * width))
        query, key, value = self.split(qkv)
        if needs_scores or not self.block_size(qkv):
            scores = self.hooked("scores", self.softmax_scores(query, key))
            x = ops.matmul(self.dropout(scores, training=training), value)
        else:
            x = self.chunked_attention(query, key, value, self.block_size(qkv), training)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (b, n, heads * width))
        return (x, scores) if return_attention_scores else x

    def split(self, qkv):
        """Returns queries, keys and values, each `(b, H, n, k)`."""
        b, n, _ = ops.shape(qkv)
        qkv = ops.reshape(qkv, (b, n, 3, self.num_heads, self.head_width))
        return ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), 3)

    def scores(self, qkv, queries=slice(None)):
        """Returns the attention probabilities `(b, H, m, n)` of some of the queries, a slice."""
        query, key, _ = self.split(qkv)
        return self.softmax_scores(query[:, :, queries], key)

    def may_fuse(self, needs_scores, training):
        """Whether a kernel will do that knows neither scores, nor dropout, nor blocks of our choice."""
        return not (needs_scores or (training and self.dropout_rate) or self.query_chunk_size)

    def block_size(self, qkv):
        return choose_chunk_size(qkv.shape[1], self.query_chunk_size)

    def normalize(self, query, key):
        return (self.query_norm(query), self.key_norm(key)) if self.qk_norm else (query, key)

    def softmax_scores(self, query, key):
        """Returns the attention probabilities `(..., n, n)` of `(..., n, query_width)`."""
        query, key = self.normalize(query, key)
        scores = ops.matmul(query * self.query_width**-0.5, ops.swapaxes(key, -1, -2))
        return ops.cast(softmax(scores), self.compute_dtype)

    def chunked_attention(self, query, key, value, block_size, training):
        """Returns the weighted values `(b, H, n, k)`."""
        query, key = self.normalize(query, key)
        dropout = {}
        if training and self.dropout_rate:
            dropout = dict(dropout_rate=self.dropout_rate, seed_generator=self.dropout.seed_generator)
        return chunked_attention(query * self.query_width**-0.5, key, value, block_size, **dropout)

    def compute_output_spec(self, qkv, return_attention_scores=False, training=None):
        b, n, width = qkv.shape
        return attention_spec(self, (b, n, width // 3), return_attention_scores)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "qk_norm": self.qk_norm,
            "norm": self.norm,
            "norm_epsilon": self.norm_epsilon,
            "dropout_rate": self.dropout_rate,
            "query_chunk_size": self.query_chunk_size,
        }


@register
class DifferentialAttention(DotProductAttention):
    """The difference of two softmax maps per head, which cancels what both attend to.

    Each head's queries and keys are halved: (softmax(Q1 K1^T) - lambda softmax(Q2 K2^T)) V, with a
    learned lambda, then a norm per head and a constant factor 1 - lambda_init.
    Reference: Ye et al., "Differential Transformer" (https://arxiv.org/abs/2410.05258), eq. 1 to 3.

    Args:
        num_heads, qk_norm, norm, norm_epsilon, dropout_rate, query_chunk_size: see
            `DotProductAttention`. In blocks each map weighs the values by itself.
        block_index: int, the depth of the layer, which lambda_init = 0.8 - 0.6 exp(-0.3 index) needs.

    Call arguments and output: as `DotProductAttention`; the scores are the difference, whose rows
    sum to 1 - lambda.

    Raises:
        ValueError: at build, the width of a head is odd.
    """

    def __init__(self, num_heads, block_index=0, **kwargs):
        super().__init__(num_heads, **kwargs)
        self.block_index = block_index
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * block_index)
        self.head_norm = keras.layers.RMSNormalization(
            epsilon=1e-5, dtype=self.dtype_policy, name="head_norm"
        )

    @property
    def query_width(self):
        return self.head_width // 2

    def build_parts(self, input_shape):
        super().build_parts(input_shape)
        if self.head_width % 2:
            raise ValueError(
                f"differential attention halves its heads, and {self.head_width} is odd: choose `num_heads` "
                "or `head_dim` so that a head's width is even"
            )
        b, n, _ = input_shape
        self.head_norm.build((b, self.num_heads, n, 2 * self.query_width))
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            weight = self.add_weight(
                shape=(self.query_width,),
                initializer=keras.initializers.RandomNormal(stddev=0.1),
                autocast=False,  # float32: it goes through an exponential
                name=name,
            )
            setattr(self, name, weight)

    def call(self, qkv, return_attention_scores=False, training=None):
        qkv = self.hooked("qkv", qkv)
        b, n, _ = ops.shape(qkv)
        heads, width, half = self.num_heads, self.head_width, self.query_width
        query, key, value = self.split(qkv)
        if return_attention_scores or self.has_hook("scores") or not self.block_size(qkv):
            pair = self.softmax_scores(query, key)  # (b, H, 2, n, n)
            scores = self.difference(pair)
            weights = self.difference(self.dropout(pair, training=training))
            x = ops.matmul(self.hooked("scores", weights), value)
        else:
            factor = ops.cast(self.compute_lambda(), self.compute_dtype)
            query, key = (ops.reshape(x, (b, 2 * heads, n, half)) for x in (query, key))
            both = ops.repeat(value, 2, axis=1)  # (b, 2 H, n, k)
            x = self.chunked_attention(query, key, both, self.block_size(qkv), training)
            x = x[:, ::2] - factor * x[:, 1::2]
        x = self.head_norm(x) * (1 - self.lambda_init)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (b, n, heads * width))
        return (x, scores) if return_attention_scores else x

    def split(self, qkv):
        """Returns queries and keys, each `(b, H, 2, n, k / 2)`, and values `(b, H, n, k)`."""
        b, n, _ = ops.shape(qkv)
        query, key, value = ops.split(qkv, 3, axis=-1)
        query, key = (
            ops.transpose(ops.reshape(x, (b, n, self.num_heads, 2, self.query_width)), (0, 2, 3, 1, 4))
            for x in (query, key)
        )
        value = ops.reshape(value, (b, n, self.num_heads, self.head_width))
        return query, key, ops.transpose(value, (0, 2, 1, 3))

    def scores(self, qkv, queries=slice(None)):
        """Returns the differences of the probabilities, `(b, H, m, n)`, of some of the queries, a slice."""
        query, key, _ = self.split(qkv)
        return self.difference(self.softmax_scores(query[:, :, :, queries], key))

    def difference(self, pair):
        """Returns the difference `(b, H, m, n)` of a pair of maps `(b, H, 2, m, n)`."""
        factor = ops.cast(self.compute_lambda(), self.compute_dtype)
        return pair[:, :, 0] - factor * pair[:, :, 1]

    def compute_lambda(self):
        """Returns the learned weight of the second map, a float32 scalar."""
        first = ops.exp(ops.sum(self.lambda_q1 * self.lambda_k1))
        return first - ops.exp(ops.sum(self.lambda_q2 * self.lambda_k2)) + self.lambda_init

    def get_config(self):
        return {**super().get_config(), "block_index": self.block_index}


def make_attention(kind, num_heads, block_index=0, **options):
    """Returns the attention of a `kind`: "softmax" or "differential", between its projections.

    Raises:
        ValueError: `kind` is neither.
    """
    if kind == "softmax":
        return DotProductAttention(num_heads, **options)
    if kind == "differential":
        return DifferentialAttention(num_heads, block_index=block_index, **options)
    raise ValueError(f'`attention` must be "softmax" or "differential", got {shown(kind)}')


@register
class MultiHeadSelfAttention(HookedLayer):
    """Multi-head self-attention with one 2-D projection to queries, keys and values.

    softmax(Q K^T / sqrt(k)) V per head, heads concatenated, then projected to the input's width
    (ViT paper, appendix A).

    Args:
        num_heads: int.
        head_dim: int, the width k of a head. Defaults to d // num_heads.
        qkv_bias: bool, whether queries, keys and values have a bias.
        projection_bias: bool, whether the output projection has a bias.
        attention: "softmax" (`DotProductAttention`) or "differential" (`DifferentialAttention`).
        qk_norm: bool, whether each head's queries and keys are normalised.
        sub_norm: bool, whether the heads' concatenation is normalised before the projection (BEiT-3).
        norm, norm_epsilon: of these norms, see `make_norm`.
        block_index: int, see `DifferentialAttention`.
        attention_dropout_rate: float in [0, 1), dropout of the attention probabilities.
        dropout_rate: float in [0, 1), dropout of the output.
        query_chunk_size: int or None, see `DotProductAttention`.

    Call arguments:
        inputs: tensor `(b, n, d)`.
        return_attention_scores: bool, whether to return the attention probabilities too.
        training: bool, whether dropout is active.

    Output shape: `(b, n, d)`; with `return_attention_scores` also `(b, num_heads, n, n)`, whose
    last axis sums to one (to 1 - lambda if differential): row q says how much token q attends to
    each token.

    Raises:
        ValueError: at build, `num_heads` does not divide d and no `head_dim` was given.

    Hooks (see `vit_tf.layers.hooks`): "tokens" on the input.
    """

    def __init__(
        self,
        num_heads,
        head_dim=None,
        qkv_bias=True,
        projection_bias=True,
        attention="softmax",
        qk_norm=False,
        sub_norm=False,
        norm="layer",
        norm_epsilon=1e-6,
        block_index=0,
        attention_dropout_rate=0.0,
        dropout_rate=0.0,
        query_chunk_size=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.qkv_bias = qkv_bias
        self.projection_bias = projection_bias
        self.attention = attention
        self.qk_norm = qk_norm
        self.sub_norm = sub_norm
        self.norm = norm
        self.norm_epsilon = norm_epsilon
        self.block_index = block_index
        self.attention_dropout_rate = attention_dropout_rate
        self.dropout_rate = dropout_rate
        self.query_chunk_size = query_chunk_size
        self.heads = make_attention(
            attention,
            num_heads,
            block_index,
            qk_norm=qk_norm,
            norm=norm,
            norm_epsilon=norm_epsilon,
            dropout_rate=attention_dropout_rate,
            query_chunk_size=query_chunk_size,
            dtype=self.dtype_policy,
            name="heads",
        )
        self.dropout = keras.layers.Dropout(dropout_rate, dtype=self.dtype_policy, name="dropout")

    def build_parts(self, input_shape):
        *leading, d = input_shape
        self.head_width = head_width(d, self.num_heads, self.head_dim)
        inner_dim = self.num_heads * self.head_width
        self.qkv = TokenDense(
            3 * inner_dim,
            use_bias=self.qkv_bias,
            kernel_initializer=per_matrix_glorot(d, inner_dim),
            dtype=self.dtype_policy,
            name="qkv",
        )
        self.qkv.build(input_shape)
        self.heads.build((*leading, 3 * inner_dim))
        self.inner_norm = None
        if self.sub_norm:
            self.inner_norm = make_norm(self.norm, self.norm_epsilon, self.dtype_policy, "inner_norm")
            self.inner_norm.build((*leading, inner_dim))
        self.projection = TokenDense(
            d, use_bias=self.projection_bias, dtype=self.dtype_policy, name="projection"
        )
        self.projection.build((*leading, inner_dim))

    def call(self, inputs, return_attention_scores=False, training=None):
        qkv = self.qkv(self.hooked("tokens", inputs))
        x, scores = with_scores(self.heads, qkv, return_attention_scores, training)
        if self.inner_norm is not None:
            x = self.inner_norm(x)
        x = self.dropout(self.projection(x), training=training)  # (b, n, d)
        return (x, scores) if return_attention_scores else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs, return_attention_scores=False, training=None):
        return attention_spec(self, inputs.shape, return_attention_scores)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "qkv_bias": self.qkv_bias,
            "projection_bias": self.projection_bias,
            "attention": self.attention,
            "qk_norm": self.qk_norm,
            "sub_norm": self.sub_norm,
            "norm": self.norm,
            "norm_epsilon": self.norm_epsilon,
            "block_index": self.block_index,
            "attention_dropout_rate": self.attention_dropout_rate,
            "dropout_rate": self.dropout_rate,
            "query_chunk_size": self.query_chunk_size,
        }


def head_width(width, num_heads, head_dim=None):
    """Returns the width of a head; a ValueError where `num_heads` does not divide `width`."""
    if head_dim is None and width % num_heads:
        raise ValueError(
            f"{num_heads} heads do not divide the width {width}: choose a divisor of {width} as "
            "`num_heads`, or give `head_dim`"
        )
    return head_dim or width // num_heads


def per_matrix_glorot(rows, columns):
    """Glorot's uniform initialiser for matrices (rows, columns) that stand side by side in a kernel."""
    limit = (6 / (rows + columns)) ** 0.5
    return keras.initializers.RandomUniform(-limit, limit)
