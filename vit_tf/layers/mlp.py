"""The MLP of a block, plain and gated, and activations that Keras does not name.

Shapes in the comments: b batch, n tokens, d model width.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from vit_tf.config import MLPConfig, Shape, Tensor, shared_fields
from vit_tf.layers.composite import register
from vit_tf.layers.configured import ConfiguredLayer
from vit_tf.layers.dropout import Dropout
from vit_tf.layers.norms import use_kernels
from vit_tf.layers.token_dense import FUSED, TokenDense

Activation = str | dict | Callable  # see `get_activation`


@register
def quick_gelu(x):
    """x sigmoid(1.702 x), the approximation of GELU in OpenAI's CLIP."""
    return x * ops.sigmoid(1.702 * x)


@register
def gelu_tanh(x):
    """The tanh approximation of GELU, as in Flax and Google's models."""
    return keras.activations.gelu(x, approximate=True)


def get_activation(value):
    """Returns an activation as a callable.

    Args:
        value: name of a Keras activation, "quick_gelu", "gelu_tanh", a callable, or its serialised form.

    Raises:
        ValueError: an unknown name.
    """
    own = {"quick_gelu": quick_gelu, "gelu_tanh": gelu_tanh}
    return own[value] if isinstance(value, str) and value in own else keras.activations.get(value)


@register
class MLP(ConfiguredLayer):
    """Two dense layers with an activation between them, applied to each token.

    Training with TensorFlow does not keep the output of the activation for the backward pass, unless there is
    dropout, a norm inside, no bias, or ReLU.

    Args:
        mlp_dim: int, the width between the dense layers.
        activation: name or callable, see `get_activation`. "gelu" is the exact one (erf).
        **kwargs: the other fields of `vit_tf.config.MLPConfig`.

    Input and output shape: `(b, n, d)`.

    Raises:
        ValueError: an invalid option.
    """

    config_class = MLPConfig

    def __init__(self, mlp_dim: int, activation: Activation = "gelu", **kwargs: Any):
        super().__init__(mlp_dim=mlp_dim, activation=get_activation(activation), **kwargs)
        self.supports_masking = True
        self.dropout = Dropout(self.config.dropout_rate, dtype=self.dtype_policy, name="dropout")

    def dense(self, width: int, name: str, activation: Callable | None = None) -> keras.layers.Layer:
        use_bias = self.config.projection_bias
        return TokenDense(width, activation=activation, use_bias=use_bias, dtype=self.dtype_policy, name=name)

    def build_parts(self, input_shape: Shape) -> None:
        *leading, d = input_shape
        self.build_first(input_shape)
        self.inner_norm = None
        if self.config.sub_norm in (True, "mlp"):
            self.inner_norm = self.make_norm("inner_norm")
            self.inner_norm.build((*leading, self.config.mlp_dim))
        self.fc2 = self.dense(d, "fc2")
        self.fc2.build((*leading, self.config.mlp_dim))

    def build_first(self, input_shape: Shape) -> None:
        self.fc1 = self.dense(self.config.mlp_dim, "fc1", self.config.activation)
        self.fc1.build(input_shape)

    def first_layers(self) -> list[keras.layers.Layer]:
        """The dense layers before the activation."""
        return [self.fc1]

    def first(self, inputs: Tensor) -> Tensor:
        return self.fc1(inputs)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        if self.use_kernel(training):
            return self.call_kernel(inputs)
        x = self.dropout(self.first(inputs), training=training)  # (b, n, mlp_dim)
        if self.inner_norm is not None:
            x = self.inner_norm(x)
        return self.dropout(self.fc2(x), training=training)  # (b, n, d)

    def use_kernel(self, training: bool | None) -> bool:
        """Whether TensorFlow trains both layers and the activation between them as one, see `call_kernel`."""
        is_plain = type(self) is MLP and self.inner_norm is None and not self.config.dropout_rate
        if not (is_plain and use_kernels(training)) or self.config.activation in FUSED:
            return False
        layers = (self.fc1, self.fc2)
        return all(layer.use_bias and layer.quantization_mode is None for layer in layers)

    def call_kernel(self, inputs: Tensor) -> Tensor:
        """Returns the output; the activation is not kept for the backward pass, which computes it again."""
        from vit_tf.layers.tensorflow_kernels import mlp

        rows = ops.reshape(inputs, (-1, inputs.shape[-1]))
        first, second = (self.fc1.kernel, self.fc1.bias), (self.fc2.kernel, self.fc2.bias)
        return ops.reshape(mlp(rows, first, second, self.config.activation), ops.shape(inputs))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


@register
class GatedMLP(MLP):
    """An MLP with a gated inner layer: fc2(activation(gate(x)) * value(x)); SwiGLU with SiLU.

    Reference: Shazeer, "GLU Variants Improve Transformer" (https://arxiv.org/abs/2002.05202), eq. 6.

    Args:
        mlp_dim: int, the width of gate, value and their product.
        activation: name or callable, see `get_activation`.
        packed: bool. True makes gate and value one matrix `fc1`, gate first (DINOv2); False two matrices,
            `fc1_gate` and `fc1_value` (AIMv2).
        **kwargs: the other fields of `vit_tf.config.MLPConfig`.

    Input and output shape: `(b, n, d)`.
    """

    def __init__(self, mlp_dim: int, activation: Activation = "silu", packed: bool = True, **kwargs: Any):
        super().__init__(mlp_dim, activation, **kwargs)
        self.packed = packed

    def build_first(self, input_shape: Shape) -> None:
        if self.packed:
            self.fc1 = self.dense(2 * self.config.mlp_dim, "fc1")
            self.fc1.build(input_shape)
            return
        self.fc1_gate = self.dense(self.config.mlp_dim, "fc1_gate", self.config.activation)
        self.fc1_value = self.dense(self.config.mlp_dim, "fc1_value")
        self.fc1_gate.build(input_shape)
        self.fc1_value.build(input_shape)

    def first_layers(self) -> list[keras.layers.Layer]:
        return [self.fc1] if self.packed else [self.fc1_gate, self.fc1_value]

    def first(self, inputs: Tensor) -> Tensor:
        if not self.packed:
            return self.fc1_gate(inputs) * self.fc1_value(inputs)
        gate, value = ops.split(self.fc1(inputs), 2, axis=-1)  # (b, n, mlp_dim) each
        return self.config.activation(gate) * value

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "packed": self.packed}


def make_mlp(kind, config, dtype, name):
    """Returns the MLP of a `kind`: "mlp", "swiglu" (one inner matrix) or "swiglu_split" (two).

    Args:
        kind: see above.
        config: an `MLPConfig`.
        dtype, name: dtype policy and name of the layer.
    """
    options = shared_fields(config, MLPConfig)
    if kind == "mlp":
        return MLP(**options, dtype=dtype, name=name)
    return GatedMLP(packed=kind == "swiglu", **options, dtype=dtype, name=name)
