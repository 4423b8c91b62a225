"""Which patches matter: rollout, gradient-weighted rollout, Grad-CAM; each a map (b, grid_h, grid_w).

Shapes in the comments: b batch, H heads, n tokens, d model width.
"""

import keras
import numpy as np
from keras import ops

from vit_tf.explain.anatomy import PATCHES, Anatomy
from vit_tf.explain.attention import REDUCTIONS, attention_maps, to_numpy
from vit_tf.explain.gradient import gradient, run


def attention_rollout(model, images, head_fusion="mean", discard_ratio=0.0, *, query=None, upsample=False):
    """Returns how much of each patch reaches the class token, if attention were all that mixes tokens.

    In each block the heads' attention A is fused, and half of it added to half of the identity, which
    stands for the residual: the rows of (A + I) sum to one again. The product over the blocks says
    where a row's information comes from.
    Reference: Abnar and Zuidema, "Quantifying Attention Flow in Transformers"
    (https://arxiv.org/abs/2005.00928), section 4.

    Args:
        model: a model of `build_vit`.
        images: array `(b, height, width, channels)` as the model takes them.
        head_fusion: "mean" (the paper's), "max" or "min" over the heads.
        discard_ratio: float in [0, 1), the share of each row's smallest attention that is set to zero
            before the residual is added.
        query: whose row: "class_token" or "distillation_token"; "patches" is the mean of the patches'
            rows. None is the class token if the model has one, else the patches.
        upsample: bool, whether to resize the maps to the image, bilinearly.

    Returns:
        float32 array `(b, grid_h, grid_w)`, or `(b, height, width)`. Before it is resized, a map and the
        shares of the prefix tokens sum to one.

    Raises:
        ValueError: an argument is not as above, or see `attention_maps`.
    """
    anatomy = Anatomy(model)
    if head_fusion not in REDUCTIONS:
        raise ValueError(f"`head_fusion` must be {', '.join(map(repr, REDUCTIONS))}, got {head_fusion!r}")
    if not 0 <= discard_ratio < 1:
        raise ValueError(f"`discard_ratio` must be in [0, 1), got {discard_ratio!r}")
    rows = query_rows(anatomy, query)  # (n,)
    maps = attention_maps(model, images, reduce=head_fusion)
    for x in reversed(maps.values()):  # only one row of the product is asked for: it is carried backwards
        x = discard(x, discard_ratio)  # (b, n, n)
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
    Encoder-Decoder Transformers" (https://arxiv.org/abs/2103.15679), eq. 5 and 6.

    Args:
        model: a model of `build_vit` with a head. A `classifier_activation` is differentiated, too.
        images: array `(b, height, width, channels)` as the model takes them.
        class_index: int or b ints; None is the class with the highest logit.
        query, upsample: see `attention_rollout`.

    Returns:
        float32 array `(b, grid_h, grid_w)`, or `(b, height, width)`, not negative. The scores of all blocks
        are in memory at once, (b, heads, n, n) each.

    Raises:
        ValueError: there is no head or no such class; or see `attention_rollout`.
    """
    anatomy = Anatomy(model)
    images = anatomy.check_images(images)
    rows = query_rows(anatomy, query)  # (n,)
    for x in reversed(weighted_by_gradient(anatomy, images, class_index)):
        rows = rows + np.einsum("bq,bqk->bk", np.broadcast_to(rows, x.shape[:2]), x)
    return finish(anatomy, rows, upsample)


def weighted_by_gradient(anatomy, images, class_index):
    """Returns what each block adds to the relevance, `(b, n, n)`: of attentions side by side, the sum."""
    attentions = [attention for block in anatomy.blocks.values() for attention in block.attentions()]
    choose = class_chooser(anatomy, images, class_index)
    n = anatomy.all_tokens.stop
    zeros = [np.zeros((len(images), x.num_heads, n, n), x.compute_dtype) for x in attentions]

    def score(*offsets):
        scores = []
        try:
            for attention, offset in zip(attentions, offsets):
                attention.tap = recorder(scores, offset)
            logits = anatomy.model(images, training=False)
        finally:
            for attention in attentions:
                del attention.tap
        return choose(logits), scores

    scores, gradients = gradient(score, zeros)
    found = iter(
        np.maximum(0, to_numpy(x) * to_numpy(g)).mean(axis=1)  # (b, n, n)
        for x, g in zip(scores, gradients)
    )
    return [sum(next(found) for _ in block.attentions()) for block in anatomy.blocks.values()]


def recorder(scores, offset):
    """Returns a function that adds an offset to scores, and notes them."""

    def tap(x):
        scores.append(x)
        return x + offset

    return tap


def grad_cam(model, images, class_index=None, layer=-1, *, upsample=False):
    """Returns Grad-CAM of the patch tokens that enter a block.

    Tokens are weighted by the mean gradient of the class's logit over the patches, summed over
    their d channels, and what is negative is cut off. Tokens that leave the last block have no gradient where
    a class token alone is read: so those that enter a block are taken.
    Reference: Selvaraju et al., "Grad-CAM" (https://arxiv.org/abs/1610.02391), eq. 1 and 2, on tokens.

    Args:
        model, images, class_index, upsample: see `class_relevance`.
        layer: the block, by number (-1 is the last) or name.

    Returns:
        float32 array `(b, grid_h, grid_w)`, or `(b, height, width)`, not negative.

    Raises:
        ValueError: see `class_relevance`; there is no such block.
    """
    anatomy = Anatomy(model)
    images = anatomy.check_images(images)
    names = anatomy.choose(layer)
    if len(names) != 1:
        raise ValueError(f"`layer` must be one block, got {layer!r}")
    entry = anatomy.blocks[names[0]].input
    choose = class_chooser(anatomy, images, class_index)
    tokens = run(keras.Model(model.input, entry), images)
    rest = keras.Model(entry, model.output)
    _, (slopes,) = gradient(lambda x: (choose(rest(x, training=False)), []), [tokens])
    patches = anatomy.tokens(PATCHES)
    x, slopes = to_numpy(tokens)[:, patches], to_numpy(slopes)[:, patches]  # (b, n, d)
    cam = np.maximum(0, np.einsum("bnd,bd->bn", x, slopes.mean(axis=1)))
    return on_image(anatomy, cam, upsample)


def query_rows(anatomy, query):
    """Returns the weights `(n,)` of the rows that are asked for."""
    n = anatomy.tokens(PATCHES).stop
    if query is None:
        query = "class_token" if anatomy.encoder.class_token else PATCHES
    place = anatomy.tokens(query)
    rows = np.zeros((1, n), "float32")
    rows[:, place] = 1 / (place.stop - place.start)
    return rows


def class_chooser(anatomy, images, class_index):
    """Returns a function from logits to the sum over images of the logit that is asked for."""
    model = anatomy.model
    outputs = model.output if isinstance(model.output, (list, tuple)) else [model.output]
    if not any(layer.name in ("head", "distillation_head") for layer in model.layers):
        raise ValueError(f"{model.name!r} has no head, and so no classes: build it with `num_classes`")
    num_classes = outputs[0].shape[-1]
    if class_index is None:
        logits = ops.convert_to_numpy(total(run(model, images)))
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
                f"images, got {class_index!r}"
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
    resized = ops.image.resize(maps[..., None], anatomy.image_size, "bilinear", data_format="channels_last")
    return to_numpy(resized)[..., 0]
