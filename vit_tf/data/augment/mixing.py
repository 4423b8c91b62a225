"""MixUp and CutMix: each image of a batch is blended with its partner, and so are their labels.

The partner of an image is its mirror in the batch, as in timm: the first image goes with the last.
Drawing is separate from blending. The classes here draw from a `numpy.random.Generator`, once per batch, as
timm does; `draw_mixing` draws from a key of JAX, once per image, inside a compiled function. Both return what
`blend` takes:

    kept                       float (b,), the weight of the image in MixUp, 1 without MixUp
    top, bottom, left, right   int (b,), the rectangle that CutMix pastes, empty without CutMix

where b is 1 for one draw per batch. Labels whose rows sum to 1 still do after blending. In labels of several
classes per image each class is blended on its own.
Shapes: s steps, b images of a batch, h rows, w columns, c channels, k classes.
"""

from dataclasses import dataclass

import numpy as np

from vit_tf.checks import check_number


class Mixing:
    """Base class: draws how a batch is blended, and blends it.

    Call arguments:
        images: array (b, h, w, c), uint8 or float32, in [0, 255].
        labels: float32 array (b, k) in [0, 1].
        generator: numpy.random.Generator, the only source of randomness.

    Output: images float32 (b, h, w, c), labels float32 (b, k), new arrays.

    Raises:
        ValueError: a setting is out of range, or the arrays do not fit each other.
    """

    def __call__(self, images, labels, generator):
        if np.ndim(images) != 4 or np.ndim(labels) != 2 or len(images) != len(labels):
            raise ValueError(
                "expected images (b, h, w, c) and labels (b, k) with the same b, "
                f"got the shapes {np.shape(images)} and {np.shape(labels)}"
            )
        return blend(images, labels, self.draw(generator, images.shape[1:3]))


@dataclass(frozen=True)
class MixUp(Mixing):
    """Averages images with their partners: Zhang et al. 2017, https://arxiv.org/abs/1710.09412.

    Args:
        alpha: positive float: the weight of an image is drawn from Beta(alpha, alpha).

    Call arguments, output and errors: see `Mixing`.
    """

    alpha: float = 0.8

    def __post_init__(self):
        check_number("alpha", self.alpha, "(0, inf)")

    def draw(self, generator: np.random.Generator, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
        return {**NO_MIXING, "kept": np.array([generator.beta(self.alpha, self.alpha)])}


@dataclass(frozen=True)
class CutMix(Mixing):
    """Pastes a rectangle of the partner into an image: Yun et al. 2019, https://arxiv.org/abs/1905.04899.

    The rectangle has the proportions of the image and is cut off at the image's border (section 3.1 of the
    paper). The weight of the image's own label is the fraction of its pixels that remain, exactly.

    Args:
        alpha: positive float: the fraction that an image keeps is drawn from Beta(alpha, alpha).

    Call arguments, output and errors: see `Mixing`.
    """

    alpha: float = 1.0

    def __post_init__(self):
        check_number("alpha", self.alpha, "(0, inf)")

    def draw(self, generator: np.random.Generator, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
        side = np.sqrt(1 - generator.beta(self.alpha, self.alpha))
        edges = []
        for size in image_size:
            length, centre = np.array([size * side]).astype(int), np.array([generator.integers(size)])
            edges += interval(centre, length, size)
        return NO_MIXING | dict(zip(("top", "bottom", "left", "right"), edges))


@dataclass(frozen=True)
class MixUpCutMix(Mixing):
    """Applies MixUp, CutMix or neither to a batch, as DeiT was trained (timm/data/mixup.py).

    Args:
        mixup: float, `alpha` of MixUp; 0 disables MixUp.
        cutmix: float, `alpha` of CutMix; 0 disables CutMix.
        probability: float in [0, 1], the fraction of batches that are mixed.
        switch_prob: float in [0, 1], the fraction of the mixed batches to which CutMix is applied, where both
            are enabled.

    Call arguments, output and errors: see `Mixing`.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch_prob: float = 0.5

    def __post_init__(self):
        for name in ("mixup", "cutmix"):
            if getattr(self, name) != 0:
                check_number(name, getattr(self, name), "(0, inf)")
        if not (self.mixup or self.cutmix):
            raise ValueError("`mixup` or `cutmix` must be positive, got 0 for both: leave `MixUpCutMix` out")
        for name in ("probability", "switch_prob"):
            check_number(name, getattr(self, name), "[0, 1]")

    def draw(self, generator: np.random.Generator, image_size: tuple[int, int]) -> dict[str, np.ndarray]:
        is_mixed, is_cut = generator.random(2) < (self.probability, self.switch_prob)
        if not is_mixed:
            return NO_MIXING
        is_cut = self.cutmix and (is_cut or not self.mixup)
        method = CutMix(self.cutmix) if is_cut else MixUp(self.mixup)
        return method.draw(generator, image_size)


NO_MIXING = {"kept": np.ones(1)} | dict.fromkeys(("top", "bottom", "left", "right"), np.zeros(1, int))


def draw_mixing(mix, key, shape, image_size):
    """Draws how images are blended with their partners, from a key of JAX and for each image on its own.

    Args:
        mix: a `MixUpCutMix`, or None.
        key: a key of `jax.random`.
        shape: of the result: (b,), or (s, b) for the batches of several steps.
        image_size: (height, width) in pixels.

    Returns:
        The dict that `blend` takes, with arrays of that shape, float32 and int32. None without a `mix`.
    """
    if mix is None:
        return None
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(key, 6)
    is_mixed = jax.random.uniform(keys[0], shape) < mix.probability
    is_cut = jax.random.uniform(keys[1], shape) < mix.switch_prob
    if not (mix.mixup and mix.cutmix):
        is_cut = jnp.full(shape, bool(mix.cutmix))
    weight = jax.random.beta(keys[2], mix.mixup, mix.mixup, shape) if mix.mixup else jnp.ones(shape)
    side = jnp.zeros(shape)
    if mix.cutmix:
        side = jnp.sqrt(1 - jax.random.beta(keys[3], mix.cutmix, mix.cutmix, shape))
    side = jnp.where(is_mixed & is_cut, side, 0.0)
    edges = []
    for key, size in zip(keys[4:], image_size):
        edges += interval(jax.random.randint(key, shape, 0, size), (size * side).astype("int32"), size)
    kept = jnp.where(is_mixed & ~is_cut, weight, 1.0).astype("float32")
    return {"kept": kept, **dict(zip(("top", "bottom", "left", "right"), edges))}


def interval(centre, length, size):
    """Returns the first position of intervals and the position behind the last, cut off at 0 and `size`."""
    return (centre - length // 2).clip(0), (centre + (length + 1) // 2).clip(None, size)


def blend(images, labels, mixing):
    """Blends each image with its partner, and their labels.

    The function uses only operators and methods that arrays of NumPy and of JAX share, so it takes either.

    Args:
        images: array (b, h, w, c), uint8 or float32.
        labels: float32 array (b, k).
        mixing: dict that describes the blending, see the top of this file; None returns images and labels.

    Returns:
        (images, labels), float32. The weight of a label is the fraction of pixels that its image has.
    """
    if mixing is None:
        return images, labels
    b, h, w, c = images.shape
    top, bottom, left, right = (mixing[edge] for edge in ("top", "bottom", "left", "right"))
    share = mixing["kept"] * (1 - (bottom - top) * (right - left) / (h * w))
    labels = weighted_sum(labels, share[:, None])
    if isinstance(images, np.ndarray) and len(top) == 1 and mixing["kept"][0] == 1:  # a copy is much faster
        rows, columns = slice(top[0], bottom[0]), slice(left[0], right[0])
        pasted = images.astype("float32")
        pasted[:, rows, columns] = images[::-1, rows, columns]
        return pasted, labels
    # A row of pixels is taken as w * c values: NumPy is slow where the last axis is as short as c.
    is_pasted = is_inside(top, bottom, h)[:, :, None] & is_inside(c * left, c * right, w * c)[:, None, :]
    weights = mixing["kept"][:, None, None] * ~is_pasted  # (b, h, w c)
    return weighted_sum(images.reshape(b, h, w * c), weights).reshape(b, h, w, c), labels


def is_inside(start, stop, size):
    """Returns which of `size` positions lie in the intervals (b,): bools (b, size)."""
    position = np.arange(size)
    return (position >= start[:, None]) & (position < stop[:, None])


def weighted_sum(values, weights):
    """Returns `weights` of each row and the rest of its partner, in float32."""
    mixed = values * weights.astype("float32")
    mixed += values[::-1] * (1 - weights).astype("float32")
    return mixed
