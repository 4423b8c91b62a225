"""Attention maps and attention distances.

Shapes in the comments: b batch, H heads, q queries, n tokens.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from vit_tf.block_features import as_list, check_images, predict_eagerly, select_blocks, to_numpy
from vit_tf.checks import check_choice
from vit_tf.layers.hooks import call_with_hooks
from vit_tf.structure import PATCHES

REDUCTIONS = {"mean": ops.mean, "max": ops.max, "min": ops.min}
CHUNK_BYTES = 256 * 2**20  # of scores that the backend has in memory at a time


def attention_maps(
    model: keras.Model, images: Any, layers: Any = None, reduce: str | None = None, queries: str | None = None
) -> dict[str, np.ndarray]:
    """Returns the attention probabilities of chosen layers, from one forward pass.

    The forward pass of the model itself stays fused or chunked: the scores are computed beside it, for the
    chosen layers and queries only. Only the returned arrays are kept in memory.

    Args:
        model: a model of `build_vit`.
        images: array `(b, height, width, channels)`, preprocessed as the model expects.
        layers: blocks by number (-1 is the last) or name ("block_3"), one or a list; None takes all.
            "pooling" is the pooling layer of `pooling="map"`, see below.
        reduce: "mean", "max" or "min" over the heads; None keeps the heads.
        queries: the rows to return: those of "class_token", "distillation_token", "register_tokens" or
            "patches"; None returns all, in this order.

    Returns:
        Dict from layer names to float32 arrays `(b, heads, q, k)`, without the axis of the heads if they are
        reduced. The last axis sums to one; to 1 - lambda in differential attention. Parallel attentions in
        one block are averaged. "pooling" comes last. Independent of `queries`, it has one row, that of the
        learned query, over the tokens that the pooling reads: the patches, unless `pool_prefix` is true.

    Raises:
        ValueError: `model` is not a model of `build_vit`, the images have another shape or type than the
            model takes, or a layer, a token or a reduction does not exist.
    """
    structure, images = check_images(model, images)
    check_choice("reduce", reduce, REDUCTIONS, optional=True)
    rows = slice(0, structure.num_tokens) if queries is None else structure.tokens(queries)
    layers = None if layers is None else as_list(layers)
    pooled = {}
    if "pooling" in (layers or ()):
        pooled = pooling_map(structure, images, reduce)
        layers = [key for key in layers if key != "pooling"]
        if not layers:
            return pooled

    # Parallel attentions are averaged head by head, before the heads are reduced.
    early = reduce if all(len(block.attention_layers()) == 1 for block in structure.blocks.values()) else None

    def scores(attention, qkv):
        chunks = [to_numpy(fuse_heads(x, early)) for _, x in score_chunks(structure, attention, qkv, rows)]
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks, axis=-2)

    maps = per_block(structure, images, layers, scores)
    if early != reduce:
        maps = {name: to_numpy(fuse_heads(x, reduce)) for name, x in maps.items()}
    return {**maps, **pooled}


def fuse_heads(scores, reduce):
    """Returns scores `(b, q, n)` of scores `(b, H, q, n)`; the same scores if `reduce` is None."""
    return REDUCTIONS[reduce](scores, axis=1) if reduce else scores


def score_chunks(structure, attention, qkv, queries):
    """Yields slices of the queries and their scores `(b, H, q, n)`, at most `CHUNK_BYTES` at a time."""
    b, n, _ = qkv.shape
    needs_grid = attention.config.rotary is not None and attention.config.grid_size is None
    grid = {"grid": ops.zeros(structure.grid_size, "int32")} if needs_grid else {}  # see `PatchGrid`
    step = max(1, CHUNK_BYTES // (b * attention.config.num_heads * n * 4))
    for start in range(queries.start, queries.stop, step):
        chunk = slice(start, min(start + step, queries.stop))
        yield chunk, attention.scores(qkv, chunk, **grid)


def pooling_map(structure, images, reduce):
    """Returns {"pooling": the attention of the learned query}."""
    pooling = structure.pooling
    if not structure.pools_by_attention:
        raise ValueError(
            f"{structure.model.name!r} does not pool by attention, as only pooling='map' does: choose blocks"
        )
    x = pooling.scores(predict_eagerly(keras.Model(structure.model.input, pooling.input), images))
    return {"pooling": to_numpy(fuse_heads(x, reduce))}


def attention_distance(model: keras.Model, images: Any, layers: Any = None) -> np.ndarray:
    """Returns the mean distance in pixels from a patch to the patches that it attends to, per head.

    The distance between the centres of two patches is weighted by the attention of one to the other, and
    averaged over queries and images. Prefix tokens have no position: they are left out, and the attention
    to the patches is scaled to sum to one. A query that attends to no patch at all, as can happen in half
    precision, is left out. In differential attention weights, and so distances, may be negative. The scores
    are computed in chunks, so that memory stays small for any number of tokens.
    Reference: ViT paper, figure 7, right, and appendix D.7.

    Args:
        model: a model of `build_vit`.
        images: array `(b, height, width, channels)`, preprocessed as the model expects; 128 in the paper.
        layers: blocks, see `attention_maps`.

    Returns:
        float32 array `(layers, heads)`.

    Raises:
        ValueError: see `attention_maps`.
    """
    structure, images = check_images(model, images)
    patches = structure.tokens(PATCHES)
    between = patch_distances(structure.grid_size, structure.patch_size)  # (n, n)

    def distance(attention, qkv):
        total = count = 0
        for queries, x in score_chunks(structure, attention, qkv, patches):
            x = ops.cast(x[..., patches], "float32")  # (b, H, q, n)
            distances = ops.convert_to_tensor(
                between[queries.start - patches.start : queries.stop - patches.start]
            )
            sums = ops.sum(x, axis=-1)
            counted = ops.cast(sums != 0, "float32")  # (b, H, q)
            mean = counted * ops.sum(x * distances, axis=-1) / (sums + 1 - counted)
            total, count = total + ops.sum(mean, axis=(0, 2)), count + ops.sum(counted, axis=(0, 2))
        return to_numpy(total) / np.maximum(to_numpy(count), 1)

    return np.stack(list(per_block(structure, images, layers, distance).values()))


def patch_distances(grid_size, patch_size):
    """Returns the distances in pixels between the centres of all patches, float32 `(n, n)`."""
    corners = np.indices(grid_size).reshape(2, -1).T * np.array(patch_size)
    return np.linalg.norm(corners[:, None] - corners[None], axis=-1).astype("float32")


def per_block(structure, images, layers, function):
    """Returns {name of a block: mean over its attentions of `function(attention, qkv)`} for chosen blocks."""
    names = select_blocks(structure, layers)
    results = {name: [] for name in names}
    hooks = {
        (layer.core_attention, "qkv"): observer(results[name], function, layer.core_attention)
        for name in names
        for layer in structure.blocks[name].attention_layers()
    }
    forward = keras.Model(structure.model.input, structure.blocks[names[-1]].output)
    call_with_hooks(hooks, predict_eagerly, forward, images)
    return {name: x[0] if len(x) == 1 else sum(x) / len(x) for name, x in results.items()}


def observer(results, function, attention):
    """Returns a hook that appends `function(attention, qkv)` to a list."""
    return lambda qkv: results.append(function(attention, qkv))
