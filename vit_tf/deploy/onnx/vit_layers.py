"""Emitters of the layers of vit_tf, but for attention and preprocessing.

Shapes in the comments: b batch, h and w image height and width, c channels, p patch side, g grid side,
n tokens, d model width.
"""

from math import prod
from typing import Any

import numpy as np

from vit_tf import layers
from vit_tf.deploy.onnx.activations import emit_activation, softmax
from vit_tf.deploy.onnx.attention_layers import emit_core
from vit_tf.deploy.onnx.emitters import emit, emit_chain, emits, values
from vit_tf.deploy.onnx.graph import Graph, Tensor
from vit_tf.deploy.onnx.image_sizes import choose_table, split_sides
from vit_tf.deploy.onnx.keras_layers import emit_dense


@emits(layers.Patches)
def emit_patches(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    (rows, columns), (_, h, w, c) = layer.patch_size, layer.input.shape
    x = graph.cast(x, graph.precision)
    if graph.position_tables is None:
        x = graph.reshape(x, 0, h // rows, rows, w // columns, columns * c)
    else:
        x = split_sides(graph, x, layer.patch_size, c)
    x = graph.transpose(x, 0, 1, 3, 2, 4)  # (b, g, g, p, p * c)
    return graph.reshape(x, 0, -1, rows * columns * c)


@emits(layers.PatchEmbedding)
def emit_patch_embedding(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    x = channels_first(graph, x)
    return as_tokens(graph, emit_convolution(graph, layer.projection, x, (0, 0, 0, 0)), layer)


@emits(layers.OverlapPatchEmbedding)
def emit_overlap(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    x = channels_first(graph, x)
    for stage in layer.stages:
        x = emit_stage(graph, stage, x)
    return as_tokens(graph, x, layer)


@emits(layers.WhitenedPatchEmbedding)
def emit_whitened(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    x = emit_stage(graph, layer.stages[0], emit_whitening(graph, layer, x))
    for norm, stage in zip(layer.norms, layer.stages[1:]):
        x = emit(graph, norm, graph.transpose(x, 0, 2, 3, 1))
        x = emit_activation(graph, layer.activation, x)
        x = emit_stage(graph, stage, graph.transpose(x, 0, 3, 1, 2))
    return as_tokens(graph, x, layer)


def emit_whitening(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    """The activations of whitened images (b, h, w, c), as maps (b, channels, h, w)."""
    filters = values(layer.whitening)
    kernel = np.concatenate([filters, -filters], axis=-1)
    x = add_convolution(graph, channels_first(graph, x), kernel, None, 1, (1, 1, 1, 1), "whitening")
    return emit_activation(graph, layer.activation, x)


def channels_first(graph: Graph, x: Tensor) -> Tensor:
    """Returns images (b, h, w, c) as (b, c, h, w), in the precision of the graph."""
    return graph.transpose(graph.cast(x, graph.precision), 0, 3, 1, 2)


def emit_stage(graph: Graph, stage: Any, x: Tensor) -> Tensor:
    """A convolution of stride 2 of an image of even sides: "same" pads the end only."""
    return emit_convolution(graph, stage, x, (0, 0, 1, 1))


def emit_convolution(graph: Graph, layer: Any, x: Tensor, pads: tuple[int, ...]) -> Tensor:
    with graph.scope(layer.name):
        bias = None if layer.bias is None else values(layer.bias)
        x = add_convolution(graph, x, values(layer.kernel), bias, layer.strides, pads, "kernel")
        return emit_activation(graph, layer.activation, x)


def add_convolution(
    graph: Graph, x: Tensor, kernel: np.ndarray, bias: np.ndarray | None, strides: Any, pads: Any, name: str
) -> Tensor:
    """Adds a convolution by a kernel (rows, columns, c, d)."""
    inputs = [x, graph.weight(kernel.transpose(3, 2, 0, 1), name, x)]
    if bias is not None:
        inputs.append(graph.weight(bias, "bias", x))
    strides = [strides, strides] if isinstance(strides, int) else list(strides)
    shape = list(kernel.shape[:2])
    return graph.add("Conv", *inputs, kernel_shape=shape, strides=strides, pads=list(pads))


def as_tokens(graph: Graph, x: Tensor, layer: Any) -> Tensor:
    """Reshapes (b, d, g, g) to (b, n, d)."""
    return graph.transpose(graph.reshape(x, 0, layer.hidden_dim, -1), 0, 2, 1)


@emits(layers.PatchEncoder)
def emit_patch_encoder(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    """Zeros in the place of the prefix tokens, then a table that holds both the tokens and the positions."""
    if not (layer.prefix or layer.position_table):
        return x
    if layer.prefix:
        x = graph.add("Pad", x, graph.ints(0, layer.num_prefix_tokens, 0, 0, 0, 0))
    if graph.position_tables is None:
        zeros = np.zeros((1, prod(layer.grid_size), 1), "float32")
        table = with_tokens(layer, values(layer.position_embedding) if layer.position_table else zeros)
        return graph.add("Add", x, graph.weight(table, "tokens_and_positions", x))
    tables = {size: with_tokens(layer, table) for size, table in graph.position_tables.items()}
    return graph.add("Add", x, choose_table(graph, tables, x))


def with_tokens(layer: Any, table: np.ndarray) -> np.ndarray:
    """Returns a position table (1, n, d) with the prefix tokens added to, or put before, its rows."""
    if not layer.prefix:
        return table
    tokens = np.concatenate([values(token) for token in layer.prefix], axis=1)
    count = layer.num_prefix_positions
    if count:
        tokens, table = tokens + table[:, :count], table[:, count:]
    table = np.broadcast_to(table, (*table.shape[:2], tokens.shape[2]))
    return np.concatenate([tokens, table], axis=1)


@emits(layers.MLP, layers.GatedMLP)
def emit_mlp(graph: Graph, layer: Any, x: Tensor, scale: np.ndarray | None = None) -> Tensor:
    """`scale` (d,) is multiplied into the last dense layer."""
    if isinstance(layer, layers.GatedMLP):
        x = emit_gated(graph, layer, x)
    else:
        x = emit(graph, layer.fc1, x)
    if layer.inner_norm is not None:
        x = emit(graph, layer.inner_norm, x)
    with graph.scope(layer.fc2.name):
        return emit_dense(graph, layer.fc2, x, scale)


def emit_gated(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    if not layer.packed:
        return graph.add("Mul", emit(graph, layer.fc1_gate, x), emit(graph, layer.fc1_value, x))
    gate, value = graph.split(emit(graph, layer.fc1, x), 2)
    return graph.add("Mul", emit_activation(graph, layer.config.activation, gate), value)


@emits(layers.LayerScale)
def emit_layer_scale(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return graph.add("Mul", x, graph.weight(values(layer.gamma), "gamma", x))


@emits(layers.DropPath)
def emit_drop_path(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    return x


def emit_branch(graph: Graph, x: Tensor, norm: Any, part: Any, scale: Any, with_scores: bool = False) -> Any:
    """Returns scale(part(norm(x))), and the attention probabilities or None.

    A LayerScale is multiplied into the last matrix, except in half precision, where the products could
    vanish.
    """
    arguments: dict[str, Any] = {"return_attention_scores": True} if with_scores else {}
    is_merged = isinstance(scale, layers.LayerScale) and graph.precision == "float32"
    if is_merged:
        arguments["scale"] = values(scale.gamma)
    y = emit(graph, part, emit(graph, norm, x), **arguments)
    y, scores = y if with_scores else (y, None)
    return y if is_merged else emit(graph, scale, y), scores


@emits(layers.EncoderBlock)
def emit_encoder_block(graph: Graph, block: Any, x: Tensor, return_attention_scores: bool = False) -> Any:
    norm, attention, scale = block.attention_norm, block.attention, block.attention_scale
    y, scores = emit_branch(graph, x, norm, attention, scale, return_attention_scores)
    x = graph.add("Add", x, y)
    y, _ = emit_branch(graph, x, block.mlp_norm, block.mlp, block.mlp_scale)
    x = graph.add("Add", x, y)
    return (x, scores) if return_attention_scores else x


@emits(layers.ResPostBlock)
def emit_res_post_block(graph: Graph, block: Any, x: Tensor, return_attention_scores: bool = False) -> Any:
    y, scores = emit(graph, block.attention, x, return_attention_scores=True)
    x = graph.add("Add", x, emit(graph, block.attention_norm, y))
    x = graph.add("Add", x, emit_chain(graph, [block.mlp, block.mlp_norm], x))
    return (x, scores) if return_attention_scores else x


@emits(layers.ParallelThingsBlock)
def emit_parallel_things(graph: Graph, block: Any, x: Tensor, return_attention_scores: bool = False) -> Any:
    """The scores are the mean of the attentions'."""
    tokens, all_scores = x, []
    for norm, attention, scale, _ in block.branches("attention"):
        y, scores = emit_branch(graph, tokens, norm, attention, scale, return_attention_scores)
        x = graph.add("Add", x, y)
        all_scores.append(scores)
    tokens = x
    for norm, mlp, scale, _ in block.branches("mlp"):
        x = graph.add("Add", x, emit_branch(graph, tokens, norm, mlp, scale)[0])
    if not return_attention_scores:
        return x
    total = graph.add("Sum", *all_scores)
    return x, graph.add("Mul", total, graph.scalar(1 / block.num_parallel, total))


@emits(layers.ParallelScalingBlock)
def emit_parallel_scaling(graph: Graph, block: Any, x: Tensor, return_attention_scores: bool = False) -> Any:
    config = block.config
    y = emit(graph, block.in_projection, emit(graph, block.norm, x))
    sizes = graph.ints(config.mlp_dim, block.in_projection.units - config.mlp_dim)
    hidden, qkv = graph.add_outputs("Split", 2, y, sizes, axis=-1)
    if block.mlp_bias is not None:
        hidden = graph.add("Add", hidden, graph.weight(values(block.mlp_bias), "mlp_bias", hidden))
    attended, scores = emit_core(graph, block.core_attention, qkv, return_attention_scores)
    hidden = emit_activation(graph, config.activation, hidden)
    if block.shares_output:
        y = emit(graph, block.out_projection, graph.add("Concat", attended, hidden, axis=-1))
    else:
        y = emit(graph, block.attention_projection, attended)
        y = graph.add("Add", y, emit(graph, block.mlp_projection, hidden))
    x = graph.add("Add", x, emit(graph, block.scale, y))
    return (x, scores) if return_attention_scores else x


@emits(layers.TokenPooling)
def emit_token_pooling(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    """The features, and all that follows them, are float32 under half precision, too."""
    kind, start = layer.pooling, layer.num_prefix_tokens

    def token():
        index = graph.constant(np.array(layer.token_index, "int64"), f"index_{layer.token_index}")
        return graph.cast(graph.add("Gather", x, index, axis=1), "float32")

    def reduce(operator):
        return graph.add(operator, patches, graph.ints(1), keepdims=0)

    if kind == "token":
        return token()
    patches = graph.cast(skip_tokens(graph, x, start), "float32")
    if kind == "max":
        return reduce("ReduceMax")
    average = reduce("ReduceMean")
    if kind == "token_avg":
        return graph.add("Concat", token(), average, axis=-1)
    if kind == "avgmax":
        total = graph.add("Add", reduce("ReduceMax"), average)
        return graph.add("Mul", total, graph.scalar(0.5, total))
    return average


def skip_tokens(graph: Graph, x: Tensor, count: int) -> Tensor:
    """Returns tokens (b, n, d) without the first ones."""
    if not count:
        return x
    return graph.add("Slice", x, graph.ints(count), graph.ints(np.iinfo("int64").max), graph.ints(1))


@emits(layers.AttentionPooling)
def emit_attention_pooling(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    """The projected query of the learned latent is a constant."""
    x = skip_tokens(graph, x, layer.num_prefix_tokens)
    heads, width = layer.num_heads, layer.head_width
    key, value = graph.split(emit(graph, layer.key_value, x), 2)
    key, value = (graph.reshape(y, 0, 0, heads, width) for y in (key, value))
    query = values(layer.query(layer.latent)).reshape(1, heads, 1, width) * width**-0.5
    scores = graph.add("MatMul", graph.weight(query, "query", x), graph.transpose(key, 0, 2, 3, 1))
    value = graph.transpose(value, 0, 2, 1, 3)  # (b, H, n, k)
    y = graph.add("MatMul", softmax(graph, scores), value)  # (b, H, 1, k)
    y = emit(graph, layer.projection, graph.reshape(y, 0, heads * width))
    y = graph.add("Add", y, emit_chain(graph, [layer.mlp_norm, layer.mlp], y))
    return graph.cast(y, "float32")
