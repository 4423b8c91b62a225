"""Multi-head self-attention: the projections around core attention.

Shapes in the comments: b batch, n tokens, d model width, H heads, k head width.
"""

from typing import Any

import keras
from keras import ops

from vit_tf.config import AttentionConfig, Shape, Tensor
from vit_tf.layers.composite import register
from vit_tf.layers.configured import ConfiguredLayer
from vit_tf.layers.core_attention import attention_spec, make_core_attention, with_scores
from vit_tf.layers.dropout import Dropout
from vit_tf.layers.token_dense import TokenDense


@register
class MultiHeadSelfAttention(ConfiguredLayer):
    """Multi-head self-attention with one 2-D projection to queries, keys and values.

    softmax(Q K^T / sqrt(k)) V per head, heads concatenated, then projected to the input's width
    (ViT paper, appendix A).

    Args:
        num_heads: int.
        **kwargs: the other fields of `vit_tf.config.AttentionConfig`, such as `qk_norm=True`.

    Call arguments:
        inputs: tensor `(b, n, d)`.
        return_attention_scores: bool, whether to return the attention probabilities, too.
        training: bool, whether dropout is active.
        grid: the patch grid of images of any size, see `vit_tf.layers.PatchGrid`; None for `grid_size`.

    Output shape: `(b, n, d)`; with `return_attention_scores` also `(b, num_heads, n, n)`.

    Raises:
        ValueError: an invalid option; at build, `num_heads` does not divide d and `head_dim` is None.

    Hooks (see `vit_tf.layers.hooks`): "tokens" on the input.
    """

    config_class = AttentionConfig

    def __init__(self, num_heads: int, **kwargs: Any):
        super().__init__(num_heads=num_heads, **kwargs)
        self.core_attention = make_core_attention(self.config, self.dtype_policy)
        self.dropout = Dropout(self.config.dropout_rate, dtype=self.dtype_policy, name="dropout")

    def build_parts(self, input_shape: Shape) -> None:
        *leading, d = input_shape
        config, dtype = self.config, self.dtype_policy
        self.head_width = head_width(d, config.num_heads, config.head_dim)
        inner_dim = config.num_heads * self.head_width
        kv_dim = (config.num_kv_heads or config.num_heads) * self.head_width
        self.qkv = TokenDense(
            inner_dim + 2 * kv_dim,
            use_bias=config.qkv_bias is True,
            kernel_initializer=per_matrix_glorot(d, inner_dim),
            dtype=dtype,
            name="qkv",
        )
        self.qkv.build(input_shape)
        if config.qkv_bias == "qv":
            self.query_bias = self.add_weight(shape=(inner_dim,), initializer="zeros", name="query_bias")
            self.value_bias = self.add_weight(shape=(kv_dim,), initializer="zeros", name="value_bias")
        self.core_attention.build((*leading, inner_dim + 2 * kv_dim))
        self.inner_norm = None
        if config.sub_norm in (True, "attention"):
            self.inner_norm = self.make_norm("inner_norm")
            self.inner_norm.build((*leading, inner_dim))
        self.projection = TokenDense(d, use_bias=config.projection_bias, dtype=dtype, name="projection")
        self.projection.build((*leading, inner_dim))

    def call(
        self,
        inputs: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
        grid: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        qkv = self.qkv(self.hooked("tokens", inputs))
        if self.config.qkv_bias == "qv":
            zeros = ops.zeros(self.value_bias.shape, self.compute_dtype)
            qkv = qkv + ops.concatenate([self.query_bias, zeros, self.value_bias])
        x, scores = with_scores(self.core_attention, qkv, return_attention_scores, training, grid)
        if self.inner_norm is not None:
            x = self.inner_norm(x)
        x = self.dropout(self.projection(x), training=training)  # (b, n, d)
        return (x, scores) if return_attention_scores else x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def compute_output_spec(
        self,
        inputs: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
        grid: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        return attention_spec(self, inputs.shape, return_attention_scores)


def head_width(width, num_heads, head_dim=None):
    """Returns the width of a head: `head_dim`, or else an equal share of `width`.

    Raises:
        ValueError: `head_dim` is None and `num_heads` does not divide `width`.
    """
    if head_dim is None and width % num_heads:
        raise ValueError(
            f"{num_heads} heads do not divide the width {width}: choose a divisor of {width} as "
            "`num_heads`, or give `head_dim`"
        )
    return head_dim or width // num_heads


def per_matrix_glorot(rows, columns):
    """Glorot's uniform initializer for matrices (rows, columns) that stand side by side in a kernel."""
    limit = (6 / (rows + columns)) ** 0.5
    return keras.initializers.RandomUniform(-limit, limit)
