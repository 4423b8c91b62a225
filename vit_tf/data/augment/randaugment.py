"""RandAugment: a few operations of Pillow on one picture, drawn at random, of one magnitude.

Cubuk et al. 2019, https://arxiv.org/abs/1909.13719. The operations and their ranges are those that timm
calls "rand-m9-mstd0.5-inc1" (timm/data/auto_augment.py) and DeiT trained with: every one grows more severe
with the magnitude.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vit_tf.checks import check_int, check_number
from vit_tf.data.augment.image import as_image

HIGHEST_MAGNITUDE = 10
GREY = (128, 128, 128)  # what geometry leaves empty
RESAMPLING = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def affine(picture, coefficients, resample):
    return picture.transform(picture.size, Image.Transform.AFFINE, coefficients, resample, fillcolor=GREY)


def enhance(property_of):
    """Returns an operation that weakens or strengthens a property: a factor of 1 changes nothing."""
    return lambda picture, severity, _: property_of(picture).enhance(max(1 + 0.9 * severity, 0.1))


def posterize(picture, severity, _):
    # timm comes down to 0 bits at the highest magnitude: a black picture, from which nothing is learned.
    return ImageOps.posterize(picture, max(4 - int(4 * abs(severity)), 1))


def solarize_add(picture, severity, _):
    added = int(110 * abs(severity))
    return picture.point([min(value + added, 255) if value < 128 else value for value in range(256)] * 3)


# Each takes (picture, severity in [-1, 1], resample). The sign is a direction, where there are two.
OPERATIONS = {
    "AutoContrast": lambda picture, *_: ImageOps.autocontrast(picture),
    "Equalize": lambda picture, *_: ImageOps.equalize(picture),
    "Invert": lambda picture, *_: ImageOps.invert(picture),
    "Rotate": lambda picture, s, resample: picture.rotate(30 * s, resample, fillcolor=GREY),
    "Posterize": posterize,
    "Solarize": lambda picture, s, _: ImageOps.solarize(picture, 256 - int(256 * abs(s))),
    "SolarizeAdd": solarize_add,
    "Color": enhance(ImageEnhance.Color),
    "Contrast": enhance(ImageEnhance.Contrast),
    "Brightness": enhance(ImageEnhance.Brightness),
    "Sharpness": enhance(ImageEnhance.Sharpness),
    "ShearX": lambda picture, s, resample: affine(picture, (1, 0.3 * s, 0, 0, 1, 0), resample),
    "ShearY": lambda picture, s, resample: affine(picture, (1, 0, 0, 0.3 * s, 1, 0), resample),
    "TranslateX": lambda picture, s, resample: affine(
        picture, (1, 0, 0.45 * s * picture.width, 0, 1, 0), resample
    ),
    "TranslateY": lambda picture, s, resample: affine(
        picture, (1, 0, 0, 0, 1, 0.45 * s * picture.height), resample
    ),
}


@dataclass(frozen=True)
class RandAugment:
    """Applies `num_ops` operations, drawn with replacement from `OPERATIONS`.

    Args:
        num_ops: int, 0 or more.
        magnitude: float in [0, 10]. At 0 the operations that have a magnitude change nothing, but
            Posterize, which keeps four bits.
        magnitude_std: float, 0 or more: each operation's magnitude is drawn from a normal distribution of
            this deviation around `magnitude`, and clipped to [0, 10].
        probability: float in [0, 1], how often an operation that was drawn is applied. timm has 0.5, the
            paper 1.

    Call arguments:
        image: RGB picture of Pillow, or uint8 array (h, w, c) with c 1, 3 or 4.
        generator: numpy.random.Generator.

    Output: RGB picture of the same size.

    Raises:
        ValueError: a setting is out of range, or the image is neither a picture nor a uint8 array.
    """

    num_ops: int = 2
    magnitude: float = 9
    magnitude_std: float = 0.5
    probability: float = 0.5

    def __post_init__(self):
        check_int("num_ops", self.num_ops, 0)
        check_number("magnitude", self.magnitude, f"[0, {HIGHEST_MAGNITUDE}]")
        check_number("magnitude_std", self.magnitude_std, "[0, inf)")
        check_number("probability", self.probability, "[0, 1]")

    def __call__(self, image, generator):
        picture = as_image(image)
        operations = list(OPERATIONS.values())
        for _ in range(self.num_ops):
            operation = operations[generator.integers(len(operations))]
            magnitude = np.clip(generator.normal(self.magnitude, self.magnitude_std), 0, HIGHEST_MAGNITUDE)
            direction = generator.choice((-1, 1))
            resample = RESAMPLING[generator.integers(len(RESAMPLING))]
            if generator.random() < self.probability:
                picture = operation(picture, float(direction * magnitude / HIGHEST_MAGNITUDE), resample)
        return picture
