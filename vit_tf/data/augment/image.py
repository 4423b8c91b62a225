"""Augmentation and preparation of one picture before it is batched: geometry and erasing.

A transform is called with an image and a `numpy.random.Generator`, from which it draws everything, so that
its result is a function of the two. An image is an RGB picture of Pillow or a uint8 array (h, w, c); each
transform takes both and returns one of them. None remembers anything: one object serves all threads.
Shapes: h rows, w columns, c channels.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vit_tf.checks import check_choice, check_int, check_number, check_range, pair, shown
from vit_tf.preprocessing.transform import INTERPOLATIONS, Preprocessing

TRIES = 10  # of drawing a rectangle that fits, as torchvision and timm have it


@dataclass(frozen=True)
class Compose:
    """Applies transforms one after another.

    Args:
        transforms: callables `(image, generator) -> image`, in the order of their use.

    Call arguments:
        image: a picture, or what the first transform takes.
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
    """Cuts a random rectangle and resizes it: Szegedy et al. 2014, section 6, as torchvision and timm do.

    The area is uniform in `scale` and the logarithm of width / height in `ratio`. When ten draws do not fit
    into the picture, it takes the largest centred rectangle whose proportions `ratio` allows.

    Args:
        image_size: (height, width) of the result in pixels, or one int for both.
        scale: (lowest, highest) area of the rectangle as a fraction of the picture's.
        ratio: (lowest, highest) width / height of the rectangle.
        interpolation: "bicubic", "bilinear", "nearest", "lanczos", "box" or "hamming", those of Pillow.

    Output: RGB picture of `image_size`.

    Raises:
        ValueError: a setting is out of range, or the image is neither a picture nor a uint8 array.
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
        picture = as_image(image)
        top, left, h, w = self.rectangle(picture.height, picture.width, generator)
        resample = Image.Resampling[self.interpolation.upper()]
        return picture.resize(self.image_size[::-1], resample, box=(left, top, left + w, top + h))

    def rectangle(self, height, width, generator):
        """Draws (top, left, height, width) within an image of `height` x `width` pixels."""
        for _ in range(TRIES):
            h, w = random_sides(height * width, self.scale, [1 / r for r in self.ratio], generator)
            if h <= height and w <= width:
                return *random_corner(height - h, width - w, generator), h, w
        h = max(min(height, round(width / self.ratio[0])), 1)
        w = max(min(width, round(height * self.ratio[1])), 1)
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class RandomShift:
    """Shifts an image by up to `padding` pixels each way, reflecting what comes in at the border.

    The same as padding by reflection and cropping at random to the size that was: what
    `vit_tf.data.augment.batch.RandomCrop` does within a graph. For images that have the right size already.

    Args:
        padding: int, the largest shift in pixels. It must be smaller than the image.

    Output: array (h, w, c) as the image.

    Raises:
        ValueError: `padding` is not an int of 0 or more, or not smaller than the image.
    """

    padding: int = 4

    def __post_init__(self):
        check_int("padding", self.padding, 0)

    def __call__(self, image, generator):
        image = as_array(image)
        h, w = image.shape[:2]
        if self.padding >= min(h, w):
            raise ValueError(
                f"`padding` must be smaller than the image, got {self.padding} pixels for {h} x {w}: choose "
                f"at most {min(h, w) - 1}"
            )
        down, right = generator.integers(-self.padding, self.padding + 1, size=2)
        return image.take(reflected(h, down), axis=0).take(reflected(w, right), axis=1)


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirrors an image left to right.

    Args:
        probability: float in [0, 1], how often.

    Output: a picture for a picture, an array for an array.

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
    """Overwrites a random rectangle by noise: Zhong et al. 2017, https://arxiv.org/abs/1708.04896.

    Each value becomes a uniform draw of 0 .. 255, the paper's best choice (its RE-R). The logarithm of the
    ratio is uniform, as torchvision and timm have it, so that tall and wide are as likely. When ten
    rectangles do not fit, the image stays as it is.

    Args:
        probability: float in [0, 1], how often.
        area: (lowest, highest) area of the rectangle as a fraction of the image's.
        ratio: (lowest, highest) height / width of the rectangle.

    Output: uint8 array (h, w, c).

    Raises:
        ValueError: a setting is out of range, or the image is neither a picture nor a uint8 array.
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
                image = image.copy()  # it may be another's: a cached picture
                noise = generator.integers(0, 256, size=(h, w, channels), dtype="uint8")
                image[top : top + h, left : left + w] = noise
                break
        return image


@dataclass(frozen=True)
class EvalTransform:
    """The view for evaluation: a resize and centred crop, without normalisation and without chance.

    Args:
        preprocessing: `vit_tf.preprocessing.transform.Preprocessing`, whose `fit` it is.

    Output: uint8 array (H, W, 3).

    Raises:
        ValueError: `preprocessing` is something else.
    """

    preprocessing: Preprocessing

    def __post_init__(self):
        if not isinstance(self.preprocessing, Preprocessing):
            raise ValueError(
                "`preprocessing` must be what `vit_tf.get_preprocessing` returns, got "
                f"{shown(self.preprocessing)}"
            )

    def __call__(self, image, generator=None):
        return np.asarray(self.preprocessing.resize_and_crop(as_image(image)))


def as_image(image):
    """Returns an RGB picture of Pillow for a picture or a uint8 array (h, w, c) with c 1, 3 or 4."""
    if not isinstance(image, Image.Image):
        image = as_array(image)
        image = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return image if image.mode == "RGB" else image.convert("RGB")


def as_array(image):
    """Returns a uint8 array (h, w, c) for a picture or such an array; not a copy, and perhaps read-only."""
    if isinstance(image, Image.Image):
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        if image.ndim == 3 and image.shape[2] in (1, 3, 4) and image.size:
            return image
    found = f"{image.dtype} of shape {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise ValueError(
        f"expected a picture of Pillow or a uint8 array (h, w, c) with 1, 3 or 4 channels, got {found}: "
        "decode files first (`DecodedImages`), and keep pixels in 0 .. 255"
    )


def random_sides(pixels, area, ratio, generator):
    """Draws (height, width): the area uniform in `area` of `pixels`, log(height / width) in `ratio`."""
    target = generator.uniform(*area) * pixels
    root = math.exp(generator.uniform(*sorted(math.log(r) for r in ratio)) / 2)
    return max(round(math.sqrt(target) * root), 1), max(round(math.sqrt(target) / root), 1)


def random_corner(lowest, rightmost, generator):
    """Draws (top, left), each from 0 to the given pixel."""
    return int(generator.integers(lowest + 1)), int(generator.integers(rightmost + 1))


def reflected(size, shift):
    """Returns which of `size` positions each shows after a shift, mirrored at both ends."""
    index = np.abs(np.arange(size) + shift)
    return (size - 1) - np.abs((size - 1) - index)
