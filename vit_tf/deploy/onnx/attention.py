"""Emitters of self-attention.

Shapes in the comments: b batch, n tokens, H heads, k head width.
"""

from typing import Any

import numpy as np

from vit_tf import layers
from vit_tf.deploy.onnx.activations import softmax
from vit_tf.deploy.onnx.emitters import emit, emits, values
from vit_tf.deploy.onnx.graph import Graph, Tensor
from vit_tf.deploy.onnx.keras_layers import emit_dense, emit_rms_norm

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
    heads, scale = core.config.num_heads, core.query_width**-0.5
    query, key, value = graph.split(qkv, 3)
    if graph.opset >= 23 and not with_scores:
        if core.config.qk_norm:
            query, key = (
                graph.reshape(emit(graph, norm, graph.reshape(x, 0, 0, heads, core.head_width)), 0, 0, -1)
                for norm, x in ((core.query_norm, query), (core.key_norm, key))
            )
        options: dict[str, Any] = dict(q_num_heads=heads, kv_num_heads=heads, scale=scale)
        if qkv.dtype == "float16":
            options["softmax_precision"] = 1  # float32
        return graph.add("Attention", query, key, value, **options), None
    query, key, value = (graph.reshape(x, 0, 0, heads, core.head_width) for x in (query, key, value))
    if core.config.qk_norm:
        query, key = emit(graph, core.query_norm, query), emit(graph, core.key_norm, key)
    query, value = graph.transpose(query, 0, 2, 1, 3), graph.transpose(value, 0, 2, 1, 3)  # (b, H, n, k)
    query = graph.add("Mul", query, graph.scalar(scale, query))
    scores = softmax(graph, graph.add("MatMul", query, graph.transpose(key, 0, 2, 3, 1)))  # (b, H, n, n)
    return join_heads(graph, graph.add("MatMul", scores, value), core), scores


def emit_differential(graph: Graph, core: Any, qkv: Tensor, with_scores: bool) -> Scored:
    heads, width = core.config.num_heads, core.query_width
    query, key, value = graph.split(qkv, 3)
    query, key = (graph.reshape(x, 0, 0, heads, 2, width) for x in (query, key))
    if core.config.qk_norm:
        query, key = emit(graph, core.query_norm, query), emit(graph, core.key_norm, key)
    query, key = graph.transpose(query, 0, 2, 3, 1, 4), graph.transpose(key, 0, 2, 3, 4, 1)
    query = graph.add("Mul", query, graph.scalar(width**-0.5, query))
    pair = softmax(graph, graph.add("MatMul", query, key))  # (b, H, 2, n, n)
    factors = np.array([1, -learned_lambda(core)]).reshape(2, 1, 1)
    pair = graph.add("Mul", pair, graph.weight(factors, "factors", pair))
    scores = graph.add("ReduceSum", pair, graph.ints(2), keepdims=0)  # (b, H, n, n)
    value = graph.transpose(graph.reshape(value, 0, 0, heads, core.head_width), 0, 2, 1, 3)
    x = graph.add("MatMul", scores, value)
    with graph.scope(core.head_norm.name):
        x = emit_rms_norm(graph, core.head_norm, x, 1 - core.lambda_init)
    return join_heads(graph, x, core), scores


CORES = {layers.DotProductAttention: emit_dot_product, layers.DifferentialAttention: emit_differential}


def learned_lambda(core):
    """Returns the weight of the second map, see `DifferentialAttention.compute_lambda`."""
    first = np.exp(np.sum(values(core.lambda_q1) * values(core.lambda_k1)))
    return first - np.exp(np.sum(values(core.lambda_q2) * values(core.lambda_k2))) + core.lambda_init


def join_heads(graph: Graph, x: Tensor, core: Any) -> Tensor:
    """Reshapes (b, H, n, k) to (b, n, H * k)."""
    return graph.reshape(graph.transpose(x, 0, 2, 1, 3), 0, 0, core.config.num_heads * core.head_width)
