"""The encoder blocks: how attention and MLP are joined to the stream of tokens.

`EncoderBlock` is the ViT's; `ResPostBlock` has its norms at the other end, `ParallelThingsBlock` several
attentions and MLPs side by side, `ParallelScalingBlock` attention and MLP side by side. All take the
same options.

Shapes in the comments: b batch, n tokens, d model width.
"""

import keras
from keras import ops

from vit_tf.layers.attention import (
    MultiHeadSelfAttention,
    attention_spec,
    head_width,
    make_attention,
    per_matrix_glorot,
    with_scores,
)
from vit_tf.layers.hooks import HookedLayer
from vit_tf.layers.mlp import get_activation, make_mlp
from vit_tf.layers.norms import DropPath, LayerScale, make_norm, register
from vit_tf.layers.rematerialization import rematerialize
from vit_tf.layers.token_dense import TokenDense


class Block(HookedLayer):
    """The options that all encoder blocks take, and the parts that are made from them.

    Args:
        num_heads, head_dim, qkv_bias, qk_norm, attention_dropout_rate, query_chunk_size: see
            `MultiHeadSelfAttention`.
        attention: "softmax" or "differential", see `make_attention`.
        block_index: int, the block's place in the encoder, which differential attention needs.
        mlp_dim, activation: see `MLP`.
        mlp: "mlp", "swiglu" or "swiglu_split", see `make_mlp`.
        projection_bias: bool, whether the attention's projection and the MLP have biases.
        sub_norm: bool, whether the attention's and the MLP's inner values are normalised (BEiT-3).
        norm: "layer" or "rms".
        norm_epsilon: float, added to the variance in each norm.
        dropout_rate: float in [0, 1), dropout after the projection and after each MLP layer.
        drop_path_rate: float in [0, 1), see `DropPath`; for each branch.
        layer_scale_init: float, see `LayerScale`; for each branch. None leaves it out.

    Call arguments:
        inputs: tensor `(b, n, d)`.
        return_attention_scores: bool, whether to return the attention probabilities too.
        training: bool, whether dropout and DropPath are active.

    Output shape: `(b, n, d)`; with `return_attention_scores` also `(b, num_heads, n, n)`.
    """

    def __init__(
        self,
        num_heads,
        mlp_dim,
        head_dim=None,
        qkv_bias=True,
        projection_bias=True,
        attention="softmax",
        block_index=0,
        mlp="mlp",
        activation="gelu",
        qk_norm=False,
        sub_norm=False,
        norm="layer",
        norm_epsilon=1e-6,
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        drop_path_rate=0.0,
        layer_scale_init=None,
        query_chunk_size=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.options = dict(
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            projection_bias=projection_bias,
            attention=attention,
            block_index=block_index,
            mlp=mlp,
            activation=get_activation(activation),
            qk_norm=qk_norm,
            sub_norm=sub_norm,
            norm=norm,
            norm_epsilon=norm_epsilon,
            dropout_rate=dropout_rate,
            attention_dropout_rate=attention_dropout_rate,
            drop_path_rate=drop_path_rate,
            layer_scale_init=layer_scale_init,
            query_chunk_size=query_chunk_size,
        )
        self.num_heads = num_heads

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """Keras asks for this in a `keras.RematScope`; see `rematerialize`."""
        if super().rematerialized_call(layer_call, *args, **kwargs) is layer_call:
            return layer_call  # the scope leaves this block out, or there are hooks
        return rematerialize(self, layer_call)

    # The layers below are made here, and not in each subclass, so that an option is passed on in one place.

    def pick(self, *names):
        return {name: self.options[name] for name in names}

    def make_norm(self, name, initial_scale=None):
        kind, epsilon = self.options["norm"], self.options["norm_epsilon"]
        return make_norm(kind, epsilon, self.dtype_policy, name, initial_scale)

    def make_attention(self, name):
        names = "num_heads head_dim qkv_bias projection_bias attention qk_norm sub_norm norm norm_epsilon"
        names += " block_index attention_dropout_rate dropout_rate query_chunk_size"
        options = self.pick(*names.split())
        return MultiHeadSelfAttention(**options, dtype=self.dtype_policy, name=name)

    def make_mlp(self, name):
        options = self.pick("mlp_dim", "activation", "sub_norm", "norm", "norm_epsilon", "dropout_rate")
        use_bias = self.options["projection_bias"]
        kind = self.options["mlp"]
        return make_mlp(kind, use_bias=use_bias, **options, dtype=self.dtype_policy, name=name)

    def make_scale(self, name):
        if self.options["layer_scale_init"] is None:
            return keras.layers.Identity(dtype=self.dtype_policy, name=name)
        return LayerScale(self.options["layer_scale_init"], dtype=self.dtype_policy, name=name)

    def make_drop_path(self, name):
        return DropPath(self.options["drop_path_rate"], dtype=self.dtype_policy, name=name)

    def parts(self):
        """Returns the layers inside that take and give tokens, in the order of their work."""
        raise NotImplementedError

    def attention_layers(self):
        """Returns the layers whose `heads` are a `DotProductAttention`: one, but for those side by side.

        Each runs the hook "tokens" on the tokens that it projects.
        """
        return [self.attention]

    def attentions(self):
        return [layer.heads for layer in self.attention_layers()]

    def build_parts(self, input_shape):
        for layer in self.parts():
            layer.build(input_shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs, return_attention_scores=False, training=None):
        return attention_spec(self, inputs.shape, return_attention_scores)

    def get_config(self):
        activation = keras.activations.serialize(self.options["activation"])
        return {**super().get_config(), **self.options, "activation": activation}


@register
class EncoderBlock(Block):
    """The ViT's block: x + attention(norm(x)), then x + mlp(norm(x)) (ViT paper, eq. 2 and 3).

    Args, call arguments and output shape: see `Block`.
    """

    def __init__(self, num_heads, mlp_dim, **kwargs):
        super().__init__(num_heads, mlp_dim, **kwargs)
        self.attention_norm = self.make_norm("attention_norm")
        self.attention = self.make_attention("attention")
        self.attention_scale = self.make_scale("attention_scale")
        self.attention_drop_path = self.make_drop_path("attention_drop_path")
        self.mlp_norm = self.make_norm("mlp_norm")
        self.mlp = self.make_mlp("mlp")
        self.mlp_scale = self.make_scale("mlp_scale")
        self.mlp_drop_path = self.make_drop_path("mlp_drop_path")

    def parts(self):
        attention = [self.attention_norm, self.attention, self.attention_scale]
        return attention + [self.mlp_norm, self.mlp, self.mlp_scale]

    def call(self, inputs, return_attention_scores=False, training=None):
        y = self.attention_norm(inputs)
        y, scores = with_scores(self.attention, y, return_attention_scores, training)
        x = inputs + self.attention_drop_path(self.attention_scale(y), training=training)
        y = self.mlp(self.mlp_norm(x), training=training)
        x = x + self.mlp_drop_path(self.mlp_scale(y), training=training)
        return (x, scores) if return_attention_scores else x


@register
class ResPostBlock(Block):
    """A block with the norms at the branches' ends: x + norm(attention(x)), then x + norm(mlp(x)).

    The norms' factors take LayerScale's place: they start at `layer_scale_init`.
    Reference: Liu et al., "Swin Transformer V2" (https://arxiv.org/abs/2111.09883), section 3.2.

    Args, call arguments and output shape: see `Block`.
    """

    def __init__(self, num_heads, mlp_dim, **kwargs):
        super().__init__(num_heads, mlp_dim, **kwargs)
        initial_scale = self.options["layer_scale_init"]
        self.attention = self.make_attention("attention")
        self.attention_norm = self.make_norm("attention_norm", initial_scale)
        self.attention_drop_path = self.make_drop_path("attention_drop_path")
        self.mlp = self.make_mlp("mlp")
        self.mlp_norm = self.make_norm("mlp_norm", initial_scale)
        self.mlp_drop_path = self.make_drop_path("mlp_drop_path")

    def parts(self):
        return [self.attention, self.attention_norm, self.mlp, self.mlp_norm]

    def call(self, inputs, return_attention_scores=False, training=None):
        y, scores = with_scores(self.attention, inputs, return_attention_scores, training)
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
        num_parallel: int, how many of each.
        all others: see `Block`.

    Call arguments and output shape: see `Block`; the scores are the mean of the attentions'.
    """

    def __init__(self, num_heads, mlp_dim, num_parallel=2, **kwargs):
        super().__init__(num_heads, mlp_dim, **kwargs)
        self.num_parallel = num_parallel
        # One attribute a layer: Keras does not save layers in lists of tuples.
        for i in range(num_parallel):
            for part, make in (("attention", self.make_attention), ("mlp", self.make_mlp)):
                setattr(self, f"{part}_norm_{i}", self.make_norm(f"{part}_norm_{i}"))
                setattr(self, f"{part}_{i}", make(f"{part}_{i}"))
                setattr(self, f"{part}_scale_{i}", self.make_scale(f"{part}_scale_{i}"))
                setattr(self, f"{part}_drop_path_{i}", self.make_drop_path(f"{part}_drop_path_{i}"))

    def branches(self, part):
        """Yields norm, attention or MLP, scale and DropPath of each branch."""
        for i in range(self.num_parallel):
            names = (f"{part}_norm_{i}", f"{part}_{i}", f"{part}_scale_{i}", f"{part}_drop_path_{i}")
            yield [getattr(self, name) for name in names]

    def attention_layers(self):
        return [attention for _, attention, _, _ in self.branches("attention")]

    def parts(self):
        branches = (*self.branches("attention"), *self.branches("mlp"))
        return [layer for *layers, _ in branches for layer in layers]

    def call(self, inputs, return_attention_scores=False, training=None):
        x, all_scores = inputs, []
        for norm, attention, scale, drop_path in self.branches("attention"):
            y, scores = with_scores(attention, norm(inputs), return_attention_scores, training)
            x = x + drop_path(scale(y), training=training)
            all_scores.append(scores)
        tokens = x
        for norm, mlp, scale, drop_path in self.branches("mlp"):
            x = x + drop_path(scale(mlp(norm(tokens), training=training)), training=training)
        return (x, sum(all_scores) / self.num_parallel) if return_attention_scores else x

    def get_config(self):
        return {**super().get_config(), "num_parallel": self.num_parallel}


@register
class ParallelScalingBlock(Block):
    """Attention and MLP side by side behind one norm and one matrix: x + attention(y) + mlp(y).

    Reference: Dehghani et al., "Scaling Vision Transformers to 22 Billion Parameters"
    (https://arxiv.org/abs/2302.05442), section 2. With differential attention the two output
    matrices are one.

    Args: see `Block`; `mlp` must be "mlp", and `sub_norm` False.

    Call arguments and output shape: see `Block`.

    Raises:
        ValueError: `mlp` or `sub_norm` ask for what this block does not have, or `num_heads` does not
            divide d.

    Hooks (see `vit_tf.layers.hooks`): "tokens" on those behind the norm, which attention and MLP share.
    """

    def __init__(self, num_heads, mlp_dim, **kwargs):
        super().__init__(num_heads, mlp_dim, **kwargs)
        if self.options["mlp"] != "mlp" or self.options["sub_norm"]:
            raise ValueError('a parallel scaling block has `mlp="mlp"` and `sub_norm=False` only')
        self.mlp_dim = mlp_dim
        self.fused = self.options["attention"] == "differential"
        self.norm = self.make_norm("norm")
        self.heads = make_attention(
            dropout_rate=self.options["attention_dropout_rate"],
            kind=self.options["attention"],
            **self.pick("num_heads", "block_index", "qk_norm", "norm", "norm_epsilon", "query_chunk_size"),
            dtype=self.dtype_policy,
            name="heads",
        )
        self.dropout = keras.layers.Dropout(
            self.options["dropout_rate"], dtype=self.dtype_policy, name="dropout"
        )
        self.scale = self.make_scale("scale")
        self.drop_path = self.make_drop_path("drop_path")

    def build_parts(self, input_shape):
        *leading, d = input_shape
        inner_dim = self.num_heads * head_width(d, self.num_heads, self.options["head_dim"])
        self.norm.build(input_shape)
        self.in_projection = self.dense(  # to the MLP's inner values, queries, keys and values
            self.mlp_dim + 3 * inner_dim,
            "in_projection",
            self.options["qkv_bias"],
            kernel_initializer=per_matrix_glorot(d, inner_dim),
        )
        self.in_projection.build(input_shape)
        self.heads.build((*leading, 3 * inner_dim))
        self.mlp_bias = None
        if not self.options["qkv_bias"]:
            self.mlp_bias = self.add_weight(shape=(self.mlp_dim,), initializer="zeros", name="mlp_bias")
        bias = self.options["projection_bias"]
        if self.fused:
            self.out_projection = self.dense(d, "out_projection", bias)
            self.out_projection.build((*leading, inner_dim + self.mlp_dim))
        else:
            self.attention_projection = self.dense(d, "attention_projection", bias)
            self.attention_projection.build((*leading, inner_dim))
            self.mlp_projection = self.dense(d, "mlp_projection", bias)
            self.mlp_projection.build((*leading, self.mlp_dim))
        self.scale.build(input_shape)

    def attention_layers(self):
        return [self]

    def dense(self, width, name, use_bias, **options):
        return TokenDense(width, use_bias=use_bias, dtype=self.dtype_policy, name=name, **options)

    def call(self, inputs, return_attention_scores=False, training=None):
        y = self.in_projection(self.hooked("tokens", self.norm(inputs)))
        hidden, qkv = ops.split(y, [self.mlp_dim], axis=-1)
        if self.mlp_bias is not None:
            hidden = hidden + self.mlp_bias
        values, scores = with_scores(self.heads, qkv, return_attention_scores, training)
        hidden = self.dropout(self.options["activation"](hidden), training=training)  # (b, n, mlp_dim)
        if self.fused:
            y = self.out_projection(ops.concatenate([values, hidden], axis=-1))
        else:
            y = self.attention_projection(values) + self.mlp_projection(hidden)
        x = inputs + self.drop_path(self.scale(y), training=training)
        return (x, scores) if return_attention_scores else x
