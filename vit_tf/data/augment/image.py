"""Augmentation of single images with Pillow and NumPy, in the threads of a `DataLoader`.

A transform is a function of an image and a `numpy.random.Generator`, its only source of randomness, so that a
resumed run augments an image as before. Transforms take an RGB image of Pillow or a uint8 array (h, w, c),
and return one of the two. They have no state: several threads may share a transform.
`vit_tf.data.augment.batch` augments whole batches, inside the training step.
Shapes: h rows, w columns, c channels.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vit_tf.checks import check_choice, check_number, check_range, check_valid, pair, shown
from vit_tf.preprocessing.transform import INTERPOLATIONS, Preprocessing

TRIES = 10  # draws of a rectangle until one fits, as in torchvision and timm


@dataclass(frozen=True)
class Compose:
    """Applies transforms one after another.

    Args:
        transforms: callables `(image, generator) -> image`, in the order of application.

    Call arguments:
        image: RGB image of Pillow, uint8 array (h, w, c), or any input of the first transform.
        generator: numpy.random.Generator.

    Output: uint8 array (h, w, c).
    """

    transforms: tuple

    def __post_init__(self):
        object.__setattr__(self, "transforms", tuple(self.transforms))
        for transform in self.transforms:
            if not callable(transform):
                raise ValueError(f"`transforms` must be callables (image, generator), got {shown(transform)}")

    def __call__(self, image, generator):
        for transform in self.transforms:
            image = transform(image, generator)
        return as_array(image)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Crops a random rectangle and resizes it: Szegedy et al. 2014, section 6, as in torchvision and timm.

    The area is uniform in `scale`, and the logarithm of width / height is uniform in `ratio`. If ten
    rectangles do not fit into the image, the transform crops the largest centred rectangle whose ratio is
    allowed.

    Args:
        image_size: (height, width) of the result in pixels, or one int for both.
        scale: (lowest, highest) area of the rectangle as a fraction of the image's.
        ratio: (lowest, highest) width / height of the rectangle.
        interpolation: "bicubic", "bilinear", "nearest", "lanczos", "box" or "hamming", as in Pillow.

    Output: RGB image of Pillow of `image_size`.

    Raises:
        ValueError: a setting is out of range, or the image is neither an image of Pillow nor a uint8 array.
    """

    image_size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"

    def __post_init__(self):
        object.__setattr__(self, "image_size", pair(self.image_size, "image_size"))
        check_range("scale", self.scale, highest=1)
        check_range("ratio", self.ratio)
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)

    def __call__(self, image, generator):
        image = as_image(image)
        top, left, h, w = self.rectangle(image.height, image.width, generator)
        resample = Image.Resampling[self.interpolation.upper()]
        return image.resize(self.image_size[::-1], resample, box=(left, top, left + w, top + h))

    def rectangle(self, height: int, width: int, generator: np.random.Generator) -> tuple[int, int, int, int]:
        """Draws (top, left, height, width) within an image of `height` x `width` pixels."""
        for _ in range(TRIES):
            h, w = random_sides(height * width, self.scale, [1 / r for r in self.ratio], generator)
            if h <= height and w <= width:
                return *random_corner(height - h, width - w, generator), h, w
        h = max(min(height, round(width / self.ratio[0])), 1)
        w = max(min(width, round(height * self.ratio[1])), 1)
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class HorizontalFlip:
    """Flips an image left to right.

    Args:
        probability: float in [0, 1] of a flip.

    Output: an image of Pillow or an array, like the input.

    Raises:
        ValueError: `probability` is out of range.
    """

    probability: float = 0.5

    def __post_init__(self):
        check_number("probability", self.probability, "[0, 1]")

    def __call__(self, image, generator):
        if generator.random() >= self.probability:
            return image
        if isinstance(image, Image.Image):
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return as_array(image)[:, ::-1]


@dataclass(frozen=True)
class RandomErasing:
    """Overwrites a random rectangle with noise: Zhong et al. 2017, https://arxiv.org/abs/1708.04896.

    The noise is uniform in 0 .. 255 for each value, the best choice of the paper (RE-R). As in torchvision
    and timm, the logarithm of the ratio is uniform, so that tall and wide rectangles have the same
    probability. If ten rectangles do not fit, the image is not changed.

    Args:
        probability: float in [0, 1] of an erased rectangle.
        area: (lowest, highest) area of the rectangle as a fraction of the image's.
        ratio: (lowest, highest) height / width of the rectangle.

    Output: uint8 array (h, w, c).

    Raises:
        ValueError: a setting is out of range, or the image is neither an image of Pillow nor a uint8 array.
    """

    probability: float = 0.25
    area: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 3.3)

    def __post_init__(self):
        check_number("probability", self.probability, "[0, 1]")
        check_range("area", self.area, highest=1)
        check_range("ratio", self.ratio)

    def __call__(self, image, generator):
        image = as_array(image)
        if generator.random() >= self.probability:
            return image
        height, width, channels = image.shape
        for _ in range(TRIES):
            h, w = random_sides(height * width, self.area, self.ratio, generator)
            if h <= height and w <= width:
                top, left = random_corner(height - h, width - w, generator)
                image = image.copy()  # the array may be shared, such as a cached image
                noise = generator.integers(0, 256, size=(h, w, channels), dtype="uint8")
                image[top : top + h, left : left + w] = noise
                break
        return image


@dataclass(frozen=True)
class EvalTransform:
    """Resizes and crops an image as in evaluation, without normalisation and without randomness.

    Args:
        preprocessing: `vit_tf.preprocessing.Preprocessing`, whose `resize_and_crop` is applied.

    Output: uint8 array (H, W, 3).

    Raises:
        ValueError: `preprocessing` is not a `Preprocessing`.
    """

    preprocessing: Preprocessing

    def __post_init__(self):
        is_valid = isinstance(self.preprocessing, Preprocessing)
        check_valid("preprocessing", self.preprocessing, is_valid, "a result of `vit_tf.get_preprocessing`")

    def __call__(self, image, generator=None):
        return np.asarray(self.preprocessing.resize_and_crop(as_image(image)))


def as_image(image):
    """Returns an RGB image of Pillow, from any of Pillow or a uint8 array (h, w, c) with c of 1, 3 or 4."""
    if not isinstance(image, Image.Image):
        image = as_array(image)
        image = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return image if image.mode == "RGB" else image.convert("RGB")


def as_array(image):
    """Returns a uint8 array (h, w, c), perhaps read-only, from an image of Pillow or such an array."""
    if isinstance(image, Image.Image):
        return np.asarray(as_image(image))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        if image.ndim == 3 and image.shape[2] in (1, 3, 4) and image.size:
            return image
    is_array = isinstance(image, np.ndarray)
    got = f"{image.dtype} of shape {image.shape}" if is_array else type(image).__name__
    raise ValueError(
        f"expected an image of Pillow or a uint8 array (h, w, c) with 1, 3 or 4 channels, got {got}: "
        "decode files first (`DecodedImages`), and keep pixels in 0 .. 255"
    )


def random_sides(pixels, area, ratio, generator):
    """Draws (height, width) of an area in `area` of `pixels`, with log(height / width) in that of `ratio`."""
    target = generator.uniform(*area) * pixels
    root = math.exp(generator.uniform(*sorted(math.log(r) for r in ratio)) / 2)
    return max(round(math.sqrt(target) * root), 1), max(round(math.sqrt(target) / root), 1)


def random_corner(lowest, rightmost, generator):
    """Draws (top, left), from 0 to `lowest` and from 0 to `rightmost`."""
    return int(generator.integers(lowest + 1)), int(generator.integers(rightmost + 1))
