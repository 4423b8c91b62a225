"""What attends to what, and how far away that is.

Shapes in the comments: b batch, H heads, q queries, n tokens.
"""

import keras
import numpy as np
from keras import ops

from vit_tf.checks import check_choice
from vit_tf.explain.gradient import predict_eagerly
from vit_tf.layers.hooks import call_with_hooks
from vit_tf.structure import PATCHES, ViTStructure, as_list

REDUCTIONS = {"mean": ops.mean, "max": ops.max, "min": ops.min}
BLOCK_BYTES = 256 * 2**20  # of scores that the backend has in memory at a time


def attention_maps(model, images, layers=None, reduce=None, queries=None):
    """Returns the attention probabilities of chosen layers, from one forward pass.

    The model is used as it is. Only what is returned is kept in memory, and scores of those queries
    alone are computed beside what the model computes anyway: its attention stays fused or in blocks.

    Args:
        model: a model of `build_vit`.
        images: array `(b, height, width, channels)` as the model takes them.
        layers: which blocks, by number (-1 is the last) or name ("block_3"), one or a list; None takes all.
            "pooling" stands for the pooling of `pooling="map"`, see below.
        reduce: "mean", "max" or "min" over the heads; None keeps them.
        queries: which rows: "class_token", "distillation_token", "register_tokens" or "patches"; None
            takes all, in this order.

    Returns:
        Dict from the layers' names to float32 arrays `(b, heads, q, k)`, without the heads if they are
        reduced. The last axis sums to one; to 1 - lambda in differential attention. Of parallel
        attentions in one block, the mean. "pooling", the last, has one row, whatever `queries` says: its
        learned query's, over the tokens that it reads, as a rule the patches alone.

    Raises:
        ValueError: the model is not one of `build_vit`; the images have another shape; there is no such
            layer, no such token, no such reduction.
    """
    anatomy = ViTStructure(model)
    images = anatomy.check_images(images)
    check_choice("reduce", reduce, REDUCTIONS, optional=True)
    rows = slice(0, anatomy.num_tokens) if queries is None else anatomy.tokens(queries)
    chosen = None if layers is None else as_list(layers)
    pooled = pooling_map(anatomy, images, reduce) if "pooling" in (chosen or ()) else {}
    blocks = [key for key in chosen if key != "pooling"] if pooled else chosen
    if pooled and not blocks:
        return pooled

    # Attentions side by side are averaged head by head, before the heads are reduced.
    early = reduce if all(len(block.attention_layers()) == 1 for block in anatomy.blocks.values()) else None

    def scores(heads, qkv):
        blocks = [to_numpy(fuse(x, early)) for _, x in score_blocks(heads, qkv, rows)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=-2)

    maps = per_block(anatomy, images, blocks, scores)
    if early != reduce:
        maps = {name: to_numpy(fuse(x, reduce)) for name, x in maps.items()}
    return {**maps, **pooled}


def fuse(scores, reduce):
    return REDUCTIONS[reduce](scores, axis=1) if reduce else scores


def score_blocks(heads, qkv, queries):
    """Yields slices of the queries and their scores `(b, H, q, n)`, few enough not to fill the memory."""
    b, n, _ = qkv.shape
    step = max(1, BLOCK_BYTES // (b * heads.config.num_heads * n * 4))
    for start in range(queries.start, queries.stop, step):
        block = slice(start, min(start + step, queries.stop))
        yield block, heads.scores(qkv, block)


def pooling_map(anatomy, images, reduce):
    """Returns {"pooling": the attention of the learned query}."""
    pooling = anatomy.pooling
    if not anatomy.pools_by_attention:
        raise ValueError(
            f"{anatomy.model.name!r} does not pool by attention, as only pooling='map' does: choose blocks"
        )
    x = pooling.scores(predict_eagerly(keras.Model(anatomy.model.input, pooling.input), images))
    return {"pooling": to_numpy(fuse(x, reduce))}


def attention_distance(model, images, layers=None):
    """Returns how far each head looks: the mean distance in pixels from a patch to what it attends to.

    The distance between the centres of two patches, weighted by the attention of one to the other among
    all patches (prefix tokens have no place, and are left out of the rows' sums), averaged over queries
    and images; a query that attends to no patch at all, as may be in half precision, is left out. In
    differential attention weights, and so distances, may be negative. Memory stays small for any
    number of tokens.
    Reference: ViT paper, figure 7, right, and appendix D.7.

    Args:
        model: a model of `build_vit`.
        images: array `(b, height, width, channels)` as the model takes them; the paper took 128.
        layers: which blocks, see `attention_maps`.

    Returns:
        float32 array `(layers, heads)`.

    Raises:
        ValueError: see `attention_maps`.
    """
    anatomy = ViTStructure(model)
    images = anatomy.check_images(images)
    patches = anatomy.tokens(PATCHES)
    between = patch_distances(anatomy.grid_size, anatomy.patch_size)  # (n, n)

    def distance(heads, qkv):
        total = count = 0
        for queries, x in score_blocks(heads, qkv, patches):
            x = ops.cast(x[..., patches], "float32")  # (b, H, q, n)
            distances = ops.convert_to_tensor(
                between[queries.start - patches.start : queries.stop - patches.start]
            )
            sums = ops.sum(x, axis=-1)
            counted = ops.cast(sums != 0, "float32")  # (b, H, q)
            mean = counted * ops.sum(x * distances, axis=-1) / (sums + 1 - counted)
            total, count = total + ops.sum(mean, axis=(0, 2)), count + ops.sum(counted, axis=(0, 2))
        return to_numpy(total) / np.maximum(to_numpy(count), 1)

    return np.stack(list(per_block(anatomy, images, layers, distance).values()))


def patch_distances(grid_size, patch_size):
    """Returns the distances in pixels between the centres of all patches, float32 `(n, n)`."""
    places = np.indices(grid_size).reshape(2, -1).T * np.array(patch_size)
    return np.linalg.norm(places[:, None] - places[None], axis=-1).astype("float32")


def per_block(anatomy, images, chosen, function):
    """Returns {block's name: mean over its attentions of `function(attention, qkv)`} for chosen blocks."""
    names = anatomy.choose(chosen)
    found = {name: [] for name in names}
    hooks = {
        (layer.core_attention, "qkv"): observer(found[name], function, layer.core_attention)
        for name in names
        for layer in anatomy.blocks[name].attention_layers()
    }
    forward = keras.Model(anatomy.model.input, anatomy.blocks[names[-1]].output)
    call_with_hooks(hooks, predict_eagerly, forward, images)
    return {
        name: values[0] if len(values) == 1 else sum(values) / len(values) for name, values in found.items()
    }


def observer(found, function, heads):
    """Returns a hook that appends `function(heads, qkv)` to a list."""
    return lambda qkv: found.append(function(heads, qkv))


def to_numpy(x):
    return np.asarray(ops.convert_to_numpy(ops.cast(x, "float32")))
