"""Augmentation of colours and by erasing, as layers that run inside the training step: see `augment`."""

import math

from keras import ops, random

from vit_tf.augment import RandomLayer, register

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as Pillow has it


@register
class RandomColor(RandomLayer):
    """Changes brightness, contrast and saturation of each image by factors of its own.

    The factors are those of Pillow's `ImageEnhance`, each drawn from [1 - strength, 1 + strength]; the three
    follow each other, and the result is cut off at 0 and 255.

    Args:
        strength: float in [0, 1].
        seed: int, see `RandomLayer`.

    Input shape: `(b, h, w, c)`, values in [0, 255]. The saturation is that of three channels alone.
    Output shape: as the input, in the layer's compute dtype.

    Raises:
        ValueError: `strength` is outside [0, 1].
    """

    def __init__(self, strength=0.4, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= strength <= 1:
            raise ValueError(f"`strength` must be in [0, 1], got {strength!r}")
        self.strength = strength

    def augment(self, images):
        images = ops.cast(images, self.compute_dtype)
        brightness, contrast, saturation = (self.factor(images) for _ in range(3))  # (b, 1, 1, 1)
        x = ops.clip(images * brightness, 0, 255)
        mean = ops.mean(grey(x), axis=(1, 2), keepdims=True)
        x = ops.clip(mean + (x - mean) * contrast, 0, 255)
        if images.shape[-1] == 3:
            x = ops.clip(grey(x) + (x - grey(x)) * saturation, 0, 255)
        return x

    def factor(self, images):
        drawn = self.uniform(images, 1 - self.strength, 1 + self.strength)
        return ops.cast(drawn[..., None], self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "strength": self.strength}


def grey(images):
    """Returns the luminance (b, h, w, 1) of images (b, h, w, c), their mean channel if c is not 3."""
    if images.shape[-1] != 3:
        return ops.mean(images, axis=-1, keepdims=True)
    return ops.sum(images * ops.convert_to_tensor(LUMA, images.dtype), axis=-1, keepdims=True)


@register
class RandomErasing(RandomLayer):
    """Overwrites a random rectangle by noise: Zhong et al. 2017, https://arxiv.org/abs/1708.04896.

    As `vit_tf.data.transforms.RandomErasing`, but a side that is longer than the image is cut to it, where
    that one draws again.

    Args:
        probability: float in [0, 1], how often.
        area: (lowest, highest) area of the rectangle as a fraction of the image's.
        ratio: (lowest, highest) height / width of the rectangle.
        seed: int, see `RandomLayer`.

    Input shape: `(b, h, w, c)`, values in [0, 255].
    Output shape: as the input, in the layer's compute dtype.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(self, probability=0.25, area=(0.02, 1 / 3), ratio=(0.3, 3.3), **kwargs):
        super().__init__(**kwargs)
        if not 0 <= probability <= 1:
            raise ValueError(f"`probability` must be in [0, 1], got {probability!r}")
        for name, (low, high), largest in (("area", area, 1), ("ratio", ratio, math.inf)):
            if not 0 < low <= high <= largest:
                raise ValueError(
                    f"`{name}` must be (lowest, highest) above 0 to {largest}, got {(low, high)}"
                )
        self.probability = probability
        self.area = tuple(area)
        self.ratio = tuple(ratio)

    def augment(self, images):
        images = ops.cast(images, self.compute_dtype)
        _, h, w, _ = ops.shape(images)
        area = self.uniform(images, *self.area) * (h * w)
        ratio = ops.exp(self.uniform(images, *map(math.log, self.ratio)))
        rows = self.interval(images, ops.sqrt(area * ratio), h)  # (b, 1, h)
        columns = self.interval(images, ops.sqrt(area / ratio), w)  # (b, 1, w)
        is_chosen = self.uniform(images, 0, 1) < self.probability  # (b, 1, 1)
        erased = is_chosen & ops.swapaxes(rows, 1, 2) & columns  # (b, h, w)
        noise = random.uniform(ops.shape(images), 0, 256, seed=self.seed_generator, dtype="float32")
        noise = ops.cast(ops.floor(noise), self.compute_dtype)
        return ops.where(erased[..., None], noise, images)

    def interval(self, images, length, size):
        """Draws an interval of rounded `length` (b, 1, 1) within `size` pixels, as bools (b, 1, size)."""
        length = ops.clip(ops.round(length), 1, size)
        start = ops.floor(self.uniform(images, 0, 1) * (size - length + 1))
        place = ops.arange(size, dtype="float32")
        return (place >= start) & (place < start + length)

    def get_config(self):
        own = {"probability": self.probability, "area": self.area, "ratio": self.ratio}
        return {**super().get_config(), **own}
