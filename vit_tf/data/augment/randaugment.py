"""RandAugment: random operations of Pillow on one image, all with about the same magnitude.

Source: Cubuk et al. 2019, https://arxiv.org/abs/1909.13719. The operations and their ranges are those of
timm's "rand-m9-mstd0.5-inc1" (timm/data/auto_augment.py), with which DeiT was trained: the severity of each
operation increases with the magnitude. Keras's `RandAugment` has other operations and ranges, and draws from
its own seed instead of a generator per image.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vit_tf.checks import check_int, check_number
from vit_tf.data.augment.image import as_image

HIGHEST_MAGNITUDE = 10
GREY = (128, 128, 128)  # fills what rotations, shears and translations leave empty
RESAMPLING = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def affine(image, coefficients, resample):
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, resample, fillcolor=GREY)


def enhance(property_of):
    """Returns an operation that weakens or strengthens a property; severity 0 changes nothing."""
    return lambda image, severity, _: property_of(image).enhance(max(1 + 0.9 * severity, 0.1))


def posterize(image, severity, _):
    # timm keeps 0 bits at the highest magnitude: a black image, from which a model learns nothing.
    return ImageOps.posterize(image, max(4 - int(4 * abs(severity)), 1))


def solarize_add(image, severity, _):
    added = int(110 * abs(severity))
    return image.point([min(value + added, 255) if value < 128 else value for value in range(256)] * 3)


# Each takes (image, severity in [-1, 1], resample). The sign is the direction of an operation that has two.
OPERATIONS = {
    "AutoContrast": lambda image, *_: ImageOps.autocontrast(image),
    "Equalize": lambda image, *_: ImageOps.equalize(image),
    "Invert": lambda image, *_: ImageOps.invert(image),
    "Rotate": lambda image, s, resample: image.rotate(30 * s, resample, fillcolor=GREY),
    "Posterize": posterize,
    "Solarize": lambda image, s, _: ImageOps.solarize(image, 256 - int(256 * abs(s))),
    "SolarizeAdd": solarize_add,
    "Color": enhance(ImageEnhance.Color),
    "Contrast": enhance(ImageEnhance.Contrast),
    "Brightness": enhance(ImageEnhance.Brightness),
    "Sharpness": enhance(ImageEnhance.Sharpness),
    "ShearX": lambda image, s, resample: affine(image, (1, 0.3 * s, 0, 0, 1, 0), resample),
    "ShearY": lambda image, s, resample: affine(image, (1, 0, 0, 0.3 * s, 1, 0), resample),
    "TranslateX": lambda image, s, resample: affine(image, (1, 0, 0.45 * s * image.width, 0, 1, 0), resample),
    "TranslateY": lambda image, s, resample: affine(
        image, (1, 0, 0, 0, 1, 0.45 * s * image.height), resample
    ),
}


@dataclass(frozen=True)
class RandAugment:
    """Applies `num_ops` operations, drawn with replacement from `OPERATIONS`.

    Args:
        num_ops: non-negative int.
        magnitude: float in [0, 10]. At 0 the operations that have a magnitude change nothing, except
            Posterize, which keeps four bits.
        magnitude_std: non-negative float. The magnitude of each operation is drawn from a normal distribution
            around `magnitude` with this standard deviation, and clipped to [0, 10].
        probability: float in [0, 1] that a drawn operation is applied: 0.5 in timm, 1 in the paper.

    Call arguments:
        image: RGB image of Pillow, or uint8 array (h, w, c) with c of 1, 3 or 4.
        generator: numpy.random.Generator.

    Output: RGB image of Pillow of the same size.

    Raises:
        ValueError: a setting is out of range, or the image is neither an image of Pillow nor a uint8 array.
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
        image = as_image(image)
        operations = list(OPERATIONS.values())
        for _ in range(self.num_ops):
            operation = operations[generator.integers(len(operations))]
            magnitude = np.clip(generator.normal(self.magnitude, self.magnitude_std), 0, HIGHEST_MAGNITUDE)
            direction = generator.choice((-1, 1))
            resample = RESAMPLING[generator.integers(len(RESAMPLING))]
            if generator.random() < self.probability:
                image = operation(image, float(direction * magnitude / HIGHEST_MAGNITUDE), resample)
        return image
