"""The encoder blocks: how attention and MLP are joined to the residual stream.

`EncoderBlock` is the ViT's. `ResPostBlock` has its norms at the ends of the branches, `ParallelThingsBlock`
several attentions and MLPs side by side, `ParallelScalingBlock` attention and MLP side by side. All take
the same options.

Shapes in the comments: b batch, n tokens, d model width.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from vit_tf.config import AttentionConfig, BlockConfig, Shape, Tensor, shared_fields
from vit_tf.layers.attention import MultiHeadSelfAttention, head_width, per_matrix_glorot
from vit_tf.layers.composite import register
from vit_tf.layers.configured import ConfiguredLayer
from vit_tf.layers.core_attention import attention_spec, make_core_attention, with_scores
from vit_tf.layers.dropout import Dropout
from vit_tf.layers.mlp import Activation, get_activation, make_mlp
from vit_tf.layers.rematerialization import rematerialize
from vit_tf.layers.residual import DropPath, LayerScale
from vit_tf.layers.token_dense import TokenDense


class Block(ConfiguredLayer):
    """Base class of the encoder blocks: their options, and the layers that are made from the options.

    Args:
        num_heads: int.
        mlp_dim: int, the inner width of the MLP.
        activation: name or callable, see `get_activation`; of the MLP.
        **kwargs: the other fields of `vit_tf.config.BlockConfig`, which include those of `AttentionConfig`
            and `MLPConfig`.

    Call arguments:
        inputs: tensor `(b, n, d)`.
        return_attention_scores: bool, whether to return the attention probabilities, too.
        training: bool, whether dropout and DropPath are active.
        grid: the patch grid of images of any size, see `vit_tf.layers.PatchGrid`; None for `grid_size`.

    Output shape: `(b, n, d)`; with `return_attention_scores` also `(b, num_heads, n, n)`.

    Raises:
        ValueError: an invalid option; at build, `num_heads` does not divide d and `head_dim` is None.
    """

    config_class = BlockConfig

    def __init__(self, num_heads: int, mlp_dim: int, *, activation: Activation = "gelu", **kwargs: Any):
        activation = get_activation(activation)
        super().__init__(num_heads=num_heads, mlp_dim=mlp_dim, activation=activation, **kwargs)

    def rematerialized_call(self, layer_call: Callable, *args: Any, **kwargs: Any) -> Callable:
        """Keras calls this method in a `keras.RematScope`; see `rematerialize`."""
        if super().rematerialized_call(layer_call, *args, **kwargs) is layer_call:
            return layer_call  # the scope leaves this block out, or there are hooks
        return rematerialize(self, layer_call)

    # The layers of all subclasses are made here, so that each option is passed on in one place.

    def make_attention(self, name: str) -> keras.layers.Layer:
        options = shared_fields(self.config, AttentionConfig)
        return MultiHeadSelfAttention(**options, dtype=self.dtype_policy, name=name)

    def make_mlp(self, name: str) -> keras.layers.Layer:
        return make_mlp(self.config.mlp, self.config, self.dtype_policy, name)

    def make_scale(self, name: str) -> keras.layers.Layer:
        is_left_out = name.startswith("mlp") and not self.config.mlp_layer_scale
        if self.config.layer_scale_init is None or is_left_out:
            return keras.layers.Identity(dtype=self.dtype_policy, name=name)
        return LayerScale(self.config.layer_scale_init, dtype=self.dtype_policy, name=name)

    def make_drop_path(self, name: str) -> keras.layers.Layer:
        return DropPath(self.config.drop_path_rate, dtype=self.dtype_policy, name=name)

    def parts(self) -> list[keras.layers.Layer]:
        """Returns the layers inside that map tokens to tokens, in the order of their calls."""
        raise NotImplementedError

    def attention_layers(self) -> list[keras.layers.Layer]:
        """Returns the layers that have a `core_attention`: several if attentions lie side by side.

        Each runs the hook "tokens" on the tokens that it projects.
        """
        return [self.attention]

    def build_parts(self, input_shape: Shape) -> None:
        for layer in self.parts():
            layer.build(input_shape)

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


@register
class EncoderBlock(Block):
    """The ViT's block: x + attention(norm(x)), then x + mlp(norm(x)) (ViT paper, eq. 2 and 3).

    Args, call arguments and output shape: see `Block`.
    """

    def __init__(self, num_heads: int, mlp_dim: int, **kwargs: Any):
        super().__init__(num_heads, mlp_dim, **kwargs)
        self.attention_norm = self.make_norm("attention_norm")
        self.attention = self.make_attention("attention")
        self.attention_scale = self.make_scale("attention_scale")
        self.attention_drop_path = self.make_drop_path("attention_drop_path")
        self.mlp_norm = self.make_norm("mlp_norm")
        self.mlp = self.make_mlp("mlp")
        self.mlp_scale = self.make_scale("mlp_scale")
        self.mlp_drop_path = self.make_drop_path("mlp_drop_path")

    def parts(self) -> list[keras.layers.Layer]:
        attention = [self.attention_norm, self.attention, self.attention_scale]
        return attention + [self.mlp_norm, self.mlp, self.mlp_scale]

    def call(
        self,
        inputs: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
        grid: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        y = self.attention_norm(inputs)
        y, scores = with_scores(self.attention, y, return_attention_scores, training, grid)
        x = inputs + self.attention_drop_path(self.attention_scale(y), training=training)
        y = self.mlp(self.mlp_norm(x), training=training)
        x = x + self.mlp_drop_path(self.mlp_scale(y), training=training)
        return (x, scores) if return_attention_scores else x


@register
class ResPostBlock(Block):
    """A block with norms at the ends of the branches: x + norm(attention(x)), then x + norm(mlp(x)).

    The scales of the norms take the place of LayerScale: they start at `layer_scale_init`.
    Reference: Liu et al., "Swin Transformer V2" (https://arxiv.org/abs/2111.09883), section 3.2.

    Args, call arguments and output shape: see `Block`.
    """

    def __init__(self, num_heads: int, mlp_dim: int, **kwargs: Any):
        super().__init__(num_heads, mlp_dim, **kwargs)
        initial_scale = self.config.layer_scale_init
        self.attention = self.make_attention("attention")
        self.attention_norm = self.make_norm("attention_norm", initial_scale)
        self.attention_drop_path = self.make_drop_path("attention_drop_path")
        self.mlp = self.make_mlp("mlp")
        self.mlp_norm = self.make_norm("mlp_norm", initial_scale)
        self.mlp_drop_path = self.make_drop_path("mlp_drop_path")

    def parts(self) -> list[keras.layers.Layer]:
        return [self.attention, self.attention_norm, self.mlp, self.mlp_norm]

    def call(
        self,
        inputs: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
        grid: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        y, scores = with_scores(self.attention, inputs, return_attention_scores, training, grid)
        x = inputs + self.attention_drop_path(self.attention_norm(y), training=training)
        y = self.mlp_norm(self.mlp(x, training=training))
        x = x + self.mlp_drop_path(y, training=training)
        return (x, scores) if return_attention_scores else x


@register
class ParallelThingsBlock(Block):
    """Attentions side by side, then MLPs side by side: x + sum_i attention_i(norm_i(x)), ...

    Reference: Touvron et al., "Three things everyone should know about Vision Transformers"
    (https://arxiv.org/abs/2203.09795), section 3.

    Args:
        num_parallel: int, the number of attentions and of MLPs.
        num_heads, mlp_dim, **kwargs: see `Block`.

    Call arguments and output shape: see `Block`; the scores are the mean of the attentions'.
    """

    def __init__(self, num_heads: int, mlp_dim: int, num_parallel: int = 2, **kwargs: Any):
        super().__init__(num_heads, mlp_dim, **kwargs)
        self.num_parallel = num_parallel
        # One attribute per layer: Keras does not save layers in lists of tuples.
        for i in range(num_parallel):
            for part, make in (("attention", self.make_attention), ("mlp", self.make_mlp)):
                setattr(self, f"{part}_norm_{i}", self.make_norm(f"{part}_norm_{i}"))
                setattr(self, f"{part}_{i}", make(f"{part}_{i}"))
                setattr(self, f"{part}_scale_{i}", self.make_scale(f"{part}_scale_{i}"))
                setattr(self, f"{part}_drop_path_{i}", self.make_drop_path(f"{part}_drop_path_{i}"))

    def branches(self, part: str) -> Iterator[list[keras.layers.Layer]]:
        """Yields norm, attention or MLP, scale and DropPath of each branch."""
        for i in range(self.num_parallel):
            names = (f"{part}_norm_{i}", f"{part}_{i}", f"{part}_scale_{i}", f"{part}_drop_path_{i}")
            yield [getattr(self, name) for name in names]

    def attention_layers(self) -> list[keras.layers.Layer]:
        return [attention for _, attention, _, _ in self.branches("attention")]

    def parts(self) -> list[keras.layers.Layer]:
        branches = (*self.branches("attention"), *self.branches("mlp"))
        return [layer for *layers, _ in branches for layer in layers]

    def call(
        self,
        inputs: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
        grid: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        x, all_scores = inputs, []
        for norm, attention, scale, drop_path in self.branches("attention"):
            y, scores = with_scores(attention, norm(inputs), return_attention_scores, training, grid)
            x = x + drop_path(scale(y), training=training)
            all_scores.append(scores)
        tokens = x
        for norm, mlp, scale, drop_path in self.branches("mlp"):
            x = x + drop_path(scale(mlp(norm(tokens), training=training)), training=training)
        return (x, sum(all_scores) / self.num_parallel) if return_attention_scores else x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_parallel": self.num_parallel}


@register
class ParallelScalingBlock(Block):
    """Attention and MLP side by side after one norm and one matrix: x + attention(y) + mlp(y), y = norm(x).

    With differential attention, attention and MLP also share the output matrix.
    Reference: Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters"
    (https://arxiv.org/abs/2302.05442), section 2.

    Args: see `Block`; `mlp` must be "mlp", and `sub_norm` must be False.

    Call arguments and output shape: see `Block`.

    Raises:
        ValueError: an invalid option; `mlp` or `sub_norm` is set; at build, `num_heads` does not divide d
            and `head_dim` is None.

    Hooks (see `vit_tf.layers.hooks`): "tokens" on the normalised tokens, which attention and MLP share.
    """

    def __init__(self, num_heads: int, mlp_dim: int, **kwargs: Any):
        super().__init__(num_heads, mlp_dim, **kwargs)
        config, dtype = self.config, self.dtype_policy
        if config.mlp != "mlp" or config.sub_norm or config.qkv_bias == "qv":
            only = '`mlp="mlp"`, `sub_norm=False` and `qkv_bias=True` or `False` only'
            raise ValueError(f"a parallel scaling block has {only}")
        self.shares_output = config.attention == "differential"
        self.norm = self.make_norm("norm")
        self.core_attention = make_core_attention(config, dtype)
        self.dropout = Dropout(config.dropout_rate, dtype=dtype, name="dropout")
        self.scale = self.make_scale("scale")
        self.drop_path = self.make_drop_path("drop_path")

    def build_parts(self, input_shape: Shape) -> None:
        *leading, d = input_shape
        config = self.config
        width = head_width(d, config.num_heads, config.head_dim)
        inner_dim = config.num_heads * width
        qkv_dim = inner_dim + 2 * self.core_attention.num_kv_heads * width
        self.norm.build(input_shape)
        self.in_projection = TokenDense(  # to the MLP's inner values, queries, keys and values
            config.mlp_dim + qkv_dim,
            use_bias=config.qkv_bias,
            kernel_initializer=per_matrix_glorot(d, inner_dim),
            dtype=self.dtype_policy,
            name="in_projection",
        )
        self.in_projection.build(input_shape)
        self.core_attention.build((*leading, qkv_dim))
        self.mlp_bias = None
        if not config.qkv_bias:
            self.mlp_bias = self.add_weight(shape=(config.mlp_dim,), initializer="zeros", name="mlp_bias")
        widths = {"attention_projection": inner_dim, "mlp_projection": config.mlp_dim}
        if self.shares_output:
            widths = {"out_projection": inner_dim + config.mlp_dim}
        for name, width in widths.items():
            layer = TokenDense(d, use_bias=config.projection_bias, dtype=self.dtype_policy, name=name)
            layer.build((*leading, width))
            setattr(self, name, layer)
        self.scale.build(input_shape)

    def attention_layers(self) -> list[keras.layers.Layer]:
        return [self]

    def call(
        self,
        inputs: Tensor,
        return_attention_scores: bool = False,
        training: bool | None = None,
        grid: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        y = self.in_projection(self.hooked("tokens", self.norm(inputs)))
        hidden, qkv = ops.split(y, [self.config.mlp_dim], axis=-1)
        if self.mlp_bias is not None:
            hidden = hidden + self.mlp_bias
        values, scores = with_scores(self.core_attention, qkv, return_attention_scores, training, grid)
        hidden = self.dropout(self.config.activation(hidden), training=training)  # (b, n, mlp_dim)
        if self.shares_output:
            y = self.out_projection(ops.concatenate([values, hidden], axis=-1))
        else:
            y = self.attention_projection(values) + self.mlp_projection(hidden)
        x = inputs + self.drop_path(self.scale(y), training=training)
        return (x, scores) if return_attention_scores else x
