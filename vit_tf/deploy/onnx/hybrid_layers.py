"""Emitters of hybrid stems, and of others with batch norms. Maps are (b, c, h, w) here.

Standardised kernels are constants, and a batch norm is one factor and one offset per channel.
"""

from typing import Any

import numpy as np

from vit_tf import layers
from vit_tf.deploy.onnx.activations import emit_activation
from vit_tf.deploy.onnx.emitters import emits, values
from vit_tf.deploy.onnx.graph import Graph, Tensor
from vit_tf.deploy.onnx.vit_layers import as_tokens, channels_first, emit_whitening

SAME: dict[str, Any] = dict(auto_pad="SAME_UPPER")  # more zeros at the end, as TensorFlow pads
SQUARES: dict[str, Any] = dict(kernel_shape=[2, 2], strides=[2, 2])


@emits(layers.ResNetEmbedding)
def emit_resnet(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    x = channels_first(graph, x)
    for part in layer.first:
        x = emit_conv_norm(graph, part, x)
    pads = SAME if layer.kind == "resnet_v2" else dict(pads=[1, 1, 1, 1])
    x = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], **pads)
    for block in layer.stages:
        x = emit_bottleneck(graph, block, x)
    return as_tokens(graph, emit_convolution(graph, layer.projection, x, {}), layer)


@emits(layers.MobileCLIPEmbedding)
def emit_mobileclip(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    x = channels_first(graph, x)
    for part in layer.first:
        x = emit_conv_norm(graph, part, x)
    return as_tokens(graph, emit_convolution(graph, layer.projection, x, {}), layer)


@emits(layers.PooledPatchEmbedding)
def emit_pooled(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    x = emit_whitening(graph, layer, x)
    for stage in layer.stages:
        x = emit_conv_norm(graph, stage, x)
    return as_tokens(graph, x, layer)


def emit_bottleneck(graph: Graph, block: Any, x: Tensor) -> Tensor:
    with graph.scope(block.name):
        y = x
        for part in (block.conv_1, block.conv_2, block.conv_3):
            y = emit_conv_norm(graph, part, y)
        if block.averages:
            x = graph.add("AveragePool", x, count_include_pad=0, **SQUARES, **SAME)
        if block.shortcut is not None:
            x = emit_conv_norm(graph, block.shortcut, x)
        return graph.add("Relu", graph.add("Add", x, y))


def emit_conv_norm(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    with graph.scope(layer.name):
        pads = SAME if layer.convolution.padding == "same" else dict(pads=[layer.padding] * 4)
        if layer.norm_kind == "group":
            x = pool(graph, layer, emit_convolution(graph, layer.convolution, x, pads))
            x = group_norm(graph, layer.norm, x)
        else:
            signs = np.sign(values(layer.norm.gamma)) if layer.pool_size > 1 else None
            x = emit_convolution(graph, layer.convolution, x, pads, layer.norm, signs)
            x = pool(graph, layer, x)
            if signs is not None and not (signs == 1).all():
                x = graph.add("Mul", x, graph.weight(signs.reshape(-1, 1, 1), "signs", x))
        return emit_activation(graph, layer.activation, x)


def pool(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    """The max pooling of a `ConvNorm`, if it has any."""
    if layer.pool_size == 1:
        return x
    sides = [layer.pool_size] * 2
    return graph.add("MaxPool", x, kernel_shape=sides, strides=sides)


def emit_convolution(
    graph: Graph, layer: Any, x: Tensor, pads: dict, batch_norm: Any = None, signs: Any = None
) -> Tensor:
    """A convolution; a batch norm that follows becomes a part of kernel and bias.

    A maximum may stand between both only where the norm keeps the order. `signs` (c,) are factors that make
    all of the norm's factors positive, and that the caller multiplies with after the maximum.
    """
    with graph.scope(layer.name):
        kernel = layer.kernel
        if isinstance(layer, layers.StandardizedConv2D):
            kernel = layer.standardize(kernel)
        kernel, bias = values(kernel), None if layer.bias is None else values(layer.bias)
        if batch_norm is not None:
            variance = values(batch_norm.moving_variance) + batch_norm.epsilon
            factor = values(batch_norm.gamma) / np.sqrt(variance)
            kernel, bias = kernel * factor, values(batch_norm.beta) - values(batch_norm.moving_mean) * factor
            if signs is not None:
                kernel, bias = kernel * signs, bias * signs
        inputs = [x, graph.weight(kernel.transpose(3, 2, 0, 1), "kernel", x)]
        if bias is not None:
            inputs.append(graph.weight(bias, "bias", x))
        sides: dict[str, Any] = dict(kernel_shape=list(kernel.shape[:2]), strides=list(layer.strides))
        return graph.add("Conv", *inputs, **sides, **pads)


def group_norm(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    """Mean and variance are computed in float32 under half precision.

    Before opset 21 the operator has one scale per group, so the groups are normalised as instances there.
    """
    scale, offset = values(layer.gamma), values(layer.beta)
    if graph.opset >= 21:
        inputs = [x, graph.weight(scale, "gamma", x), graph.weight(offset, "beta", x)]
        return graph.add("GroupNormalization", *inputs, num_groups=layer.groups, epsilon=layer.epsilon)
    shape, y = graph.add("Shape", x, dtype="int64"), graph.cast(x, "float32")
    ones, zeros = np.ones(layer.groups, "float32"), np.zeros(layer.groups, "float32")
    constants = graph.constant(ones, "ones"), graph.constant(zeros, "zeros")
    y = graph.reshape(y, 0, layer.groups, -1)
    y = graph.add("InstanceNormalization", y, *constants, epsilon=layer.epsilon)
    y = graph.cast(graph.add("Reshape", y, shape), x.dtype)
    y = graph.add("Mul", y, graph.weight(scale.reshape(-1, 1, 1), "gamma", y))
    return graph.add("Add", y, graph.weight(offset.reshape(-1, 1, 1), "beta", y))
