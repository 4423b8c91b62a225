"""The table of emitters: functions that add the nodes of a Keras layer to a `Graph`."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from vit_tf.checks import shown
from vit_tf.deploy.onnx.graph import Graph, Tensor

EMITTERS: dict[type, Callable[..., Any]] = {}
IGNORED = ("training", "mask")  # arguments of calls that mean nothing for inference


def emits(*classes: type) -> Callable[[Callable], Callable]:
    """Registers a function `(graph, layer, *tensors) -> tensor or tensors` for classes of layers."""

    def register(function: Callable) -> Callable:
        EMITTERS.update(dict.fromkeys(classes, function))
        return function

    return register


def emit(graph: Graph, layer: Any, *inputs: Any, **arguments: Any) -> Any:
    """Adds the nodes of a layer, and returns its outputs.

    Raises:
        ValueError: the class of the layer is unknown, or the layer is quantized.
    """
    if isinstance(layer, keras.Model):
        return emit_model(graph, layer, *inputs)
    emitter = EMITTERS.get(type(layer))
    if emitter is None:  # a subclass may compute something else
        raise ValueError(
            f"the ONNX writer does not know the layer {shown(layer.name)} ({type(layer).__name__}): export a "
            "model without it, or register a function for its class by `vit_tf.deploy.onnx.emitters.emits`"
        )
    if getattr(layer, "quantization_mode", None) is not None:
        raise ValueError(
            f"the layer {shown(layer.name)} is quantized by Keras: export the float model, then quantize the "
            "exported model with `vit-tf quantize`"
        )
    arguments = {name: value for name, value in arguments.items() if name not in IGNORED}
    with graph.scope(layer.name):
        return emitter(graph, layer, *inputs, **arguments)


def emit_chain(graph: Graph, parts: list, x: Tensor) -> Tensor:
    for layer in parts:
        x = emit(graph, layer, x)
    return x


def values(variable: Any) -> np.ndarray:
    """Returns a weight of a layer as a float32 array."""
    return np.asarray(ops.convert_to_numpy(variable), "float32")


def emit_model(graph: Graph, model: Any, *inputs: Any, on_call: Callable = emit) -> Any:
    """Adds the nodes of all layers of a functional or Sequential model."""
    functional = getattr(model, "_functional", model)  # of a Sequential model
    if not hasattr(functional, "_run_through_graph"):
        raise ValueError(
            f"{shown(model.name)} ({type(model).__name__}) is neither functional nor Sequential: build the "
            "model with `keras.Model(inputs, outputs)`"
        )
    tensors = keras.tree.flatten(inputs)
    return functional._run_through_graph(
        tensors, call_fn=lambda layer, *args, **kwargs: on_call(graph, layer, *args, **kwargs)
    )
