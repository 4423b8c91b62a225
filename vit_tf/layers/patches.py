"""From image to patch tokens by one linear map: `Patches` with a `Dense`, or `PatchEmbedding`.

Shapes in the comments: b batch, h and w image height and width, c channels, p patch side,
g grid side (h // p by w // p), n tokens, d model width (`hidden_dim`).
Images are NHWC, independent of `keras.config.image_data_format()`.
"""

import math
from typing import Any

import keras
from keras import ops

from vit_tf.checks import pair
from vit_tf.config import Shape, Size, Tensor
from vit_tf.layers.composite import CompositeLayer, arguments, register
from vit_tf.patch_grid import grid_size


def map_shape(input_shape, patch_size, width, allow_remainder=False, pad_to=1):
    """Returns the shape (b, rows, columns, width) of a map of the patches of images; see `grid_size`."""
    return input_shape[0], *grid_size(input_shape[1:3], patch_size, allow_remainder, pad_to), width


def token_shape(shape):
    """Returns the shape (b, n, d) of the tokens of a map of a shape (b, rows, columns, d)."""
    b, rows, columns, d = shape
    return b, None if None in (rows, columns) else rows * columns, d


def as_tokens(x):
    """Reshapes `(b, g, g, d)` to `(b, n, d)`, rows first."""
    b, rows, columns, d = ops.shape(x)
    return ops.reshape(x, (b, rows * columns, d))


def check_sides(images, patch_size, allow_remainder=False, pad_to=1):
    """Returns the images; raises a ValueError if patches do not divide them.

    A graph of TensorFlow whose sizes are unknown raises an `InvalidArgumentError` when they come.

    Args:
        images: tensor `(b, h, w, c)`.
        patch_size: (height, width) in pixels.
        allow_remainder, pad_to: see `grid_size`.
    """
    sides = images.shape[1:3]
    grid_size(sides, patch_size, allow_remainder, pad_to)
    if None in sides and not allow_remainder and keras.backend.backend() == "tensorflow":
        from vit_tf.layers.tensorflow_checks import assert_divisible

        message = f"the patch size {patch_size} does not divide the image size"
        sizes = ops.convert_to_tensor(ops.shape(images)[1:3])
        return assert_divisible(images, -(-sizes // pad_to) * pad_to, patch_size, message)
    return images


def check_num_tokens(n, grid_size, num_prefix_tokens):
    """Raises a ValueError if n tokens, None if unknown, are not the prefix tokens and a grid of patches."""
    count = num_prefix_tokens + math.prod(grid_size)
    if n not in (None, count):
        raise ValueError(
            f"{num_prefix_tokens} prefix tokens and a grid of {grid_size} are {count} tokens, "
            f"got {n}: give the grid size of the images that the layer takes"
        )


@register
class Patches(keras.layers.Layer):
    """Cuts images into non-overlapping patches, each flattened in the order row, column, channel.

    Followed by a `Dense`, the layer is the patch embedding of the ViT paper (eq. 1): the same function as
    `PatchEmbedding` if the kernel of the `Dense` is that of the convolution, reshaped to (p * p * c, d).

    Args:
        patch_size: int or (height, width) in pixels. It must divide the image size.
        flatten: bool. False keeps rows and columns, for images of any size, see `PatchEncoder`.

    Input shape: `(b, h, w, c)`; b, h and w may be unknown.
    Output shape: `(b, n, p * p * c)`, n = (h // p) * (w // p), rows first; `(b, h // p, w // p, p * p * c)`
    without `flatten`.

    Raises:
        ValueError: the patch does not divide the image.
    """

    def __init__(self, patch_size: Size, flatten: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.patch_size = pair(patch_size, "patch_size")
        self.flatten = flatten

    def call(self, images: Tensor) -> Tensor:
        rows, columns = self.patch_size
        images = check_sides(images, self.patch_size)
        b, h, w, c = ops.shape(images)
        x = ops.reshape(images, (b, h // rows, rows, w // columns, columns, c))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (b, g, g, p, p, c)
        grid = ((h // rows) * (w // columns),) if self.flatten else (h // rows, w // columns)
        return ops.reshape(x, (b, *grid, rows * columns * c))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rows, columns = self.patch_size
        shape = map_shape(input_shape, self.patch_size, rows * columns * input_shape[-1])
        return token_shape(shape) if self.flatten else shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **arguments(self, "patch_size", "flatten")}


@register
class PatchEmbedding(CompositeLayer):
    """Embeds non-overlapping patches linearly, by a convolution whose stride is its kernel size.

    Args:
        hidden_dim: int, the width d of a token.
        patch_size: int or (height, width) in pixels. It must divide the image size.
        use_bias: bool.
        allow_remainder: bool. True allows other image sizes: pixels beyond the last whole patch, at the right
            and at the bottom, are dropped.
        flatten: bool. False keeps rows and columns, for images of any size, see `PatchEncoder`.

    Input shape: `(b, h, w, c)`; b, h and w may be unknown.
    Output shape: `(b, n, hidden_dim)`, rows first; `(b, rows, columns, hidden_dim)` without `flatten`.

    Raises:
        ValueError: the patch does not divide the image.
    """

    def __init__(
        self,
        hidden_dim: int,
        patch_size: Size,
        use_bias: bool = True,
        allow_remainder: bool = False,
        flatten: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.patch_size = pair(patch_size, "patch_size")
        self.use_bias = use_bias
        self.allow_remainder = allow_remainder
        self.flatten = flatten
        self.projection = keras.layers.Conv2D(
            hidden_dim,
            self.patch_size,
            strides=self.patch_size,
            use_bias=use_bias,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="projection",
        )

    def build_parts(self, input_shape: Shape) -> None:
        grid_size(input_shape[1:3], self.patch_size, self.allow_remainder)
        self.projection.build(input_shape)

    def call(self, images: Tensor) -> Tensor:
        images = check_sides(images, self.patch_size, self.allow_remainder)
        if images.shape[0] == 0:  # TensorFlow's convolution gives another shape for an empty batch
            return ops.zeros(self.compute_output_shape(images.shape), self.compute_dtype)
        x = self.projection(images)
        return as_tokens(x) if self.flatten else x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = map_shape(input_shape, self.patch_size, self.hidden_dim, self.allow_remainder)
        return token_shape(shape) if self.flatten else shape

    def get_config(self) -> dict[str, Any]:
        names = ("hidden_dim", "patch_size", "use_bias", "allow_remainder", "flatten")
        return {**super().get_config(), **arguments(self, *names)}
