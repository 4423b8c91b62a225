"""MixUp and CutMix: every image of a batch is blended with its partner, and so are their labels.

Each is called with images (b, h, w, c) in [0, 255], labels (b, k) in [0, 1], and a `numpy.random.Generator`,
from which it draws everything; it returns both as new float32 arrays. Labels whose rows sum to 1 still do
afterwards; in those of images with several classes, each class is blended by itself. As in timm one draw
serves a batch, and an image's partner is its mirror in the batch: the first goes with the last.
Shapes: b images, h rows, w columns, c channels, k classes.
"""

from dataclasses import dataclass

import numpy as np

from vit_tf.checks import shown
from vit_tf.preprocessing.transform import is_number


@dataclass(frozen=True)
class MixUp:
    """Averages images with their partners: Zhang et al. 2017, https://arxiv.org/abs/1710.09412.

    Args:
        alpha: float above 0: the weight of an image is drawn from Beta(alpha, alpha).

    Output: images float32 (b, h, w, c), labels float32 (b, k).

    Raises:
        ValueError: `alpha` is out of range, or the arrays do not fit each other.
    """

    alpha: float = 0.8

    def __post_init__(self):
        check_alpha("alpha", self.alpha)

    def __call__(self, images, labels, generator):
        check_batch(images, labels)
        weight = generator.beta(self.alpha, self.alpha)
        return blended(images, weight), blended(labels, weight)


@dataclass(frozen=True)
class CutMix:
    """Pastes a rectangle of its partner into an image: Yun et al. 2019, https://arxiv.org/abs/1905.04899.

    The rectangle has the image's proportions and is cut off at its border (section 3.1 of the paper).
    Labels are weighted by the area that is left of it, exactly.

    Args:
        alpha: float above 0: the fraction that an image keeps is drawn from Beta(alpha, alpha).

    Output: images float32 (b, h, w, c), labels float32 (b, k).

    Raises:
        ValueError: `alpha` is out of range, or the arrays do not fit each other.
    """

    alpha: float = 1.0

    def __post_init__(self):
        check_alpha("alpha", self.alpha)

    def __call__(self, images, labels, generator):
        check_batch(images, labels)
        h, w = images.shape[1:3]
        top, bottom, left, right = self.rectangle(h, w, generator)
        mixed = images.astype("float32")
        mixed[:, top:bottom, left:right] = images[::-1, top:bottom, left:right]
        return mixed, blended(labels, 1 - (bottom - top) * (right - left) / (h * w))

    def rectangle(self, height, width, generator):
        """Draws (top, bottom, left, right) within an image of `height` x `width` pixels."""
        side = np.sqrt(1 - generator.beta(self.alpha, self.alpha))
        edges = []
        for size in (height, width):
            cut, centre = int(size * side), int(generator.integers(size))
            edges += [max(centre - cut // 2, 0), min(centre + (cut + 1) // 2, size)]
        return tuple(edges)


@dataclass(frozen=True)
class MixUpCutMix:
    """Applies MixUp or CutMix or neither to a batch, as DeiT was trained (timm/data/mixup.py).

    Args:
        mixup: float, `alpha` of MixUp; 0 leaves it out.
        cutmix: float, `alpha` of CutMix; 0 leaves it out.
        probability: float in [0, 1], how many batches are mixed at all.
        switch: float in [0, 1], how many of them by CutMix when both are in.

    Output: images float32 (b, h, w, c), labels float32 (b, k).

    Raises:
        ValueError: a setting is out of range, or the arrays do not fit each other.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    probability: float = 1.0
    switch: float = 0.5

    def __post_init__(self):
        for name in ("mixup", "cutmix"):
            if getattr(self, name) != 0:
                check_alpha(name, getattr(self, name))
        if not (self.mixup or self.cutmix):
            raise ValueError("one of `mixup` and `cutmix` must be above 0, got 0 for both: leave the mix out")
        for name in ("probability", "switch"):
            value = getattr(self, name)
            if not (is_number(value) and 0 <= value <= 1):
                raise ValueError(f"`{name}` must be a number in [0, 1], got {shown(value)}")

    def __call__(self, images, labels, generator):
        is_mixed, is_cut = generator.random(2) < (self.probability, self.switch)
        if not is_mixed:
            check_batch(images, labels)
            return images.astype("float32"), labels.astype("float32")
        is_cut = self.cutmix and (is_cut or not self.mixup)
        mix = CutMix(self.cutmix) if is_cut else MixUp(self.mixup)
        return mix(images, labels, generator)


def blended(values, weight):
    """Returns `weight` of each row and the rest of its partner, in float32."""
    mixed = values.astype("float32")
    partner = mixed[::-1] * np.float32(1 - weight)
    mixed *= np.float32(weight)
    mixed += partner
    return mixed


def check_alpha(name, value):
    """Raises a ValueError unless `value` is a number above 0."""
    if not (is_number(value) and value > 0):
        raise ValueError(f"`{name}` must be a number above 0, got {shown(value)}")


def check_batch(images, labels):
    """Raises a ValueError unless images are (b, h, w, c) and labels (b, k)."""
    if np.ndim(images) != 4 or np.ndim(labels) != 2 or len(images) != len(labels):
        raise ValueError(
            "expected images (b, h, w, c) and labels (b, k) of one b, "
            f"got the shapes {np.shape(images)} and {np.shape(labels)}"
        )
