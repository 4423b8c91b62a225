"""Activations as ONNX nodes."""

from collections.abc import Callable
from typing import Any

import keras

from vit_tf.checks import shown
from vit_tf.deploy.onnx.graph import Graph, Tensor
from vit_tf.layers.mlp import gelu_tanh, quick_gelu

activations = keras.activations
# Activations that are one operator: its name and attributes.
OPERATORS: dict[Callable, tuple[str, dict[str, Any]]] = {
    activations.gelu: ("Gelu", {}),
    gelu_tanh: ("Gelu", {"approximate": "tanh"}),
    activations.relu: ("Relu", {}),
    activations.sigmoid: ("Sigmoid", {}),
    activations.tanh: ("Tanh", {}),
    activations.softplus: ("Softplus", {}),
    activations.softsign: ("Softsign", {}),
    activations.exponential: ("Exp", {}),
    activations.elu: ("Elu", {"alpha": 1.0}),
    activations.selu: ("Selu", {}),
    activations.leaky_relu: ("LeakyRelu", {"alpha": 0.2}),
    activations.hard_sigmoid: ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    activations.hard_silu: ("HardSwish", {}),
    activations.mish: ("Mish", {}),
    activations.log_softmax: ("LogSoftmax", {"axis": -1}),
}


def emit_activation(graph: Graph, function: Callable | None, x: Tensor) -> Tensor:
    """Adds the nodes of an activation.

    Raises:
        ValueError: an unknown activation.
    """
    if function in (None, activations.linear):
        return x
    if function in OPERATORS:
        operator, attributes = OPERATORS[function]
        return graph.add(operator, x, **attributes)
    if function is activations.softmax:
        return softmax(graph, x)
    if function is quick_gelu:  # runtimes fuse these three nodes
        scaled = graph.add("Mul", x, graph.scalar(1.702, x))
        return graph.add("Mul", x, graph.add("Sigmoid", scaled))
    if function is activations.silu:
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    if function is activations.relu6:
        return graph.add("Clip", x, graph.scalar(0.0, x), graph.scalar(6.0, x))
    name = getattr(function, "__name__", type(function).__name__)
    raise ValueError(f"the ONNX writer does not know the activation {shown(name)}")


def softmax(graph: Graph, x: Tensor) -> Tensor:
    """The softmax over the last axis; computed in float32 under half precision."""
    return graph.cast(graph.add("Softmax", graph.cast(x, "float32"), axis=-1), x.dtype)
