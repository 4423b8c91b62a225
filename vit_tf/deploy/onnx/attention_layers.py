"""Emitters of self-attention.

Shapes in the comments: b batch, n tokens, m chosen queries, H heads, k head width.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from vit_tf import layers
from vit_tf.deploy.onnx.activations import softmax
from vit_tf.deploy.onnx.emitters import emit, emits, values
from vit_tf.deploy.onnx.graph import Graph, Tensor
from vit_tf.deploy.onnx.image_sizes import choose_table
from vit_tf.deploy.onnx.keras_layers import emit_dense, emit_rms_norm
from vit_tf.layers.chunked_attention import split_evenly
from vit_tf.layers.core_attention import choose_chunk_size
from vit_tf.layers.relative_positions import relative_index

Scored = tuple[Tensor, Tensor | None]  # an output, and the attention probabilities if they were wanted


@emits(layers.MultiHeadSelfAttention)
def emit_attention(
    graph: Graph,
    layer: Any,
    x: Tensor,
    return_attention_scores: bool = False,
    scale: np.ndarray | None = None,
) -> Any:
    """`scale` (d,) is multiplied into the output projection."""
    qkv = emit(graph, layer.qkv, x)
    if layer.config.qkv_bias == "qv":
        biases = values(layer.query_bias), values(layer.value_bias)
        bias = np.concatenate([biases[0], np.zeros_like(biases[1]), biases[1]])
        qkv = graph.add("Add", qkv, graph.weight(bias, "qkv_bias", qkv))
    x, scores = emit_core(graph, layer.core_attention, qkv, return_attention_scores)
    if layer.inner_norm is not None:
        x = emit(graph, layer.inner_norm, x)
    with graph.scope(layer.projection.name):
        x = emit_dense(graph, layer.projection, x, scale)
    return (x, scores) if return_attention_scores else x


def emit_core(graph: Graph, core: Any, qkv: Tensor, with_scores: bool) -> Scored:
    """Adds the attention of queries, keys and values (b, n, the heads of all * k)."""
    with graph.scope(core.name):
        return CORES[type(core)](graph, core, qkv, with_scores)


def emit_dot_product(graph: Graph, core: Any, qkv: Tensor, with_scores: bool) -> Scored:
    if graph.opset >= 23 and not with_scores:
        return emit_operator(graph, core, qkv), None
    query, key, value = heads_apart(graph, core, *split_heads(graph, core, qkv))
    query, key = prepare(graph, core, query, key)
    if core.num_groups > 1:
        key, value = (repeat_heads(graph, core, x) for x in (key, value))
    scale = core.query_width**-0.5
    query, value = graph.transpose(query, 0, 2, 1, 3), graph.transpose(value, 0, 2, 1, 3)  # (b, H, n, k)
    query, key = graph.add("Mul", query, graph.scalar(scale, query)), graph.transpose(key, 0, 2, 3, 1)

    bias = relative_bias(graph, core, query)

    def score(query: Tensor, queries: slice) -> Tensor:
        scores = graph.add("MatMul", query, key)  # (b, H, m, n)
        return softmax(graph, scores if bias is None else graph.add("Add", scores, bias(queries)))

    return weigh(graph, core, query, 2, score, value, with_scores)


def emit_operator(graph: Graph, core: Any, qkv: Tensor) -> Tensor:
    """Adds the operator Attention, which takes queries, keys and values (b, n, heads * k)."""
    query, key, value = split_heads(graph, core, qkv)
    if core.config.qk_norm or core.config.rotary is not None:
        query, key = heads_apart(graph, core, query, key)
        query, key = (graph.reshape(x, 0, 0, -1) for x in prepare(graph, core, query, key))
    heads, scale = core.config.num_heads, core.query_width**-0.5
    options: dict[str, Any] = dict(q_num_heads=heads, kv_num_heads=core.num_kv_heads, scale=scale)
    if qkv.dtype == "float16":
        options["softmax_precision"] = 1  # float32

    bias = relative_bias(graph, core, query)

    def attend(query: Tensor, queries: slice) -> Tensor:
        masks = [] if bias is None else [graph.add("Unsqueeze", bias(queries), graph.ints(0))]
        return graph.add("Attention", query, key, value, *masks, **options)

    return in_chunks(graph, core, query, (1, 1), attend)


def relative_bias(graph: Graph, core: Any, like: Tensor) -> Callable[[slice], Tensor] | None:
    """Returns a function of a slice of the queries: the bias (H, m, n) of their scores. None for no bias."""
    layer = core.relative_positions
    if layer is None:
        return None
    index = relative_index(layer.grid_size, layer.num_prefix_tokens)
    with graph.scope(layer.name):
        table = graph.weight(values(layer.table).T, "table", like)

    def bias(queries: slice) -> Tensor:
        name = f"relative_index_{queries.start or 0}"
        return graph.add("Gather", table, graph.constant(index[queries], name), axis=1)

    return bias


def split_heads(graph: Graph, core: Any, qkv: Tensor) -> list[Tensor]:
    """Returns queries, keys and values (b, n, heads * k)."""
    if core.num_groups == 1:
        return graph.split(qkv, 3)
    sizes = (core.config.num_heads, core.num_kv_heads, core.num_kv_heads)
    return graph.add_outputs("Split", 3, qkv, graph.ints(*(core.head_width * x for x in sizes)), axis=-1)


def heads_apart(graph: Graph, core: Any, query: Tensor, *others: Tensor) -> list[Tensor]:
    """Returns queries, and keys and values, as (b, n, heads, k)."""
    query = graph.reshape(query, 0, 0, core.config.num_heads, core.head_width)
    return [query, *(graph.reshape(x, 0, 0, core.num_kv_heads, core.head_width) for x in others)]


def repeat_heads(graph: Graph, core: Any, x: Tensor) -> Tensor:
    """Returns keys or values (b, n, H, k), those of (b, n, fewer heads, k) once for each query of a group."""
    x = graph.reshape(x, 0, 0, core.num_kv_heads, 1, core.head_width)
    x = graph.add("Concat", *[x] * core.num_groups, axis=3)
    return graph.reshape(x, 0, 0, core.config.num_heads, core.head_width)


def prepare(graph: Graph, core: Any, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Normalises and turns queries and keys (b, n, H, k) or (b, n, H, 2, k / 2), as `DotProductAttention`."""
    if core.config.qk_norm:
        query, key = emit(graph, core.query_norm, query), emit(graph, core.key_norm, key)
    if core.config.rotary is None:
        return query, key
    with graph.scope("rotary"):
        return turn(graph, core, query), turn(graph, core, key)


def turn(graph: Graph, core: Any, x: Tensor) -> Tensor:
    """Turns pairs of channels by constants, in float32, as `vit_tf.layers.RotaryPositions`."""
    differential, width = core.query_width != core.head_width, core.query_width
    cosines, sines = rotary_factors(graph, core, (1, width) if differential else (width,))
    wide = graph.cast(x, "float32")
    if core.config.rotary.half_rotation:
        others = graph.add("Concat", *reversed(graph.split(wide, 2)), axis=-1)
    else:
        kept = (0,) * (4 if differential else 3)
        pairs = graph.reshape(wide, *kept, width // 2, 2)
        swapped = graph.add("Concat", *reversed(graph.split(pairs, 2)), axis=-1)
        others = graph.reshape(swapped, *kept, width)
    turned = graph.add("Add", graph.add("Mul", wide, cosines), graph.add("Mul", others, sines))
    return graph.cast(turned, x.dtype)


def rotary_factors(graph: Graph, core: Any, last: tuple[int, ...]) -> list[Tensor]:
    """Returns cosines and signed sines (n, H, *last), or (1, n, H, *last) of several sizes; H may be 1."""
    names = ("rotary_cosines", "rotary_signed_sines")
    if graph.position_tables is None:
        factors = [values(y) for y in core.rotary.factors(tokens_first=True)]  # (n, H or 1, k)
        return [graph.constant(y.reshape(*y.shape[:2], *last), name) for y, name in zip(factors, names)]
    key: tuple = (core.config.rotary, last)  # one choice for all blocks
    key = (*key, core.path) if core.config.rotary.kind == "mixed" else key
    if key not in graph.rotary_factors:
        tables: tuple[dict, dict] = ({}, {})
        for size in graph.position_tables:
            grid = ops.zeros([side // patch for side, patch in zip(size, graph.patch_size)], "int32")
            for table, y in zip(tables, core.rotary.factors(grid, tokens_first=True)):
                table[size] = values(y).reshape(1, y.shape[0], -1)
        heads, like = y.shape[1], Tensor("", "float32")
        chosen = [choose_table(graph, table, like, name) for table, name in zip(tables, names)]
        graph.rotary_factors[key] = [graph.reshape(x, 0, 0, heads, *last) for x in chosen]
    return graph.rotary_factors[key]


def emit_differential(graph: Graph, core: Any, qkv: Tensor, with_scores: bool) -> Scored:
    heads, width = core.config.num_heads, core.query_width
    query, key, value = graph.split(qkv, 3)
    query, key = (graph.reshape(x, 0, 0, heads, 2, width) for x in (query, key))
    query, key = prepare(graph, core, query, key)
    query, key = graph.transpose(query, 0, 2, 3, 1, 4), graph.transpose(key, 0, 2, 3, 4, 1)
    query = graph.add("Mul", query, graph.scalar(width**-0.5, query))
    value = graph.transpose(graph.reshape(value, 0, 0, heads, core.head_width), 0, 2, 1, 3)
    factors = graph.weight(np.array([1, -learned_lambda(core)]).reshape(2, 1, 1), "factors", query)

    def score(query: Tensor, queries: slice) -> Tensor:
        pair = graph.add("Mul", softmax(graph, graph.add("MatMul", query, key)), factors)  # (b, H, 2, m, n)
        return graph.add("ReduceSum", pair, graph.ints(2), keepdims=0)  # (b, H, m, n)

    def norm(x: Tensor) -> Tensor:
        with graph.scope(core.head_norm.name):
            return emit_rms_norm(graph, core.head_norm, x, 1 - core.lambda_init)

    return weigh(graph, core, query, 3, score, value, with_scores, norm)


def weigh(
    graph: Graph,
    core: Any,
    query: Tensor,
    axis: int,
    score: Callable[[Tensor, slice], Tensor],
    value: Tensor,
    with_scores: bool,
    norm: Callable[[Tensor], Tensor] | None = None,
) -> Scored:
    """Returns the values (b, H, n, k) weighed by their scores, as (b, n, H * k), and the scores or None.

    Args:
        query: has its tokens at `axis`.
        score: function from queries, and their slice of the tokens, to scores (b, H, m, n).
        norm: function of the heads' outputs (b, H, n, k).
    """
    if with_scores:
        scores = score(query, slice(None))
        x = graph.add("MatMul", scores, value)
    else:
        scores = None
        x = in_chunks(graph, core, query, (axis, 2), lambda *part: graph.add("MatMul", score(*part), value))
    return join_heads(graph, x if norm is None else norm(x), core), scores


def in_chunks(
    graph: Graph, core: Any, query: Tensor, axes: tuple[int, int], attend: Callable[[Tensor, slice], Tensor]
) -> Tensor:
    """Returns the output of `attend` for queries and their slice of the tokens.

    `axes` are those of the tokens in queries and in outputs.

    Above 1,024 tokens the scores of one chunk of queries at a time are in memory, as in Keras; but not in a
    graph for several image sizes, where the number of tokens is unknown.
    """
    size = choose_chunk_size(graph.num_tokens, core.config.query_chunk_size)
    if not size or graph.position_tables is not None:
        return attend(query, slice(None))
    chunks = split_evenly(graph.num_tokens, size)
    sizes = graph.ints(*(chunk.stop - chunk.start for chunk in chunks))
    queries = graph.add_outputs("Split", len(chunks), query, sizes, axis=axes[0])
    return graph.add("Concat", *map(attend, queries, chunks), axis=axes[1])


CORES = {layers.DotProductAttention: emit_dot_product, layers.DifferentialAttention: emit_differential}


def learned_lambda(core):
    """Returns the weight of the second map, see `DifferentialAttention.compute_lambda`."""
    first = np.exp(np.sum(values(core.lambda_q1) * values(core.lambda_k1)))
    return first - np.exp(np.sum(values(core.lambda_q2) * values(core.lambda_k2))) + core.lambda_init


def join_heads(graph: Graph, x: Tensor, core: Any) -> Tensor:
    """Reshapes (b, H, n, k) to (b, n, H * k)."""
    return graph.reshape(graph.transpose(x, 0, 2, 1, 3), 0, 0, core.config.num_heads * core.head_width)
