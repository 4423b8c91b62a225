"""Emitters of self-attention.

Shapes in the comments: b batch, n tokens, m chosen queries, H heads, k head width.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from vit_tf import layers
from vit_tf.deploy.onnx.activations import softmax
from vit_tf.deploy.onnx.emitters import emit, emits, values
from vit_tf.deploy.onnx.graph import Graph, Tensor
from vit_tf.deploy.onnx.keras_layers import emit_dense, emit_rms_norm
from vit_tf.layers.chunked_attention import split_evenly
from vit_tf.layers.core_attention import choose_chunk_size

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
    x, scores = emit_core(graph, layer.core_attention, emit(graph, layer.qkv, x), return_attention_scores)
    if layer.inner_norm is not None:
        x = emit(graph, layer.inner_norm, x)
    with graph.scope(layer.projection.name):
        x = emit_dense(graph, layer.projection, x, scale)
    return (x, scores) if return_attention_scores else x


def emit_core(graph: Graph, core: Any, qkv: Tensor, with_scores: bool) -> Scored:
    """Adds the attention of queries, keys and values (b, n, 3 * H * k)."""
    with graph.scope(core.name):
        return CORES[type(core)](graph, core, qkv, with_scores)


def emit_dot_product(graph: Graph, core: Any, qkv: Tensor, with_scores: bool) -> Scored:
    if graph.opset >= 23 and not with_scores:
        return emit_operator(graph, core, qkv), None
    heads, scale = core.config.num_heads, core.query_width**-0.5
    query, key, value = (graph.reshape(x, 0, 0, heads, core.head_width) for x in graph.split(qkv, 3))
    if core.config.qk_norm:
        query, key = emit(graph, core.query_norm, query), emit(graph, core.key_norm, key)
    query, value = graph.transpose(query, 0, 2, 1, 3), graph.transpose(value, 0, 2, 1, 3)  # (b, H, n, k)
    query, key = graph.add("Mul", query, graph.scalar(scale, query)), graph.transpose(key, 0, 2, 3, 1)

    def score(query: Tensor) -> Tensor:
        return softmax(graph, graph.add("MatMul", query, key))  # (b, H, m, n)

    return weigh(graph, core, query, 2, score, value, with_scores)


def emit_operator(graph: Graph, core: Any, qkv: Tensor) -> Tensor:
    """Adds the operator Attention, which takes queries, keys and values (b, n, H * k)."""
    heads = core.config.num_heads
    query, key, value = graph.split(qkv, 3)
    if core.config.qk_norm:
        query, key = (
            graph.reshape(emit(graph, norm, graph.reshape(x, 0, 0, heads, core.head_width)), 0, 0, -1)
            for norm, x in ((core.query_norm, query), (core.key_norm, key))
        )
    options: dict[str, Any] = dict(q_num_heads=heads, kv_num_heads=heads, scale=core.query_width**-0.5)
    if qkv.dtype == "float16":
        options["softmax_precision"] = 1  # float32

    def attend(query: Tensor) -> Tensor:
        return graph.add("Attention", query, key, value, **options)

    return in_chunks(graph, core, query, (1, 1), attend)


def emit_differential(graph: Graph, core: Any, qkv: Tensor, with_scores: bool) -> Scored:
    heads, width = core.config.num_heads, core.query_width
    query, key, value = graph.split(qkv, 3)
    query, key = (graph.reshape(x, 0, 0, heads, 2, width) for x in (query, key))
    if core.config.qk_norm:
        query, key = emit(graph, core.query_norm, query), emit(graph, core.key_norm, key)
    query, key = graph.transpose(query, 0, 2, 3, 1, 4), graph.transpose(key, 0, 2, 3, 4, 1)
    query = graph.add("Mul", query, graph.scalar(width**-0.5, query))
    value = graph.transpose(graph.reshape(value, 0, 0, heads, core.head_width), 0, 2, 1, 3)
    factors = graph.weight(np.array([1, -learned_lambda(core)]).reshape(2, 1, 1), "factors", query)

    def score(query: Tensor) -> Tensor:
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
    score: Callable[[Tensor], Tensor],
    value: Tensor,
    with_scores: bool,
    norm: Callable[[Tensor], Tensor] | None = None,
) -> Scored:
    """Returns the values (b, H, n, k) weighed by their scores, as (b, n, H * k), and the scores or None.

    Args:
        query: has its tokens at `axis`.
        score: function from queries to scores (b, H, m, n).
        norm: function of the heads' outputs (b, H, n, k).
    """
    if with_scores:
        scores = score(query)
        x = graph.add("MatMul", scores, value)
    else:
        scores = None
        x = in_chunks(graph, core, query, (axis, 2), lambda part: graph.add("MatMul", score(part), value))
    return join_heads(graph, x if norm is None else norm(x), core), scores


def in_chunks(
    graph: Graph, core: Any, query: Tensor, axes: tuple[int, int], attend: Callable[[Tensor], Tensor]
) -> Tensor:
    """Returns the output of `attend` for queries. `axes` are those of the tokens in queries and in outputs.

    Above 1,024 tokens the scores of one chunk of queries at a time are in memory, as in Keras; but not in a
    graph for several image sizes, where the number of tokens is unknown.
    """
    size = choose_chunk_size(graph.num_tokens, core.config.query_chunk_size)
    if not size or graph.position_tables is not None:
        return attend(query)
    chunks = split_evenly(graph.num_tokens, size)
    sizes = graph.ints(*(chunk.stop - chunk.start for chunk in chunks))
    queries = graph.add_outputs("Split", len(chunks), query, sizes, axis=axes[0])
    return graph.add("Concat", *(attend(query) for query in queries), axis=axes[1])


CORES = {layers.DotProductAttention: emit_dot_product, layers.DifferentialAttention: emit_differential}


def learned_lambda(core):
    """Returns the weight of the second map, see `DifferentialAttention.compute_lambda`."""
    first = np.exp(np.sum(values(core.lambda_q1) * values(core.lambda_k1)))
    return first - np.exp(np.sum(values(core.lambda_q2) * values(core.lambda_k2))) + core.lambda_init


def join_heads(graph: Graph, x: Tensor, core: Any) -> Tensor:
    """Reshapes (b, H, n, k) to (b, n, H * k)."""
    return graph.reshape(graph.transpose(x, 0, 2, 1, 3), 0, 0, core.config.num_heads * core.head_width)
