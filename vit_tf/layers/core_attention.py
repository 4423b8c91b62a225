"""Core attention: how queries weigh the values, between the projections of `MultiHeadSelfAttention`.

Shapes in the comments: b batch, n tokens, m chosen queries, H heads, k head width.
"""

import math
from typing import Any

import keras
from keras import ops

from vit_tf.config import AttentionConfig, Shape, Tensor, shared_fields
from vit_tf.layers.chunked_attention import chunked_attention, softmax
from vit_tf.layers.composite import register
from vit_tf.layers.configured import ConfiguredLayer
from vit_tf.layers.dropout import Dropout
from vit_tf.layers.fused_attention import fused_attention, has_fused_attention
from vit_tf.layers.norms import use_kernels
from vit_tf.layers.relative_positions import RelativePositions
from vit_tf.layers.rotary import RotaryPositions

# Measured on a CPU with 12 heads. At 4,097 tokens, chunks of 256 to 1,024 queries take the same time, and 512
# need an eighth of the memory of all queries at once. Up to 1,024 tokens (50 MB of scores per image and
# layer) all queries fit at once. Training with TensorFlow then computes the scores again instead of keeping
# them: a ViT-B/16 at 224 pixels, batch 8, takes 0.2 GB less and as much time.
MAX_UNCHUNKED, CHUNK_SIZE = 1024, 512


def choose_chunk_size(num_tokens, query_chunk_size=None):
    """Returns how many queries a chunk has; 0 for no chunks.

    Args:
        num_tokens: int; None if unknown, which allows no chunks.
        query_chunk_size: int, 0 for no chunks; None chooses by the number of tokens.
    """
    if query_chunk_size is None:
        query_chunk_size = CHUNK_SIZE if (num_tokens or 0) > MAX_UNCHUNKED else 0
    return query_chunk_size if num_tokens and num_tokens > query_chunk_size else 0


def attention_spec(layer, shape, return_attention_scores):
    """Returns the symbolic output, of a `shape`, of a `layer` that can return its attention scores."""
    outputs = keras.KerasTensor(shape, layer.compute_dtype)
    if not return_attention_scores:
        return outputs
    b, n, _ = shape
    return outputs, keras.KerasTensor((b, layer.config.num_heads, n, n), layer.compute_dtype)


def with_scores(attention, inputs, return_attention_scores, training, grid=None):
    """Returns the output of an `attention` and its scores; None instead of scores that are not returned."""
    options = {} if grid is None else {"grid": grid}
    x = attention(inputs, return_attention_scores=return_attention_scores, training=training, **options)
    return x if return_attention_scores else (x, None)


def make_core_attention(config, dtype):
    """Returns the layer for `config.attention`: "softmax" or "differential".

    Args:
        config: an `AttentionConfig`.
        dtype: dtype policy of the layer.
    """
    layer_class = {"softmax": DotProductAttention, "differential": DifferentialAttention}[config.attention]
    return layer_class(**shared_fields(config, AttentionConfig), dtype=dtype, name="core_attention")


@register
class DotProductAttention(ConfiguredLayer):
    """softmax(Q K^T / sqrt(k)) V per head, of queries, keys and values that are projected already.

    The softmax runs in float32 under half precision. The backend's fused kernel computes the result if there
    is one (`can_fuse`). Else more than 1,024 tokens are computed one chunk of queries at a time
    (`choose_chunk_size`), and fewer at once. Training with TensorFlow then keeps no scores, either, unless
    there is dropout of scores or `query_chunk_size` is 0. Scores that are returned are computed at once.

    Args:
        num_heads: int.
        **kwargs: further fields of `vit_tf.config.AttentionConfig`: `qk_norm`, `norm`, `norm_epsilon`,
            `num_kv_heads`, `rotary`, `relative_positions`, `grid_size`, `num_prefix_tokens`,
            `attention_dropout_rate`, `query_chunk_size`. The options of the projections have no effect here.

    Call arguments:
        qkv: tensor `(b, n, (num_heads + 2 * num_kv_heads) * k)`: queries, keys, values, each with its heads
            concatenated.
        return_attention_scores: bool, whether to return the attention probabilities, too.
        training: bool, whether dropout is active.
        grid: the patch grid of images of any size, see `vit_tf.layers.PatchGrid`; None for `grid_size`.

    Output: the weighted values `(b, n, num_heads * k)`; with `return_attention_scores` also the scores
    `(b, num_heads, n, n)`.

    Hooks (see `vit_tf.layers.hooks`): "qkv" on the input; "scores" on the attention probabilities, which are
    then computed at once.
    """

    config_class = AttentionConfig

    def __init__(self, num_heads: int, **kwargs: Any):
        super().__init__(num_heads=num_heads, **kwargs)
        rate, dtype = self.config.attention_dropout_rate, self.dtype_policy
        self.dropout = Dropout(rate, dtype=dtype, name="dropout")
        if self.config.qk_norm:
            self.query_norm = self.make_norm("query_norm")
            self.key_norm = self.make_norm("key_norm")
        if self.config.rotary is not None:
            grid, prefix = self.config.grid_size, self.config.num_prefix_tokens
            options = dict(vars(self.config.rotary), dtype=dtype, name="rotary")
            self.rotary = RotaryPositions(grid, prefix, **options)
        self.relative_positions = None
        if self.config.relative_positions:
            self.relative_positions = RelativePositions(
                self.config.grid_size, self.config.num_prefix_tokens, dtype=dtype, name="relative_positions"
            )

    def build_parts(self, input_shape: Shape) -> None:
        b, n, width = input_shape
        self.head_width = width // (self.config.num_heads + 2 * self.num_kv_heads)
        shape = (b, self.config.num_heads, n, self.query_width)
        if self.config.qk_norm:
            self.query_norm.build(shape)
            self.key_norm.build((b, self.num_kv_heads, n, self.query_width))
        if self.config.rotary is not None:
            self.rotary.build(shape)
        if self.relative_positions is not None:
            self.relative_positions.build((b, self.config.num_heads, n, n))

    @property
    def num_kv_heads(self):
        """The number of heads of keys and values."""
        return self.config.num_kv_heads or self.config.num_heads

    @property
    def num_groups(self):
        """The number of heads of queries that share one head of keys and values."""
        return self.config.num_heads // self.num_kv_heads

    @property
    def query_width(self):
        """The width of a head's queries and keys."""
        return self.head_width

    def call(
        self,
        qkv: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
        grid: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        qkv = self.hooked("qkv", qkv)
        b, n, _ = ops.shape(qkv)
        heads, chunk_size = self.config.num_heads, self.chunk_size(qkv, training)
        needs_scores = return_attention_scores or self.has_hook("scores")
        if self.can_fuse(needs_scores, training):
            return ops.reshape(self.fused_attention(qkv, grid), (b, n, heads * self.head_width))
        query, key, value = self.split(qkv, grid)
        if needs_scores or not chunk_size:
            scores = self.hooked("scores", self.softmax_scores(query, key, training=training))
            x = ops.matmul(self.dropout(scores, training=training), value)
            x = ops.transpose(x, (0, 2, 1, 3))  # (b, n, H, k)
        else:
            x = self.chunked_attention(query, key, value, chunk_size, training)
        x = ops.reshape(x, (b, n, heads * self.head_width))
        return (x, scores) if return_attention_scores else x

    def prepare(
        self, query: Tensor, key: Tensor, grid: Tensor | None = None, tokens_first: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Returns queries and keys of all tokens as the scores take them: normalised, then turned.

        Every path calls it once, before any query is left out.

        Args:
            query, key: tensors `(b, H, n, query_width)`; `(b, n, H, query_width)` with `tokens_first`, as the
                fused kernel takes them.
            grid: see the class.
            tokens_first: bool, see above.
        """
        if self.config.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.config.rotary is None:
            return query, key
        factors = self.rotary.factors(grid, tokens_first)
        return self.rotary.turn(query, factors), self.rotary.turn(key, factors)

    def split(self, qkv: Tensor, grid: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns prepared queries and keys, and values, each `(b, H, n, k)`."""
        if self.num_groups > 1:
            query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in self.split_heads(qkv))
            return self.repeat_heads(query, key, value, grid)
        b, n, _ = ops.shape(qkv)
        qkv = ops.reshape(qkv, (b, n, 3, self.config.num_heads, self.head_width))
        query, key, value = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), 3)
        return *self.prepare(query, key, grid), value

    def split_heads(self, qkv: Tensor) -> list[Tensor]:
        """Returns queries, keys and values, each `(b, n, its heads, k)`."""
        b, n, _ = ops.shape(qkv)
        counts = [self.config.num_heads, self.num_kv_heads, self.num_kv_heads]
        ends = [sum(counts[:i]) * self.head_width for i in (1, 2)]
        parts = ops.split(qkv, ends, axis=-1)
        return [ops.reshape(x, (b, n, count, self.head_width)) for x, count in zip(parts, counts)]

    def repeat_heads(
        self, query: Tensor, key: Tensor, value: Tensor, grid: Tensor | None, tokens_first: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns prepared queries and keys, and values; keys and values once for each query of a group."""
        query, key = self.prepare(query, key, grid, tokens_first)
        if self.num_groups > 1:
            axis = 2 if tokens_first else 1
            key, value = (ops.repeat(x, self.num_groups, axis=axis) for x in (key, value))
        return query, key, value

    def scores(self, qkv: Tensor, queries: slice = slice(None), grid: Tensor | None = None) -> Tensor:
        """Returns the attention probabilities `(b, H, m, n)` of the queries in a slice."""
        query, key, _ = self.split(qkv, grid)
        return self.softmax_scores(query[:, :, queries], key, queries)

    def softmax_scores(
        self, query: Tensor, key: Tensor, queries: slice = slice(None), training: bool | None = None
    ) -> Tensor:
        """Returns the attention probabilities `(..., m, n)` of prepared queries, which lie in a slice."""
        scores = ops.matmul(query * self.query_width**-0.5, ops.swapaxes(key, -1, -2))
        if self.relative_positions is not None:
            scores = self.relative_positions(scores, queries=queries)
        return ops.cast(softmax(scores, training), self.compute_dtype)

    def chunk_size(self, qkv: Tensor, training: bool | None = None) -> int:
        """Returns how many queries a chunk has; 0 for no chunks."""
        n = qkv.shape[1]
        chunk_size = choose_chunk_size(n, self.config.query_chunk_size)
        is_free = self.config.query_chunk_size is None and not self.config.attention_dropout_rate
        if not chunk_size and use_kernels(training) and is_free:
            return n or 0  # all at once, and yet the backward pass computes the scores again
        return chunk_size

    def chunked_attention(
        self, query: Tensor, key: Tensor, value: Tensor, chunk_size: int, training: bool | None
    ) -> Tensor:
        """Returns the weighted values `(b, n, H, k)`, one chunk of queries at a time."""
        options: dict[str, Any] = {}
        if self.relative_positions is not None:
            options["bias"] = self.relative_positions.bias()
        if training and self.config.attention_dropout_rate:
            rate, seed_generator = self.config.attention_dropout_rate, self.dropout.seed_generator
            options |= dict(dropout_rate=rate, seed_generator=seed_generator)
        return chunked_attention(query, key, value, chunk_size, self.query_width**-0.5, **options)

    def can_fuse(self, needs_scores: bool, training: bool | None) -> bool:
        """Whether the backend's fused kernel, without scores, dropout, bias and chunks, computes the same."""
        drops = training and self.config.attention_dropout_rate
        if needs_scores or drops or self.config.query_chunk_size or self.config.relative_positions:
            return False
        return has_fused_attention(self.compute_dtype, self.head_width)

    def fused_attention(self, qkv: Tensor, grid: Tensor | None = None) -> Tensor:
        """Returns the weighted values `(b, n, H, k)` by the backend's fused kernel."""
        query, key, value = self.split_heads(qkv)
        heads = self.repeat_heads(query, key, value, grid, tokens_first=True)
        return fused_attention(*heads, self.query_width**-0.5)

    def compute_output_spec(
        self,
        qkv: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
        grid: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        b, n, width = qkv.shape
        heads = self.config.num_heads
        width = width // (heads + 2 * self.num_kv_heads) * heads
        return attention_spec(self, (b, n, width), return_attention_scores)


@register
class DifferentialAttention(DotProductAttention):
    """The difference of two softmax maps per head, which cancels what both maps attend to.

    Each head's queries and keys are halved: (softmax(Q1 K1^T) - lambda softmax(Q2 K2^T)) V, with a learned
    lambda, then a norm per head and a constant factor 1 - lambda_init. lambda_init is
    0.8 - 0.6 exp(-0.3 block_index). In chunks, each map weighs the values by itself.
    Reference: Ye et al., "Differential Transformer" (https://arxiv.org/abs/2410.05258), eq. 1 to 3.

    Args:
        num_heads: int.
        **kwargs: see `DotProductAttention`, and `block_index`.

    Call arguments and output: as `DotProductAttention`. The scores are the difference, whose rows sum to
    1 - lambda.

    Raises:
        ValueError: at build, the width of a head is odd.
    """

    def __init__(self, num_heads: int, **kwargs: Any):
        super().__init__(num_heads, **kwargs)
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * self.config.block_index)
        self.head_norm = keras.layers.RMSNormalization(
            epsilon=1e-5, dtype=self.dtype_policy, name="head_norm"
        )

    @property
    def query_width(self):
        return self.head_width // 2

    def build_parts(self, input_shape: Shape) -> None:
        super().build_parts(input_shape)
        if self.head_width % 2:
            raise ValueError(
                f"differential attention halves its heads, and {self.head_width} is odd: choose `num_heads` "
                "or `head_dim` so that a head's width is even"
            )
        b, n, _ = input_shape
        self.head_norm.build((b, self.config.num_heads, n, 2 * self.query_width))
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            weight = self.add_weight(
                shape=(self.query_width,),
                initializer=keras.initializers.RandomNormal(stddev=0.1),
                autocast=False,  # float32, for the exponential
                name=name,
            )
            setattr(self, name, weight)

    def call(
        self,
        qkv: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
        grid: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        qkv = self.hooked("qkv", qkv)
        b, n, _ = ops.shape(qkv)
        heads, chunk_size = self.config.num_heads, self.chunk_size(qkv)
        query, key, value = self.split(qkv, grid)
        if return_attention_scores or self.has_hook("scores") or not chunk_size:
            pair = self.softmax_scores(query, key, training=training)  # (b, H, 2, n, n)
            scores = self.difference(pair)
            weights = self.difference(self.dropout(pair, training=training))
            x = ops.matmul(self.hooked("scores", weights), value)
            x = ops.transpose(x, (0, 2, 1, 3))  # (b, n, H, k)
        else:
            factor = ops.cast(self.compute_lambda(), self.compute_dtype)
            query, key = (ops.reshape(x, (b, 2 * heads, n, self.query_width)) for x in (query, key))
            both = ops.repeat(value, 2, axis=1)  # (b, 2 H, n, k)
            x = self.chunked_attention(query, key, both, chunk_size, training)
            x = x[:, :, ::2] - factor * x[:, :, 1::2]
        x = self.head_norm(x) * (1 - self.lambda_init)
        x = ops.reshape(x, (b, n, heads * self.head_width))
        return (x, scores) if return_attention_scores else x

    def split(self, qkv: Tensor, grid: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Returns prepared queries and keys, each `(b, H, 2, n, k / 2)`, and values `(b, H, n, k)`."""
        b, n, _ = ops.shape(qkv)
        heads = self.config.num_heads
        query, key, value = ops.split(qkv, 3, axis=-1)
        query, key = (
            ops.transpose(ops.reshape(x, (b, n, heads, 2, self.query_width)), (0, 2, 3, 1, 4))
            for x in (query, key)
        )
        value = ops.transpose(ops.reshape(value, (b, n, heads, self.head_width)), (0, 2, 1, 3))
        return *self.prepare(query, key, grid), value

    def scores(self, qkv: Tensor, queries: slice = slice(None), grid: Tensor | None = None) -> Tensor:
        """Returns the differences of the probabilities, `(b, H, m, n)`, of the queries in a slice."""
        query, key, _ = self.split(qkv, grid)
        return self.difference(self.softmax_scores(query[:, :, :, queries], key))

    def difference(self, pair: Tensor) -> Tensor:
        """Returns the difference `(b, H, m, n)` of a pair of maps `(b, H, 2, m, n)`."""
        factor = ops.cast(self.compute_lambda(), self.compute_dtype)
        return pair[:, :, 0] - factor * pair[:, :, 1]

    def compute_lambda(self) -> Tensor:
        """Returns the learned weight of the second map, a float32 scalar."""
        first = ops.exp(ops.sum(self.lambda_q1 * self.lambda_k1))
        return first - ops.exp(ops.sum(self.lambda_q2 * self.lambda_k2)) + self.lambda_init
