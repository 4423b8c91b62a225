"""MixUp and CutMix on the device, as pure functions of JAX: numbers are drawn first, images blended later.

`vit_tf.data.augment.mixing` has the methods and their sources.
Here each image of a batch has draws of its own.
Shapes: s steps, b images of a batch, h rows, w columns, c channels, k classes.
"""

import jax
import jax.numpy as jnp


def draw_mixing(mix, key, shape, image_size):
    """Draws how images are blended with their partners.

    Args:
        mix: a `vit_tf.data.augment.mixing.MixUpCutMix`, or None.
        key: a key of `jax.random`.
        shape: (s, b), or any other.
        image_size: (height, width) in pixels.

    Returns:
        None without a `mix`, else a dict of arrays of that shape: `kept`, the weight of the image in MixUp,
        float32; `top`, `bottom`, `left`, `right` of the partner's rectangle in CutMix, int32. An image that
        is not mixed keeps all of itself, and its rectangle is empty.
    """
    if mix is None:
        return None
    keys = jax.random.split(key, 6)
    is_mixed = jax.random.uniform(keys[0], shape) < mix.probability
    is_cut = jax.random.uniform(keys[1], shape) < mix.switch
    if not (mix.mixup and mix.cutmix):
        is_cut = jnp.full(shape, bool(mix.cutmix))
    weight = jax.random.beta(keys[2], mix.mixup, mix.mixup, shape) if mix.mixup else jnp.ones(shape)
    side = jnp.zeros(shape)
    if mix.cutmix:
        side = jnp.sqrt(1 - jax.random.beta(keys[3], mix.cutmix, mix.cutmix, shape))
    side = jnp.where(is_mixed & is_cut, side, 0.0)
    top, bottom = draw_interval(keys[4], side, image_size[0])
    left, right = draw_interval(keys[5], side, image_size[1])
    kept = jnp.where(is_mixed & ~is_cut, weight, 1.0).astype("float32")
    return {"kept": kept, "top": top, "bottom": bottom, "left": left, "right": right}


def draw_interval(key, share, size):
    """Draws the first pixel of intervals and that behind the last, cut off at 0 and `size`."""
    length = (size * share).astype("int32")
    centre = jax.random.randint(key, share.shape, 0, size)
    return jnp.maximum(centre - length // 2, 0), jnp.minimum(centre + (length + 1) // 2, size)


def blend(images, labels, mixing):
    """Blends each image with its partner, the one at the mirrored place of the batch, and their labels.

    Args:
        images: float array (b, h, w, c).
        labels: float array (b, k), rows that sum to one.
        mixing: what `draw_mixing` drew for (b,), or None.

    Returns:
        (images, labels). A label's share is that of its image's pixels, exactly.
    """
    if mixing is None:
        return images, labels
    _, h, w, _ = images.shape
    rows = is_inside(mixing["top"], mixing["bottom"], h)[:, :, None]  # (b, h, 1)
    columns = is_inside(mixing["left"], mixing["right"], w)[:, None, :]  # (b, 1, w)
    weights = jnp.where(rows & columns, 0.0, mixing["kept"][:, None, None])  # (b, h, w)
    share = weights.mean((1, 2))[:, None]  # (b, 1)
    weights = weights[..., None].astype(images.dtype)
    images = images * weights + images[::-1] * (1 - weights)
    return images, labels * share + labels[::-1] * (1 - share)


def is_inside(start, stop, size):
    """Returns which of `size` places lie in the intervals (b,): bools (b, size)."""
    place = jnp.arange(size)
    return (place >= start[:, None]) & (place < stop[:, None])
