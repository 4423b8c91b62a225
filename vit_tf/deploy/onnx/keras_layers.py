"""Emitters of Keras's own layers, as far as models around a Vision Transformer have them."""

from typing import Any

import keras
import numpy as np

from vit_tf.checks import require, shown
from vit_tf.deploy.onnx.activations import emit_activation, softmax
from vit_tf.deploy.onnx.emitters import emits, values
from vit_tf.deploy.onnx.graph import Graph, Tensor
from vit_tf.layers.dropout import Dropout
from vit_tf.layers.norms import BatchNormalization, LayerNormalization
from vit_tf.layers.token_dense import TokenDense
from vit_tf.preprocessing.layer import ChannelRescaling

layers = keras.layers
RANDOM = [kind for name, kind in vars(layers).items() if name.startswith("Random") and isinstance(kind, type)]
INACTIVE = (  # that pass their input on, except in training
    *(
        layers.Identity,
        layers.InputLayer,
        layers.Dropout,
        Dropout,
        layers.SpatialDropout1D,
        layers.GaussianNoise,
    ),
    *(layers.GaussianDropout, layers.AlphaDropout, layers.ActivityRegularization, *RANDOM),
)


@emits(*INACTIVE)
def emit_nothing(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return x


@emits(layers.Dense, TokenDense)
def emit_dense(graph: Graph, layer: Any, x: Tensor, scale: np.ndarray | None = None) -> Tensor:
    """A matrix product, a bias and the activation; `scale` (units,) is multiplied into kernel and bias.

    `layer.kernel` includes the update of LoRA.
    """
    kernel, bias = values(layer.kernel), layer.bias
    if scale is not None:
        kernel = kernel * scale
    x = graph.add("MatMul", x, graph.weight(kernel, "kernel", x))
    if bias is not None:
        bias = values(bias) if scale is None else values(bias) * scale
        x = graph.add("Add", x, graph.weight(bias, "bias", x))
    return emit_activation(graph, layer.activation, x)


@emits(layers.LayerNormalization, LayerNormalization)
def emit_layer_norm(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    """The operator computes mean and variance in float32 under half precision."""
    check_last_axis(layer)
    require(layer.gamma is not None and not layer.rms_scaling, unsupported(layer, "a norm without `gamma`"))
    inputs = [x, graph.weight(values(layer.gamma), "gamma", x)]
    if layer.beta is not None:
        inputs.append(graph.weight(values(layer.beta), "beta", x))
    return graph.add("LayerNormalization", *inputs, axis=-1, epsilon=layer.epsilon)


@emits(layers.RMSNormalization)
def emit_rms_norm(graph: Graph, layer: Any, x: Tensor, factor: float = 1.0) -> Tensor:
    """`factor` is multiplied into the scales."""
    check_last_axis(layer)
    scale = graph.weight(factor * values(layer.scale), "scale", x)
    if graph.opset >= 23:
        return graph.add("RMSNormalization", x, scale, axis=-1, epsilon=layer.epsilon)
    y = graph.cast(x, "float32")  # squares can exceed float16
    mean = graph.add("ReduceMean", graph.add("Pow", y, graph.scalar(2.0, y)), graph.ints(-1), keepdims=1)
    root = graph.add("Sqrt", graph.add("Add", mean, graph.scalar(layer.epsilon, y)))
    return graph.add("Mul", graph.cast(graph.add("Div", y, root), x.dtype), scale)


def check_last_axis(layer):
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    rank = len(layer.input.shape) if layer._inbound_nodes else 0  # a layer of a composite one has no nodes
    require(axes in ([-1], [rank - 1]), unsupported(layer, f"a norm over the axes {axes}"))


def unsupported(layer, what):
    return f"the ONNX writer does not support {what}: see the layer {shown(layer.name)}"


@emits(layers.Activation, layers.ReLU)
def emit_activation_layer(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    if isinstance(layer, layers.ReLU):
        plain = layer.max_value is None and not layer.negative_slope and not layer.threshold
        require(plain, unsupported(layer, "a ReLU with a slope, a maximum or a threshold"))
        return graph.add("Relu", x)
    return emit_activation(graph, layer.activation, x)


@emits(layers.Softmax)
def emit_softmax(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    require(layer.axis == -1, unsupported(layer, f"a softmax over the axis {layer.axis}"))
    return softmax(graph, x)


@emits(layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum, layers.Subtract)
def emit_merge(graph: Graph, layer: Any, inputs: list[Tensor]) -> Tensor:
    operators = {"Add": "Add", "Multiply": "Mul", "Maximum": "Max", "Minimum": "Min", "Subtract": "Sub"}
    x, *others = graph.alike(*inputs)
    for other in others:
        x = graph.add(operators.get(type(layer).__name__, "Add"), x, other)
    if isinstance(layer, layers.Average):
        x = graph.add("Mul", x, graph.scalar(1 / len(inputs), x))
    return x


@emits(layers.Concatenate)
def emit_concatenate(graph: Graph, layer: Any, inputs: list[Tensor]) -> Tensor:
    return graph.add("Concat", *graph.alike(*inputs), axis=layer.axis)


@emits(layers.Flatten)
def emit_flatten(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return graph.reshape(x, 0, -1)


@emits(layers.Reshape)
def emit_reshape(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return graph.reshape(x, 0, *layer.target_shape)


@emits(layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D)
def emit_global_pooling(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    require(layer.data_format == "channels_last", unsupported(layer, "channels before the tokens"))
    operator = "ReduceMean" if isinstance(layer, layers.GlobalAveragePooling1D) else "ReduceMax"
    return graph.cast(graph.add(operator, x, graph.ints(1), keepdims=int(layer.keepdims)), "float32")


@emits(layers.BatchNormalization, BatchNormalization)
def emit_batch_norm(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    """The moving statistics as one factor and one offset per channel."""
    check_last_axis(layer)
    factor = 1 / np.sqrt(values(layer.moving_variance) + layer.epsilon)
    factor = factor if layer.gamma is None else factor * values(layer.gamma)
    offset = -values(layer.moving_mean) * factor
    offset = offset if layer.beta is None else offset + values(layer.beta)
    return affine(graph, x, factor, offset)


@emits(layers.Rescaling, ChannelRescaling)
def emit_rescaling(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return affine(graph, graph.cast(x, "float32"), np.asarray(layer.scale), np.asarray(layer.offset))


@emits(layers.Normalization)
def emit_normalization(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    require(not layer.invert, unsupported(layer, "a Normalization with `invert`"))
    factor = 1 / np.maximum(np.sqrt(values(layer.variance)), keras.config.epsilon())
    return affine(graph, graph.cast(x, "float32"), factor, -values(layer.mean) * factor)


def affine(graph: Graph, x: Tensor, factor: np.ndarray, offset: np.ndarray) -> Tensor:
    """Returns x * factor + offset."""
    x = graph.add("Mul", x, graph.weight(factor, "factor", x))
    return graph.add("Add", x, graph.weight(offset, "offset", x)) if np.any(offset) else x
