"""Which patches matter: rollout, class relevance and Grad-CAM, each a map `(b, grid_h, grid_w)`.

Shapes in the comments: b batch, H heads, n tokens, d model width.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from vit_tf.block_features import check_images, select_blocks, to_numpy
from vit_tf.checks import check_choice, check_number, shown
from vit_tf.explain.gradient import gradients_at
from vit_tf.explain.maps import REDUCTIONS, attention_maps
from vit_tf.structure import PATCHES


def attention_rollout(
    model: keras.Model,
    images: Any,
    head_fusion: str = "mean",
    discard_ratio: float = 0.0,
    *,
    query: str | None = None,
    upsample: bool = False,
) -> np.ndarray:
    """Returns how much of each patch reaches the tokens that the model reads, if only attention mixed tokens.

    In each block the attention A of the heads is fused and averaged with the identity, which stands for the
    residual connection: the rows of (A + I) / 2 sum to one again. The product over the blocks is the
    share of each patch in the information of a token. Negative values, of differential attention, count as
    zero.
    Reference: Abnar and Zuidema, "Quantifying Attention Flow in Transformers"
    (https://arxiv.org/abs/2005.00928), section 4.

    Args:
        model: a model of `build_vit`.
        images: array `(b, height, width, channels)`, preprocessed as the model expects.
        head_fusion: "mean" (as in the paper), "max" or "min" over the heads.
        discard_ratio: float in [0, 1), the share of the smallest attention values in each row that are set
            to zero before the residual is added.
        query: the token to start from: "class_token" or "distillation_token"; "patches" is the mean over
            the patch tokens. None starts from the tokens that the pooling layer uses: the class token, both
            tokens of a distilled model, all patches, or the tokens as a learned query attends to them.
        upsample: bool, whether to resize the maps to the image, bilinearly.

    Returns:
        float32 array `(b, grid_h, grid_w)`, or `(b, height, width)`. Before resizing, a map and the shares of
        the prefix tokens sum to one. Pixels that no patch covers are zero: with `allow_remainder` there may
        be some at the right and at the bottom.

    Raises:
        ValueError: an argument is out of range, or see `attention_maps`.
    """
    structure, images = check_images(model, images)
    check_choice("head_fusion", head_fusion, REDUCTIONS)
    check_number("discard_ratio", discard_ratio, "[0, 1)")
    rows = query_weights(structure, query)  # (1, n)
    layers = [*structure.blocks]
    if query is None and structure.pools_by_attention:
        layers.append("pooling")
    maps = attention_maps(model, images, layers, reduce=head_fusion)
    if "pooling" in maps:
        rows = with_prefix(structure, maps.pop("pooling")[:, 0])
        rows = rows / np.maximum(rows.sum(axis=-1, keepdims=True), 1e-12)
    for x in reversed(maps.values()):  # backwards, because only one row of the product is needed
        x = discard(np.maximum(0, x), discard_ratio)  # (b, n, n)
        # rows @ ((x + 1) / its row sums)
        rows = rows / (np.sum(x, axis=-1) + 1)
        rows = rows + np.einsum("bq,bqk->bk", rows, x)
    return patch_map(structure, rows[:, structure.tokens(PATCHES)], upsample)


def discard(attention, ratio):
    """Returns attention in which the share `ratio` of the smallest values in each row is zero."""
    count = int(attention.shape[-1] * ratio)
    if not count:
        return attention
    attention = attention.copy()
    smallest = np.argpartition(attention, count - 1, axis=-1)[..., :count]
    np.put_along_axis(attention, smallest, 0, axis=-1)
    return attention


def class_relevance(
    model: keras.Model,
    images: Any,
    class_index: Any = None,
    *,
    query: str | None = None,
    upsample: bool = False,
) -> np.ndarray:
    """Returns how much each patch supports a class: rollout of the attention times its gradient.

    In each block R grows by mean over heads(max(0, A * dy/dA)) R, where y is the logit of the class. The
    scores of all blocks, `(b, heads, n, n)` each, are in memory at once.
    Reference: Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers" (https://arxiv.org/abs/2103.15679), eq. 5 and 6; for a learned query
    that pools, eq. 10.

    Args:
        model: a model of `build_vit` with a head. The gradient is that of its logits, before a
            `classifier_activation`.
        images: array `(b, height, width, channels)`, preprocessed as the model expects.
        class_index: int, or one int per image; None is the class with the highest logit.
        query, upsample: see `attention_rollout`.

    Returns:
        float32 array `(b, grid_h, grid_w)`, or `(b, height, width)`, non-negative.

    Raises:
        ValueError: the model has no head, the class does not exist, or see `attention_rollout`.
    """
    structure, images = check_images(model, images)
    rows = query_weights(structure, query)  # (1, n)
    blocks, pooled = weighted_by_gradient(structure, images, class_index)
    if query is None and pooled is not None:
        rows = with_prefix(structure, pooled)
    for x in reversed(blocks):
        rows = rows + np.einsum("bq,bqk->bk", np.broadcast_to(rows, x.shape[:2]), x)
    return patch_map(structure, rows[:, structure.tokens(PATCHES)], upsample)


def weighted_by_gradient(structure, images, class_index):
    """Returns the relevance that each block adds, and that of the tokens for a learned query.

    Returns:
        A list of arrays `(b, n, n)`, the sum over parallel attentions in one block; and an array `(b, k)`
        over the k tokens that the learned query attends to, or None.
    """
    counts = [len(block.attention_layers()) for block in structure.blocks.values()]
    layers = [x.core_attention for block in structure.blocks.values() for x in block.attention_layers()]
    n = structure.num_tokens
    shapes = [(len(images), x.config.num_heads, n, n) for x in layers]
    if structure.pools_by_attention:
        pooling = structure.pooling
        layers.append(pooling)
        shapes.append((len(images), pooling.num_heads, 1, n - pooling.num_prefix_tokens))
    scores, gradients = gradients_at(structure, images, class_index, "scores", layers, shapes)
    weighted = iter(np.maximum(0, x * dx).mean(axis=1) for x, dx in zip(scores, gradients))
    blocks = [sum(next(weighted) for _ in range(count)) for count in counts]
    pooled = next(weighted, None)
    return blocks, None if pooled is None else pooled[:, 0]


def grad_cam(
    model: keras.Model, images: Any, class_index: Any = None, layer: int | str = -1, *, upsample: bool = False
) -> np.ndarray:
    """Returns Grad-CAM of the patch tokens that the attention of a block reads.

    Tokens are weighted by the mean gradient of the class's logit over the patches and summed over their d
    channels; negative sums become zero. The tokens are those after the norm, because they affect the class
    through the attention only: pytorch-grad-cam's choice for ViTs. Patch tokens that leave the last block
    have no gradient if the model reads the class token only.
    Reference: Selvaraju et al., "Grad-CAM" (https://arxiv.org/abs/1610.02391), eq. 1 and 2, on tokens.

    Args:
        model, images, class_index, upsample: see `class_relevance`.
        layer: the block, by number (-1 is the last) or name.

    Returns:
        float32 array `(b, grid_h, grid_w)`, or `(b, height, width)`, non-negative.

    Raises:
        ValueError: the block does not exist, or see `class_relevance`.
    """
    structure, images = check_images(model, images)
    names = select_blocks(structure, layer)
    if len(names) != 1:
        raise ValueError(f"`layer` must be one block, got {shown(layer)}")
    block, patches = structure.blocks[names[0]], structure.tokens(PATCHES)
    attentions = block.attention_layers()
    shapes = [(len(images), structure.num_tokens, block.input.shape[-1])] * len(attentions)
    tokens, gradients = gradients_at(structure, images, class_index, "tokens", attentions, shapes)
    cam = 0
    for x, dx in zip(tokens, gradients):  # (b, p + n, d)
        cam = cam + np.einsum("bnd,bd->bn", x[:, patches], dx[:, patches].mean(axis=1))
    return patch_map(structure, np.maximum(0, cam), upsample)


def pooling_weights(structure):
    """Returns the share `(n,)` of each token in the features; a learned query counts as an average."""
    weights = np.zeros(structure.num_tokens, "float32")
    for pooling in structure.poolings:
        kind = getattr(pooling, "pooling", "map")
        of_one_token = {"token": 1, "token_avg": 0.5}.get(kind, 0)
        if of_one_token:
            weights[pooling.token_index] += of_one_token
        rest = weights[pooling.num_prefix_tokens :]
        rest += (1 - of_one_token) / len(rest)
    return weights / max(1, len(structure.poolings))


def pooled_tokens(structure):
    """Returns the kinds of tokens that the pooling reads, see `ViTStructure.token_slices`."""
    weights = pooling_weights(structure)
    return [name for name, place in structure.token_slices.items() if weights[place].any()]


def query_weights(structure, query):
    """Returns the weights `(1, n)` of the tokens that a map starts from, see `attention_rollout`."""
    if query is None:
        return pooling_weights(structure)[None]
    place = structure.tokens(query)
    weights = np.zeros((1, structure.num_tokens), "float32")
    weights[:, place] = 1 / (place.stop - place.start)
    return weights


def with_prefix(structure, values):
    """Returns values `(b, k)` of the last k tokens as `(b, n)`: zero for the tokens before them."""
    return np.pad(values, ((0, 0), (structure.num_tokens - values.shape[1], 0)))


def patch_map(structure, values, upsample):
    """Returns values `(b, n)` of the patches as maps, with `upsample` resized to the image."""
    maps = structure.to_grid(values.astype("float32"))
    if not upsample:
        return maps
    (height, width), (rows, columns) = structure.image_size, structure.patched_size
    maps = ops.image.resize(maps[..., None], (rows, columns), "bilinear", data_format="channels_last")
    return np.pad(to_numpy(maps)[..., 0], ((0, 0), (0, height - rows), (0, width - columns)))
