"""`count_flops`: the cost of a model by component, from layer configurations and shapes alone."""

from collections import Counter
from functools import singledispatch
from itertools import zip_longest
from math import prod
from typing import Any

import keras

from vit_tf import layers
from vit_tf.checks import check_int, pair, require
from vit_tf.flops.table import COMPONENTS, FlopsTable, Row
from vit_tf.layers.core_attention import choose_chunk_size

ITEM_SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}  # bytes


def count_flops(model: keras.Model, batch_size: int = 1, image_size: Any = None) -> FlopsTable:
    """Counts the cost of a forward pass by component, from layer configurations and shapes.

    Only matrix products and convolutions are counted. Biases, softmax, GELU, norms and sums add 0.3 % for
    ViT-B/16 (`get_flops`).

    Activation memory is the memory of the tensors that training keeps for the backward pass, in the compute
    dtype of each layer:

    - patch embedding: the patches of a `Patches` layer; the output of each dense layer or convolution, twice
      (before and after the activation) if it has a GELU;
    - class token and positions: the tokens `(b, n, d)`, with the positions added;
    - QKV: queries, keys and values, each `(b, num_heads, n, head_dim)`;
    - attention scores: the scores and their softmax, each `(b, num_heads, n, n)`; nothing for attention in
      chunks of queries;
    - attention values: the weighted sums of the values, `(b, n, num_heads * head_dim)`;
    - projection: the tokens after the attention branch is added;
    - MLP: fc1 before and after its activation, `(b, n, mlp_dim)`; the tokens after the MLP branch is added;
    - norms: the output of each norm, the input of each LayerScale; also the lambdas of differential
      attention;
    - head: the pooled features and the logits; the whole attention pooling.

    A gated MLP keeps gate, value and product. The matrix of a parallel scaling block is split into "QKV" and
    "MLP". A backend keeps more: dropout masks, parts of a norm, a float32 softmax. TensorFlow keeps less of
    attention and MLP: see `vit_tf.layers.DotProductAttention` and `vit_tf.layers.MLP`.

    Args:
        model: a model of `build_vit`, or a functional or Sequential model around such a model. There a Dense
            layer counts as head, and layers without parameters cost nothing.
        batch_size: int, images per batch.
        image_size: int or (height, width) in pixels; needed if the model takes images of any size.

    Returns:
        A `FlopsTable`, whose parameters sum up to `model.count_params()`; without the moving statistics of
        batch normalisation, which are not parameters.

    Raises:
        ValueError: the model is not built, or neither functional nor Sequential; `batch_size` is not a
            positive int; `image_size` is missing, or differs from the model's; a layer with parameters is of
            an unknown class, or is called twice.
    """
    check_arguments(model, batch_size)
    rows = {component: Row(component) for component in COMPONENTS}
    for row in count_layer(model, (batch_size, *input_shape(model, image_size))):
        rows[row.component] += row
    return FlopsTable(model.name, batch_size, tuple(rows.values()))


def check_arguments(model, batch_size):
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a `keras.Model`, got {type(model).__name__}")
    if not model.built:
        raise ValueError(f"{model.name!r} is not built: call the model once on data, or add an Input")
    check_int("batch_size", batch_size, 1)


def input_shape(model, image_size):
    """Returns the shape of a model's first input without the batch, with an `image_size` for its sides.

    Raises:
        ValueError: a side differs from the model's.
    """
    inputs = getattr(model, "inputs", None)
    shape = tuple(inputs[0].shape[1:]) if inputs else ()
    if image_size is None:
        return shape
    sides = pair(image_size, "image_size")
    is_valid = len(shape) == 3 and all(own in (None, side) for own, side in zip(shape, sides))
    takes = f"{model.name!r} takes images of {shape[:2]}, got `image_size={sides}`"
    require(is_valid, f"{takes}: resize the model with `vit_tf.resize_model`")
    return *sides, shape[2]


def own_shapes(layer):
    """Returns the shapes of a layer's first input and output in its model, without the batch."""
    first_input, *_ = keras.tree.flatten(layer.input) or [layer.output]  # an InputLayer has no input
    return first_input.shape[1:], keras.tree.flatten(layer.output)[0].shape[1:]


def layer_shapes(model, shape):
    """Returns a dict from the layers of a functional model to the shapes of their first input and output.

    The shapes are without the batch.

    Args:
        model: the model.
        shape: that of its first input, which takes the place of unknown sizes in the model.
    """
    # As Keras itself runs a functional model, with shapes alone.
    tensors = {id(x): x for x in model.inputs}
    tensors[id(model.inputs[0])] = keras.KerasTensor(shape, model.inputs[0].dtype)
    shapes = {}
    nodes = getattr(model, "_functional", model)._nodes_by_depth  # of a Sequential model, or of its own
    for depth in sorted(nodes, reverse=True):
        for node in nodes[depth]:
            if node.is_input:
                continue
            args, kwargs = node.arguments.fill_in(tensors)
            outputs = keras.tree.flatten(node.operation.compute_output_spec(*args, **kwargs))
            shapes[node.operation] = keras.tree.flatten((args, kwargs))[0].shape[1:], outputs[0].shape[1:]
            tensors |= zip(map(id, node.outputs), outputs)
    return shapes


@singledispatch
def count_layer(layer, shape):
    """Returns the rows of one layer for an input of `shape`, whose first number is the batch size."""
    if layer.count_params():
        raise ValueError(
            f"`count_flops` cannot count the layer {layer.name!r} ({type(layer).__name__}), which "
            f"has {layer.count_params():,} parameters: `get_flops` counts any model"
        )
    return []


@count_layer.register
def count_model(model: keras.Model, shape):
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"{model.name!r} ({type(model).__name__}) is neither functional nor Sequential: "
            "`get_flops` counts any model"
        )
    # The public `get_config` has the calls, too, but imports TensorFlow on every backend.
    depths = getattr(model, "_nodes_by_depth", {}).values()
    calls = Counter(node.operation for nodes in depths for node in nodes)
    for layer in model.layers:
        if calls[layer] > 1 and layer.weights:
            raise ValueError(
                f"{model.name!r} calls its layer {layer.name!r} more than once, and "
                "`count_flops` counts one call: `get_flops` counts any model"
            )
    for _, rows, _ in count_inside(model, shape):
        yield from rows


def count_inside(model, shape):
    """Yields (layer, rows, output shape without the batch) for the layers of a functional model.

    Args:
        model: the model.
        shape: that of its first input.
    """
    own = {layer: own_shapes(layer) for layer in model.layers}
    is_unknown = any(None in size for size, _ in own.values())
    shapes = layer_shapes(model, shape) if is_unknown and None not in shape else {}
    for layer in model.layers:
        size, output_size = shapes.get(layer, own[layer])
        if isinstance(layer, keras.layers.InputLayer):
            yield layer, [], tuple(shape[1:]) if None in size else tuple(size)
            continue
        is_counted = count_layer.dispatch(type(layer)) is not count_layer.dispatch(object)
        if None in size and is_counted and not isinstance(layer, keras.Model):
            takes = f"{model.name!r} takes images of any size, and its cost depends on their size"
            raise ValueError(f"{takes}: give `image_size`")
        yield layer, list(count_layer(layer, (shape[0], *size))), tuple(output_size)


@count_layer.register
def count_patch_embedding(layer: layers.PatchEmbedding, shape):
    return [matrix_product("patch embedding", layer.projection, shape)]


@count_layer.register
def count_overlap_patch_embedding(layer: layers.OverlapPatchEmbedding, shape):
    for stage in layer.stages:
        kept = 1 if stage.activation is keras.activations.linear else 2
        yield matrix_product("patch embedding", stage, shape, kept)
        shape = stage.compute_output_shape(shape)


@count_layer.register
def count_whitened_patch_embedding(layer: layers.WhitenedPatchEmbedding, shape):
    yield count_whitening(layer, shape)
    shape = (*shape[:-1], 2 * layer.whitening.shape[-1])
    for stage, norm in zip_longest(layer.stages, layer.norms):
        yield matrix_product("patch embedding", stage, shape)
        shape = stage.compute_output_shape(shape)
        if norm is not None:
            kept = 2 * tensor_bytes(layer, shape)  # before and after the activation
            yield Row("patch embedding", norm.count_params(), 0, kept)


@count_layer.register
def count_pooled_patch_embedding(layer: layers.PooledPatchEmbedding, shape):
    yield count_whitening(layer, shape)
    shape = (*shape[:-1], 2 * layer.whitening.shape[-1])
    for stage in layer.stages:
        yield from count_conv_norm(stage, shape)
        shape = stage.compute_output_shape(shape)


def count_whitening(layer, shape):
    output = (*shape[:-1], layer.whitening.shape[-1])
    macs = prod(output) * prod(layer.whitening.shape[:-1])
    both_signs = 2 * tensor_bytes(layer, output)  # before and after the activation
    return Row("patch embedding", prod(layer.whitening.shape), macs, 2 * both_signs)


@count_layer.register(layers.ResNetEmbedding)
@count_layer.register(layers.MobileCLIPEmbedding)
@count_layer.register(layers.Bottleneck)
def count_convolutions(layer, shape):
    for part, part_shape in layer.parts(shape):
        if isinstance(part, keras.layers.Conv2D):
            yield matrix_product("patch embedding", part, part_shape)
        else:
            yield from count_layer(part, part_shape)


@count_layer.register
def count_conv_norm(layer: layers.ConvNorm, shape):
    kept = 1 if layer.activation is None else 2  # before and after the activation
    yield matrix_product("patch embedding", layer.convolution, layer.padded_shape(shape))
    shape = layer.compute_output_shape(shape)
    memory = (kept + (layer.pool_size > 1)) * tensor_bytes(layer, shape)
    yield Row("patch embedding", 2 * layer.filters, 0, memory)  # moving statistics are not parameters


@count_layer.register
def count_dense(layer: keras.layers.Dense, shape):
    component = "patch embedding" if layer.name == "patch_embedding" else "head"
    return [matrix_product(component, layer, shape)]


@count_layer.register(layers.EncoderBlock)
@count_layer.register(layers.ResPostBlock)
@count_layer.register(layers.ParallelThingsBlock)
def count_block(layer, shape):
    for part in layer.parts():
        yield from count_layer(part, shape)


@count_layer.register
def count_parallel_scaling_block(layer: layers.ParallelScalingBlock, shape):
    b, n, d = shape
    inner, hidden = (b, n, layer.in_projection.units - layer.config.mlp_dim), (b, n, layer.config.mlp_dim)
    heads = (b, n, layer.config.num_heads * layer.core_attention.head_width)
    macs = b * n * d  # times its width: the MACs of a part of a matrix product
    bias = 0 if layer.mlp_bias is None else layer.config.mlp_dim
    yield from count_layer(layer.norm, shape)
    qkv_parameters = (d + layer.in_projection.use_bias) * inner[2]
    mlp_parameters = layer.in_projection.count_params() - qkv_parameters + bias
    yield Row("QKV", qkv_parameters, macs * inner[2], tensor_bytes(layer, inner))
    yield Row("MLP", mlp_parameters, macs * layer.config.mlp_dim, 2 * tensor_bytes(layer, hidden))
    yield from count_layer(layer.core_attention, inner)
    if layer.shares_output:
        projected = d * heads[2] + d * layer.out_projection.use_bias
        rest = layer.out_projection.count_params() - projected
        yield Row("projection", projected, macs * heads[2], tensor_bytes(layer, shape))
        yield Row("MLP", rest, macs * layer.config.mlp_dim, 0)
    else:
        yield matrix_product("projection", layer.attention_projection, heads)
        yield matrix_product("MLP", layer.mlp_projection, hidden)
    yield from count_layer(layer.scale, shape)


@count_layer.register
def count_attention(layer: layers.MultiHeadSelfAttention, shape):
    inner = layer.qkv.compute_output_shape(shape)
    values = (*shape[:2], layer.config.num_heads * layer.head_width)
    yield matrix_product("QKV", layer.qkv, shape)
    if layer.config.qkv_bias == "qv":
        yield Row("QKV", prod(layer.query_bias.shape) + prod(layer.value_bias.shape))
    yield from count_layer(layer.core_attention, inner)
    if layer.inner_norm is not None:
        yield from count_layer(layer.inner_norm, values)
    yield matrix_product("projection", layer.projection, values)


@count_layer.register
def count_core_attention(layer: layers.DotProductAttention, shape):
    b, n, _ = shape
    scores, values = (b, layer.config.num_heads, n, n), (b, n, layer.config.num_heads * layer.head_width)
    maps = layer.head_width // layer.query_width  # softmax maps per head: two in differential attention
    products = prod(scores) * layer.head_width
    in_chunks = choose_chunk_size(n, layer.config.query_chunk_size) > 0  # scores are computed again
    kept = 0 if in_chunks else 2 * maps * tensor_bytes(layer, scores)
    norms = 2 * layer.config.qk_norm + isinstance(layer, layers.DifferentialAttention)  # inside heads
    positions = 0 if layer.config.rotary is None else layer.rotary.count_params()
    if layer.relative_positions is not None:
        positions += layer.relative_positions.count_params()
    yield Row("class token and positions", positions)
    yield Row("norms", layer.count_params() - positions, 0, norms * tensor_bytes(layer, values))
    yield Row("attention scores", 0, products, kept)
    yield Row("attention values", 0, products, tensor_bytes(layer, values))


@count_layer.register
def count_mlp(layer: layers.MLP, shape):
    hidden = (*shape[:-1], layer.config.mlp_dim)
    is_gated = isinstance(layer, layers.GatedMLP)
    for part in layer.first_layers():
        yield matrix_product("MLP", part, shape, kept=1 if is_gated else 2)
    if is_gated:
        yield Row("MLP", 0, 0, tensor_bytes(layer, hidden))
    if layer.inner_norm is not None:
        yield from count_layer(layer.inner_norm, hidden)
    yield matrix_product("MLP", layer.fc2, hidden)


@count_layer.register
def count_attention_pooling(layer: layers.AttentionPooling, shape):
    b, n, d = shape
    tokens, pooled, scores = (b, n - layer.num_prefix_tokens, d), (b, d), (b, layer.num_heads, 1, n)
    parts = [
        Row("head", prod(layer.latent.shape)),
        matrix_product("head", layer.query, (1, d)),
        matrix_product("head", layer.key_value, tokens),
        Row("head", 0, 2 * prod(tokens), 2 * tensor_bytes(layer, scores) + tensor_bytes(layer, pooled)),
        matrix_product("head", layer.projection, pooled),
        *count_layer(layer.mlp_norm, pooled),
        *count_layer(layer.mlp, pooled),
    ]
    return [Row("head", row.parameters, row.macs, row.activation_bytes) for row in parts]


def matrix_product(component, layer, shape, kept=1):
    """Returns the row of a Dense or Conv2D layer; training keeps `kept` tensors of its output shape."""
    output = layer.compute_output_shape(shape)
    macs = prod(output[:-1]) * prod(layer.kernel.shape)
    return Row(component, layer.count_params(), macs, kept * tensor_bytes(layer, output))


def register_elementwise(component, layer_class):
    @count_layer.register(layer_class)
    def count_elementwise(layer, shape):
        memory = tensor_bytes(layer, layer.compute_output_shape(shape))
        return [Row(component, layer.count_params(), 0, memory)]


register_elementwise("patch embedding", layers.Patches)
register_elementwise("class token and positions", layers.PatchEncoder)
register_elementwise("norms", keras.layers.LayerNormalization)
register_elementwise("norms", keras.layers.RMSNormalization)
register_elementwise("norms", layers.LayerScale)
register_elementwise("head", layers.TokenPooling)


def tensor_bytes(layer, shape):
    return prod(shape) * ITEM_SIZE[layer.compute_dtype]
