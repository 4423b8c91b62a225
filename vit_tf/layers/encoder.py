"""The encoder: attention, MLP, their regularisers, the block made of them, and the pooling after it.

Shapes in the comments: b batch, n tokens, d model width, H heads, k head width.
"""

import keras
from keras import ops

register = keras.saving.register_keras_serializable(package="vit_tf")


def attention_spec(layer, inputs, return_attention_scores):
    """Returns the symbolic output of a `layer` with `num_heads` that can return its attention scores."""
    outputs = keras.KerasTensor(inputs.shape, layer.compute_dtype)
    if not return_attention_scores:
        return outputs
    b, n, _ = inputs.shape
    return outputs, keras.KerasTensor((b, layer.num_heads, n, n), layer.compute_dtype)


@register
class MultiHeadSelfAttention(keras.layers.Layer):
    """Multi-head self-attention with one 2-D projection to queries, keys and values.

    softmax(Q K^T / sqrt(k)) V per head, heads concatenated, then projected to the input's width
    (ViT paper, appendix A). The softmax runs in float32 under half precision.

    Args:
        num_heads: int.
        head_dim: int, the width k of a head. Defaults to d // num_heads.
        qkv_bias: bool, whether queries, keys and values have a bias.
        attention_dropout_rate: float in [0, 1), dropout of the attention probabilities.
        dropout_rate: float in [0, 1), dropout of the output.

    Call arguments:
        inputs: tensor `(b, n, d)`.
        return_attention_scores: bool, whether to return the attention probabilities too.
        training: bool, whether dropout is active.

    Output shape: `(b, n, d)`; with `return_attention_scores` also `(b, num_heads, n, n)`, whose
    last axis sums to one: row q says how much token q attends to each token.

    Raises:
        ValueError: at build, `num_heads` does not divide d and no `head_dim` was given.
    """

    def __init__(
        self,
        num_heads,
        head_dim=None,
        qkv_bias=True,
        attention_dropout_rate=0.0,
        dropout_rate=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.qkv_bias = qkv_bias
        self.attention_dropout_rate = attention_dropout_rate
        self.dropout_rate = dropout_rate

    def build(self, input_shape):
        d = input_shape[-1]
        if self.head_dim is None and d % self.num_heads:
            raise ValueError(
                f"{self.num_heads} heads do not divide the width {d}: choose a divisor of {d} as "
                "`num_heads`, or give `head_dim`"
            )
        self.head_width = self.head_dim or d // self.num_heads
        inner_dim = self.num_heads * self.head_width
        self.qkv = keras.layers.Dense(
            3 * inner_dim,
            use_bias=self.qkv_bias,
            # Glorot's uniform limit for each of the three d x inner_dim matrices on its own.
            kernel_initializer=keras.initializers.RandomUniform(
                -((6 / (d + inner_dim)) ** 0.5), (6 / (d + inner_dim)) ** 0.5
            ),
            dtype=self.dtype_policy,
            name="qkv",
        )
        self.qkv.build(input_shape)
        self.attention_dropout = keras.layers.Dropout(
            self.attention_dropout_rate, dtype=self.dtype_policy, name="attention_dropout"
        )
        self.projection = keras.layers.Dense(d, dtype=self.dtype_policy, name="projection")
        self.projection.build((*input_shape[:-1], inner_dim))
        self.dropout = keras.layers.Dropout(self.dropout_rate, dtype=self.dtype_policy, name="dropout")

    def call(self, inputs, return_attention_scores=False, training=None):
        b, n, _ = ops.shape(inputs)
        heads, width = self.num_heads, self.head_width
        qkv = ops.reshape(self.qkv(inputs), (b, n, 3, heads, width))
        query, key, value = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), 3)  # (b, H, n, k)

        scores = ops.matmul(query * width**-0.5, ops.transpose(key, (0, 1, 3, 2)))  # (b, H, n, n)
        if self.compute_dtype in ("float16", "bfloat16"):
            scores = ops.cast(scores, "float32")
        scores = ops.cast(ops.softmax(scores), self.compute_dtype)
        probabilities = self.attention_dropout(scores, training=training)

        x = ops.transpose(ops.matmul(probabilities, value), (0, 2, 1, 3))  # (b, n, H, k)
        x = self.projection(ops.reshape(x, (b, n, heads * width)))  # (b, n, d)
        x = self.dropout(x, training=training)
        return (x, scores) if return_attention_scores else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs, return_attention_scores=False, training=None):
        return attention_spec(self, inputs, return_attention_scores)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "head_dim": self.head_dim,
            "qkv_bias": self.qkv_bias,
            "attention_dropout_rate": self.attention_dropout_rate,
            "dropout_rate": self.dropout_rate,
        }


@register
class MLP(keras.layers.Layer):
    """Two dense layers with an activation between them, applied to each token.

    Args:
        mlp_dim: int, the width between the two.
        activation: name or callable of a Keras activation. "gelu" is the exact one (erf).
        dropout_rate: float in [0, 1), dropout after each of the two.

    Input and output shape: `(b, n, d)`.
    """

    def __init__(self, mlp_dim, activation="gelu", dropout_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.mlp_dim = mlp_dim
        self.activation = keras.activations.get(activation)
        self.dropout_rate = dropout_rate

    def build(self, input_shape):
        self.fc1 = keras.layers.Dense(
            self.mlp_dim, activation=self.activation, dtype=self.dtype_policy, name="fc1"
        )
        self.fc1.build(input_shape)
        self.fc2 = keras.layers.Dense(input_shape[-1], dtype=self.dtype_policy, name="fc2")
        self.fc2.build((*input_shape[:-1], self.mlp_dim))
        self.dropout = keras.layers.Dropout(self.dropout_rate, dtype=self.dtype_policy, name="dropout")

    def call(self, inputs, training=None):
        x = self.dropout(self.fc1(inputs), training=training)  # (b, n, mlp_dim)
        return self.dropout(self.fc2(x), training=training)  # (b, n, d)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "mlp_dim": self.mlp_dim,
            "activation": keras.activations.serialize(self.activation),
            "dropout_rate": self.dropout_rate,
        }


@register
class DropPath(keras.layers.Layer):
    """Drops a residual branch for whole samples, and scales the others up by 1 / (1 - rate).

    Reference: Huang et al., "Deep Networks with Stochastic Depth" (https://arxiv.org/abs/1603.09382).

    Args:
        rate: float in [0, 1), the chance that a sample loses the branch.
        seed: int, for a repeatable choice.

    Call arguments:
        inputs: tensor `(b, ...)`.
        training: bool, whether branches are dropped.

    Output shape: as the input.

    Raises:
        ValueError: `rate` is outside [0, 1).
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1), got {rate!r}")
        self.rate = rate
        self.seed = seed
        if rate:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=None):
        if not training or not self.rate:
            return inputs
        noise_shape = (ops.shape(inputs)[0],) + (1,) * (len(inputs.shape) - 1)
        return keras.random.dropout(inputs, self.rate, noise_shape, seed=self.seed_generator)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@register
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a learned factor that starts small.

    Reference: Touvron et al., "Going deeper with Image Transformers"
    (https://arxiv.org/abs/2103.17239), section 2.

    Args:
        initial_value: float, the factors at the start.

    Input and output shape: `(..., d)`.
    """

    def __init__(self, initial_value=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.initial_value = initial_value

    def build(self, input_shape):
        self.gamma = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_value),
            name="gamma",
        )

    def call(self, inputs):
        return inputs * self.gamma

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "initial_value": self.initial_value}


@register
class EncoderBlock(keras.layers.Layer):
    """A pre-norm encoder block: x + attention(norm(x)), then x + mlp(norm(x)) (ViT paper, eq. 2, 3).

    Args:
        num_heads, head_dim, qkv_bias, attention_dropout_rate: see `MultiHeadSelfAttention`.
        mlp_dim, activation: see `MLP`.
        dropout_rate: float in [0, 1), dropout after the projection and after each MLP layer.
        drop_path_rate: float in [0, 1), see `DropPath`; for both branches.
        layer_scale_init: float, see `LayerScale`; for both branches. None leaves it out.
        norm_epsilon: float, added to the variance in LayerNormalization.

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
        activation="gelu",
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        drop_path_rate=0.0,
        layer_scale_init=None,
        norm_epsilon=1e-6,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.head_dim = head_dim
        self.qkv_bias = qkv_bias
        self.activation = keras.activations.get(activation)
        self.dropout_rate = dropout_rate
        self.attention_dropout_rate = attention_dropout_rate
        self.drop_path_rate = drop_path_rate
        self.layer_scale_init = layer_scale_init
        self.norm_epsilon = norm_epsilon

        def scale(name):
            if layer_scale_init is None:
                return keras.layers.Identity(dtype=self.dtype_policy, name=name)
            return LayerScale(layer_scale_init, dtype=self.dtype_policy, name=name)

        def norm(name):
            return keras.layers.LayerNormalization(epsilon=norm_epsilon, dtype=self.dtype_policy, name=name)

        def drop_path(name):
            return DropPath(drop_path_rate, dtype=self.dtype_policy, name=name)

        self.attention_norm = norm("attention_norm")
        self.attention = MultiHeadSelfAttention(
            num_heads,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            attention_dropout_rate=attention_dropout_rate,
            dropout_rate=dropout_rate,
            dtype=self.dtype_policy,
            name="attention",
        )
        self.attention_scale = scale("attention_scale")
        self.attention_drop_path = drop_path("attention_drop_path")
        self.mlp_norm = norm("mlp_norm")
        self.mlp = MLP(mlp_dim, activation, dropout_rate, dtype=self.dtype_policy, name="mlp")
        self.mlp_scale = scale("mlp_scale")
        self.mlp_drop_path = drop_path("mlp_drop_path")

    def build(self, input_shape):
        for layer in (
            self.attention_norm,
            self.attention,
            self.attention_scale,
            self.mlp_norm,
            self.mlp,
            self.mlp_scale,
        ):
            layer.build(input_shape)

    def call(self, inputs, return_attention_scores=False, training=None):
        y, scores = self.attention(
            self.attention_norm(inputs), return_attention_scores=True, training=training
        )
        x = inputs + self.attention_drop_path(self.attention_scale(y), training=training)
        y = self.mlp(self.mlp_norm(x), training=training)
        x = x + self.mlp_drop_path(self.mlp_scale(y), training=training)
        return (x, scores) if return_attention_scores else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def compute_output_spec(self, inputs, return_attention_scores=False, training=None):
        return attention_spec(self, inputs, return_attention_scores)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "head_dim": self.head_dim,
            "qkv_bias": self.qkv_bias,
            "activation": keras.activations.serialize(self.activation),
            "dropout_rate": self.dropout_rate,
            "attention_dropout_rate": self.attention_dropout_rate,
            "drop_path_rate": self.drop_path_rate,
            "layer_scale_init": self.layer_scale_init,
            "norm_epsilon": self.norm_epsilon,
        }


@register
class TokenPooling(keras.layers.Layer):
    """Reduces the tokens of an image to one feature vector.

    Args:
        pooling: "token" takes the first token, "avg" the mean of all.

    Input shape: `(b, n, d)`.
    Output shape: `(b, d)`.

    Raises:
        ValueError: `pooling` is neither.
    """

    def __init__(self, pooling="token", **kwargs):
        super().__init__(**kwargs)
        if pooling not in ("token", "avg"):
            raise ValueError(f'`pooling` must be "token" or "avg", got {pooling!r}')
        self.pooling = pooling

    def call(self, inputs):
        return inputs[:, 0] if self.pooling == "token" else ops.mean(inputs, axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], input_shape[-1]

    def get_config(self):
        return {**super().get_config(), "pooling": self.pooling}
