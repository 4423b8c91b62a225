"""Augmentation of batches, as Keras layers that run inside the training step, on every backend.

Each layer draws parameters for each image and transforms the whole batch with a few tensor operations. Images
are NHWC, floats or integers. Without `training=True` a layer returns its input.
`vit_tf.data.augment.image` augments single images before they are batched.

Keras's own layers cannot replace these. Their `call` defaults to `training=True`: `model(images)` augments
the images, and passes `training=True` to the layers after them, such as Dropout. They follow Keras's global
image data format. Their RandomColorJitter shifts the brightness, where Pillow scales it; their RandomErasing
has no range of aspect ratios and fills with clipped normal noise. On a CPU (`benchmarks/augmentation.py`)
Keras takes 2.0 to 2.3 times as long for crops, affine maps and erasing, 1.2 times for colours, and equally
long for flips.
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops, random

from vit_tf.checks import check_int, check_number, check_range, pair, require
from vit_tf.config import Shape, Size, Tensor
from vit_tf.preprocessing.transform import crop_resize_matrix

register = keras.saving.register_keras_serializable(package="vit_tf")

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as in Pillow


class RandomLayer(keras.layers.Layer):
    """Base class: calls `augment(images)` in training, and holds the state of the random generator.

    A subclass names its arguments, which are also its attributes, in `settings`.

    Args:
        seed: int, for a reproducible sequence. None draws a seed, which `keras.utils.set_random_seed` fixes.

    Input and output shape: `(b, h, w, c)`.
    """

    settings: tuple[str, ...] = ()

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = random.SeedGenerator(seed)

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        return self.augment(images) if training else images

    def uniform(self, images: Tensor, low: float, high: float):
        """Draws one float per image, shape (b, 1, 1)."""
        shape = (ops.shape(images)[0], 1, 1)
        return random.uniform(shape, low, high, dtype="float32", seed=self.seed_generator)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in (*self.settings, "seed")}
        return {**super().get_config(), **own}


@register
class RandomFlip(RandomLayer):
    """Flips images left to right, each with a probability of 1/2.

    Args:
        seed: int, see `RandomLayer`.

    Input and output shape: `(b, h, w, c)`.
    """

    def augment(self, images: Tensor) -> Tensor:
        is_flipped = self.uniform(images, 0, 1)[..., None] < 0.5  # (b, 1, 1, 1)
        return ops.where(is_flipped, ops.flip(images, axis=2), images)


@register
class RandomCrop(RandomLayer):
    """Shifts images by up to `padding` pixels in each direction, filling the border by reflection.

    This equals padding by reflection, followed by a random crop of the original size.

    Args:
        padding: int, the largest shift in pixels. It must be smaller than the image.
        seed: int, see `RandomLayer`.

    Input and output shape: `(b, h, w, c)`.

    Raises:
        ValueError: `padding` is negative, or not smaller than the image.
    """

    settings = ("padding",)

    def __init__(self, padding: int = 4, **kwargs: Any):
        super().__init__(**kwargs)
        check_int("padding", padding, 0)
        self.padding = padding

    def build(self, input_shape: Shape) -> None:
        smallest = min((side for side in input_shape[1:3] if side is not None), default=math.inf)
        got = f"got {self.padding} pixels for images of {tuple(input_shape[1:3])}"
        require(self.padding < smallest, f"`padding` must be smaller than the image, {got}")

    def augment(self, images: Tensor) -> Tensor:
        b, h, w, c = ops.shape(images)
        rows = self.shifted_indices(images, h)[:, :, None]  # (b, h, 1)
        columns = self.shifted_indices(images, w)[:, None, :]  # (b, 1, w)
        first_pixel = ops.arange(b, dtype="int32")[:, None, None] * (h * w)
        pixels = ops.reshape(images, (b * h * w, c))
        return ops.take(pixels, first_pixel + rows * w + columns, axis=0)  # (b, h, w, c)

    def shifted_indices(self, images: Tensor, size: int) -> Tensor:
        """Draws one shift per image and returns the source index of each position, (b, size)."""
        shift = ops.floor(self.uniform(images, -self.padding, self.padding + 1))[:, 0]
        index = ops.arange(size, dtype="int32") + ops.cast(shift, "int32")
        return (size - 1) - ops.abs((size - 1) - ops.abs(index))


@register
class RandomAffine(RandomLayer):
    """Rotates and zooms images about their centre, in one bilinear resampling.

    This equals Keras's `RandomRotation` followed by `RandomZoom`, except that these two interpolate twice.
    XLA has no kernel for this layer on TensorFlow: Keras compiles models with this layer without XLA.

    Args:
        rotation: non-negative float, the largest angle in either direction as a fraction of a full turn.
        zoom: float in [0, 1), the largest relative change of height and width, which are drawn independently.
        seed: int, see `RandomLayer`.

    Input shape: `(b, h, w, c)`.
    Output shape: as the input, in the layer's compute dtype.

    Raises:
        ValueError: `rotation` is negative, or `zoom` is outside [0, 1).
    """

    settings = ("rotation", "zoom")

    def __init__(self, rotation: float = 0.0, zoom: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        check_number("rotation", rotation, "[0, inf)")
        check_number("zoom", zoom, "[0, 1)")
        self.rotation = rotation
        self.zoom = zoom
        self.supports_jit = keras.backend.backend() != "tensorflow"

    def augment(self, images: Tensor) -> Tensor:
        return ops.image.affine_transform(
            ops.cast(images, self.compute_dtype),
            self.transforms(images),
            interpolation="bilinear",
            fill_mode="reflect",
            data_format="channels_last",
        )

    def transforms(self, images: Tensor) -> Tensor:
        """Draws (b, 8) coefficients that map an output position to its source position.

        They are those of `keras.ops.image.affine_transform`: x' = a0 x + a1 y + a2, y' = b0 x + b1 y + b2.
        """
        _, h, w, _ = ops.shape(images)
        x_centre = ops.cast(w - 1, "float32") / 2
        y_centre = ops.cast(h - 1, "float32") / 2
        turn = 2 * math.pi * self.rotation
        angle = self.uniform(images, -turn, turn)[:, 0]  # (b, 1)
        x_zoom = self.uniform(images, 1 - self.zoom, 1 + self.zoom)[:, 0]
        y_zoom = self.uniform(images, 1 - self.zoom, 1 + self.zoom)[:, 0]
        a0, a1 = x_zoom * ops.cos(angle), -x_zoom * ops.sin(angle)
        b0, b1 = y_zoom * ops.sin(angle), y_zoom * ops.cos(angle)
        a2 = x_centre - a0 * x_centre - a1 * y_centre
        b2 = y_centre - b0 * x_centre - b1 * y_centre
        zero = ops.zeros_like(angle)
        return ops.concatenate([a0, a1, a2, b0, b1, b2, zero, zero], axis=1)


@register
class Resize(keras.layers.Layer):
    """Resizes images bilinearly, with antialiasing, in training and at inference.

    The call of `keras.layers.Resizing` defaults to `training=True`, which Keras 3.15 passes to the layers
    after it, for example in `model(images)`. XLA can compile this layer on TensorFlow, where it has no kernel
    for `keras.ops.image.resize` with antialiasing.

    Args:
        image_size: (height, width) in pixels.

    Input shape: `(b, h, w, c)`.
    Output shape: `(b, *image_size, c)`, in the layer's compute dtype.
    """

    def __init__(self, image_size: Size, **kwargs: Any):
        super().__init__(**kwargs)
        self.image_size = pair(image_size, "image_size")

    def call(self, images: Tensor) -> Tensor:
        _, h, w, c = ops.shape(images)
        rows, columns = (self.matrix(size, i) for i, size in enumerate((h, w)))  # (H, h), (W, w)
        height, width = self.image_size
        x = ops.matmul(rows, ops.reshape(ops.cast(images, "float32"), (-1, h, w * c)))  # (b, H, w c)
        x = ops.matmul(columns, ops.reshape(x, (-1, w, c)))  # (b H, W, c)
        return ops.cast(ops.reshape(x, (-1, height, width, c)), self.compute_dtype)

    def matrix(self, size: int, axis: int) -> Tensor:
        """Returns the weights `(image_size[axis], size)` of the resize of one side."""
        xp, resized = np, self.image_size[axis]
        if not isinstance(size, int):  # TensorFlow: known when a batch comes
            xp, size = ops, ops.cast(size, "float64")
        weights, _ = crop_resize_matrix(size, resized, resized, "bilinear", xp)
        return ops.cast(weights, "float32")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], *self.image_size, input_shape[-1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "image_size": self.image_size}


@register
class RandomColor(RandomLayer):
    """Changes brightness, contrast and saturation of each image, in this order.

    The three factors have the meaning of Pillow's `ImageEnhance`. Each is drawn for each image from
    [1 - strength, 1 + strength], and its result is clipped to [0, 255].

    Args:
        strength: float in [0, 1].
        seed: int, see `RandomLayer`.

    Input shape: `(b, h, w, c)`, values in [0, 255]. The saturation changes only if c is 3.
    Output shape: as the input, in the layer's compute dtype.

    Raises:
        ValueError: `strength` is outside [0, 1].
    """

    settings = ("strength",)

    def __init__(self, strength: float = 0.4, **kwargs: Any):
        super().__init__(**kwargs)
        check_number("strength", strength, "[0, 1]")
        self.strength = strength

    def augment(self, images: Tensor) -> Tensor:
        images = ops.cast(images, self.compute_dtype)
        brightness, contrast, saturation = (self.factor(images) for _ in range(3))  # (b, 1, 1, 1)
        x = ops.clip(images * brightness, 0, 255)
        mean = ops.mean(luminance(x), axis=(1, 2), keepdims=True)
        x = ops.clip(mean + (x - mean) * contrast, 0, 255)
        if images.shape[-1] == 3:
            x = ops.clip(luminance(x) + (x - luminance(x)) * saturation, 0, 255)
        return x

    def factor(self, images: Tensor) -> Tensor:
        drawn = self.uniform(images, 1 - self.strength, 1 + self.strength)
        return ops.cast(drawn[..., None], self.compute_dtype)


def luminance(images):
    """Returns the luminance (b, h, w, 1) of images (b, h, w, c), or their mean channel if c is not 3."""
    if images.shape[-1] != 3:
        return ops.mean(images, axis=-1, keepdims=True)
    return ops.sum(images * ops.convert_to_tensor(LUMA, images.dtype), axis=-1, keepdims=True)


@register
class RandomErasing(RandomLayer):
    """Overwrites a random rectangle with noise: Zhong et al. 2017, https://arxiv.org/abs/1708.04896.

    A side that is longer than the image is clipped to the image. `vit_tf.data.augment.image.RandomErasing`,
    which is the same otherwise, draws another rectangle.

    Args:
        probability: float in [0, 1] of an erased rectangle, per image.
        area: (lowest, highest) area of the rectangle as a fraction of the image's.
        ratio: (lowest, highest) height / width of the rectangle.
        seed: int, see `RandomLayer`.

    Input shape: `(b, h, w, c)`, values in [0, 255].
    Output shape: as the input, in the layer's compute dtype.

    Raises:
        ValueError: a setting is out of range.
    """

    settings = ("probability", "area", "ratio")

    def __init__(
        self,
        probability: float = 0.25,
        area: tuple[float, float] = (0.02, 1 / 3),
        ratio: tuple[float, float] = (0.3, 3.3),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_number("probability", probability, "[0, 1]")
        check_range("area", area, highest=1)
        check_range("ratio", ratio)
        self.probability = probability
        self.area = tuple(area)
        self.ratio = tuple(ratio)

    def augment(self, images: Tensor) -> Tensor:
        images = ops.cast(images, self.compute_dtype)
        _, h, w, _ = ops.shape(images)
        area = self.uniform(images, *self.area) * (h * w)
        ratio = ops.exp(self.uniform(images, *map(math.log, self.ratio)))
        top, bottom = self.interval(images, ops.sqrt(area * ratio), h)
        left, right = self.interval(images, ops.sqrt(area / ratio), w)
        is_erased = self.uniform(images, 0, 1) < self.probability  # (b, 1, 1)
        y, x = ops.arange(h, dtype="float32")[:, None], ops.arange(w, dtype="float32")
        is_erased = is_erased & (y >= top) & (y < bottom)  # (b, h, 1)
        is_erased = is_erased & ((x >= left) & (x < right))  # (b, h, w)
        noise = random.uniform(ops.shape(images), 0, 256, seed=self.seed_generator, dtype="float32")
        noise = ops.cast(ops.floor(noise), self.compute_dtype)
        return ops.where(is_erased[..., None], noise, images)

    def interval(self, images: Tensor, length: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Draws intervals of rounded `length` (b, 1, 1) within `size` pixels; returns their (start, end)."""
        length = ops.clip(ops.round(length), 1, size)
        start = ops.floor(self.uniform(images, 0, 1) * (size - length + 1))
        return start, start + length
