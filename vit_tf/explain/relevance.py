"""Which patches matter: rollout, gradient-weighted rollout, Grad-CAM; each a map (b, grid_h, grid_w).

Shapes in the comments: b batch, H heads, n tokens, d model width.
"""

import keras
import numpy as np
from keras import ops

from vit_tf.checks import check_choice, check_number, shown
from vit_tf.explain.gradient import gradient, predict_eagerly
from vit_tf.explain.maps import REDUCTIONS, attention_maps, to_numpy
from vit_tf.layers.hooks import call_with_hooks
from vit_tf.structure import PATCHES, ViTStructure


def attention_rollout(model, images, head_fusion="mean", discard_ratio=0.0, *, query=None, upsample=False):
    """Returns how much of each patch reaches what the model reads, if attention were all that mixes tokens.

    In each block the heads' attention A is fused, and half of it added to half of the identity, which
    stands for the residual: the rows of (A + I) sum to one again. The product over the blocks says
    where a row's information comes from. Negative values, of differential attention, count as zero.
    Reference: Abnar and Zuidema, "Quantifying Attention Flow in Transformers"
    (https://arxiv.org/abs/2005.00928), section 4.

    Args:
        model: a model of `build_vit`.
        images: array `(b, height, width, channels)` as the model takes them.
        head_fusion: "mean" (the paper's), "max" or "min" over the heads.
        discard_ratio: float in [0, 1), the share of each row's smallest attention that is set to zero
            before the residual is added.
        query: whose row: "class_token" or "distillation_token"; "patches" is the mean of the patches'
            rows. None is what the model's pooling reads: the class token, both tokens of a distilled model,
            the mean of the patches, or the tokens as its learned query attends to them.
        upsample: bool, whether to resize the maps to the image, bilinearly.

    Returns:
        float32 array `(b, grid_h, grid_w)`, or `(b, height, width)`. Before it is resized, a map and the
        shares of the prefix tokens sum to one. Pixels that no patch covers, as `allow_remainder` leaves
        some right and below, are zero.

    Raises:
        ValueError: an argument is not as above, or see `attention_maps`.
    """
    anatomy = ViTStructure(model)
    check_choice("head_fusion", head_fusion, REDUCTIONS)
    check_number("discard_ratio", discard_ratio, "[0, 1)")
    rows = query_rows(anatomy, query)  # (1, n)
    layers = [*anatomy.blocks]
    if query is None and anatomy.pools_by_attention:
        layers.append("pooling")
    maps = attention_maps(model, images, layers, reduce=head_fusion)
    if "pooling" in maps:
        rows = with_prefix(anatomy, maps.pop("pooling")[:, 0])
        rows = rows / np.maximum(rows.sum(axis=-1, keepdims=True), 1e-12)
    for x in reversed(maps.values()):  # only one row of the product is asked for: it is carried backwards
        x = discard(np.maximum(0, x), discard_ratio)  # (b, n, n)
        # rows @ ((x + 1) / its row sums)
        rows = rows / (np.sum(x, axis=-1) + 1)
        rows = rows + np.einsum("bq,bqk->bk", rows, x)
    return finish(anatomy, rows, upsample)


def discard(attention, ratio):
    """Sets the share `ratio` of the smallest values in each row to zero."""
    count = int(attention.shape[-1] * ratio)
    if not count:
        return attention
    attention = attention.copy()
    smallest = np.argpartition(attention, count - 1, axis=-1)[..., :count]
    np.put_along_axis(attention, smallest, 0, axis=-1)
    return attention


def class_relevance(model, images, class_index=None, *, query=None, upsample=False):
    """Returns how much each patch speaks for a class: rollout of attention times its gradient.

    In each block R grows by mean over heads(max(0, A * dy/dA)) R, where y is the class's logit.
    Reference: Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and
    Encoder-Decoder Transformers" (https://arxiv.org/abs/2103.15679), eq. 5 and 6; for a learned query
    that pools, eq. 10.

    Args:
        model: a model of `build_vit` with a head. What is differentiated is its logits, before a
            `classifier_activation`.
        images: array `(b, height, width, channels)` as the model takes them.
        class_index: int or b ints; None is the class with the highest logit.
        query, upsample: see `attention_rollout`.

    Returns:
        float32 array `(b, grid_h, grid_w)`, or `(b, height, width)`, not negative. The scores of all blocks
        are in memory at once, (b, heads, n, n) each.

    Raises:
        ValueError: there is no head or no such class; or see `attention_rollout`.
    """
    anatomy = ViTStructure(model)
    images = anatomy.check_images(images)
    rows = query_rows(anatomy, query)  # (1, n)
    blocks, pooled = weighted_by_gradient(anatomy, images, class_index)
    if query is None and pooled is not None:
        rows = with_prefix(anatomy, pooled)
    for x in reversed(blocks):
        rows = rows + np.einsum("bq,bqk->bk", np.broadcast_to(rows, x.shape[:2]), x)
    return finish(anatomy, rows, upsample)


def weighted_by_gradient(anatomy, images, class_index):
    """Returns what each block adds to the relevance, and what a learned query reads.

    Returns:
        A list of `(b, n, n)`: of attentions side by side, the sum; and an array `(b, k)` over the
        tokens that the learned query sees, or None.
    """
    layers = [x.core_attention for block in anatomy.blocks.values() for x in block.attention_layers()]
    n = anatomy.num_tokens
    shapes = [(len(images), x.config.num_heads, n, n) for x in layers]
    if anatomy.pools_by_attention:
        layers.append(anatomy.pooling)
        shapes.append((len(images), anatomy.pooling.num_heads, 1, n - anatomy.pooling.num_prefix_tokens))
    scores, slopes = gradients_at(anatomy, images, class_index, "scores", layers, shapes)
    found = iter(np.maximum(0, x * slope).mean(axis=1) for x, slope in zip(scores, slopes))
    blocks = [sum(next(found) for _ in block.attention_layers()) for block in anatomy.blocks.values()]
    pooled = next(found, None)
    return blocks, None if pooled is None else pooled[:, 0]


def grad_cam(model, images, class_index=None, layer=-1, *, upsample=False):
    """Returns Grad-CAM of the patch tokens that a block's attention reads.

    Tokens are weighted by the mean gradient of the class's logit over the patches, summed over
    their d channels, and what is negative is cut off. They are those behind the norm, where all that the
    class hears of them goes through the attention: the same choice as pytorch-grad-cam's for ViTs. Tokens
    that leave the last block have no gradient where a class token alone is read.
    Reference: Selvaraju et al., "Grad-CAM" (https://arxiv.org/abs/1610.02391), eq. 1 and 2, on tokens.

    Args:
        model, images, class_index, upsample: see `class_relevance`.
        layer: the block, by number (-1 is the last) or name.

    Returns:
        float32 array `(b, grid_h, grid_w)`, or `(b, height, width)`, not negative.

    Raises:
        ValueError: see `class_relevance`; there is no such block.
    """
    anatomy = ViTStructure(model)
    images = anatomy.check_images(images)
    names = anatomy.choose(layer)
    if len(names) != 1:
        raise ValueError(f"`layer` must be one block, got {shown(layer)}")
    block, patches = anatomy.blocks[names[0]], anatomy.tokens(PATCHES)
    readers = block.attention_layers()
    shapes = [(len(images), *block.input.shape[1:])] * len(readers)
    tokens, slopes = gradients_at(anatomy, images, class_index, "tokens", readers, shapes)
    cam = 0
    for x, slope in zip(tokens, slopes):  # (b, p + n, d)
        cam = cam + np.einsum("bnd,bd->bn", x[:, patches], slope[:, patches].mean(axis=1))
    return on_image(anatomy, np.maximum(0, cam), upsample)


def gradients_at(anatomy, images, class_index, place, layers, shapes):
    """Returns the tensors at a place in each layer, and the gradients of the class's logit there.

    Args:
        place: name of a place where the layers run hooks.
        layers: `HookedLayer`s of the model.
        shapes: that of each tensor.

    Returns:
        Two lists of float32 arrays.
    """
    classifier = keras.Model(anatomy.model.input, anatomy.logits())
    choose = class_chooser(anatomy, classifier, images, class_index)

    def score(*offsets):
        found = []
        hooks = {(layer, place): recorder(found, offset) for layer, offset in zip(layers, offsets)}
        logits = call_with_hooks(hooks, lambda: classifier(images, training=False))
        return choose(logits), found

    zeros = [np.zeros(shape, layer.compute_dtype) for layer, shape in zip(layers, shapes)]
    return tuple([to_numpy(x) for x in some] for some in gradient(score, zeros))


def recorder(found, offset):
    """Returns a hook that appends a tensor to a list, and adds an offset to it."""

    def hook(x):
        found.append(x)
        return x + offset

    return hook


def query_rows(anatomy, query):
    """Returns the weights `(1, n)` of the rows that are asked for."""
    if query is None:
        return anatomy.pooled_rows()[None]
    place = anatomy.tokens(query)
    rows = np.zeros((1, anatomy.num_tokens), "float32")
    rows[:, place] = 1 / (place.stop - place.start)
    return rows


def with_prefix(anatomy, values):
    """Returns values `(b, k)` of the tokens that a learned query sees as `(b, n)`: zero for others."""
    return np.pad(values, ((0, 0), (anatomy.num_tokens - values.shape[1], 0)))


def class_chooser(anatomy, classifier, images, class_index):
    """Returns a function from logits to the sum over images of the logit that is asked for."""
    num_classes = classifier.outputs[0].shape[-1]
    if class_index is None:
        logits = ops.convert_to_numpy(total(predict_eagerly(classifier, images)))
        classes = logits.argmax(axis=-1)
    else:
        classes = np.asarray(class_index)
        shapes = ((), (len(images),))
        if (
            classes.dtype.kind not in "iu"
            or classes.shape not in shapes
            or not in_range(classes, num_classes)
        ):
            raise ValueError(
                f"`class_index` must be an int from 0 to {num_classes - 1}, or one for each of {len(images)} "
                f"images, got {shown(class_index)}"
            )
        classes = np.broadcast_to(classes, (len(images),))
    chosen = np.eye(num_classes, dtype="float32")[classes]
    return lambda logits: ops.sum(total(logits) * ops.convert_to_tensor(chosen))


def in_range(classes, num_classes):
    return bool(np.all((classes >= 0) & (classes < num_classes)))


def total(outputs):
    """Returns the sum of the logits of a model with separate heads, else its logits."""
    return sum(outputs) if isinstance(outputs, (list, tuple)) else outputs


def finish(anatomy, rows, upsample):
    return on_image(anatomy, rows[:, anatomy.tokens(PATCHES)], upsample)


def on_image(anatomy, values, upsample):
    """Returns values `(b, n)` of the patches as maps, resized to the image if asked for."""
    maps = anatomy.to_grid(values.astype("float32"))
    if not upsample:
        return maps
    (height, width), covered = anatomy.image_size, anatomy.patched_size
    maps = ops.image.resize(maps[..., None], covered, "bilinear", data_format="channels_last")
    return np.pad(to_numpy(maps)[..., 0], ((0, 0), (0, height - covered[0]), (0, width - covered[1])))
