"""From image to patch tokens by one linear map: `Patches` with a `Dense`, or `PatchEmbedding`.

Shapes in the comments: b batch, h and w image height and width, c channels, p patch side,
g grid side (h // p by w // p), n tokens, d model width (`hidden_dim`).
Images are NHWC, independent of `keras.config.image_data_format()`.
"""

from typing import Any

import keras
from keras import ops

from vit_tf.checks import pair
from vit_tf.config import Shape, Size, Tensor, grid_size
from vit_tf.layers.composite import CompositeLayer, arguments, register


def token_shape(input_shape, patch_size, width, allow_remainder=False, pad_to=1):
    """Returns the shape (b, n, width) of the tokens of images of `input_shape`; see `grid_size`."""
    rows, columns = grid_size(input_shape[1:3], patch_size, allow_remainder, pad_to)
    return input_shape[0], None if None in (rows, columns) else rows * columns, width


def as_tokens(x):
    """Reshapes `(b, g, g, d)` to `(b, n, d)`, rows first."""
    b, rows, columns, d = ops.shape(x)
    return ops.reshape(x, (b, rows * columns, d))


@register
class Patches(keras.layers.Layer):
    """Cuts images into non-overlapping patches, each flattened in the order row, column, channel.

    Followed by a `Dense`, the layer is the patch embedding of the ViT paper (eq. 1): the same function as
    `PatchEmbedding` if the kernel of the `Dense` is that of the convolution, reshaped to (p * p * c, d).

    Args:
        patch_size: int or (height, width) in pixels. It must divide the image size.

    Input shape: `(b, h, w, c)`; b, h and w may be unknown.
    Output shape: `(b, n, p * p * c)`, n = (h // p) * (w // p), rows first.

    Raises:
        ValueError: the patch does not divide the image.
    """

    def __init__(self, patch_size: Size, **kwargs: Any):
        super().__init__(**kwargs)
        self.patch_size = pair(patch_size, "patch_size")

    def call(self, images: Tensor) -> Tensor:
        rows, columns = self.patch_size
        grid_size(images.shape[1:3], self.patch_size)
        b, h, w, c = ops.shape(images)
        x = ops.reshape(images, (b, h // rows, rows, w // columns, columns, c))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (b, g, g, p, p, c)
        return ops.reshape(x, (b, (h // rows) * (w // columns), rows * columns * c))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rows, columns = self.patch_size
        return token_shape(input_shape, self.patch_size, rows * columns * input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "patch_size": self.patch_size}


@register
class PatchEmbedding(CompositeLayer):
    """Embeds non-overlapping patches linearly, by a convolution whose stride is its kernel size.

    Args:
        hidden_dim: int, the width d of a token.
        patch_size: int or (height, width) in pixels. It must divide the image size.
        use_bias: bool.
        allow_remainder: bool. True allows other image sizes: pixels beyond the last whole patch, at the right
            and at the bottom, are dropped.

    Input shape: `(b, h, w, c)`; b, h and w may be unknown.
    Output shape: `(b, n, hidden_dim)`, rows first.

    Raises:
        ValueError: the patch does not divide the image.
    """

    def __init__(
        self,
        hidden_dim: int,
        patch_size: Size,
        use_bias: bool = True,
        allow_remainder: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.patch_size = pair(patch_size, "patch_size")
        self.use_bias = use_bias
        self.allow_remainder = allow_remainder
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
        grid_size(images.shape[1:3], self.patch_size, self.allow_remainder)
        if images.shape[0] == 0:  # TensorFlow's convolution gives another shape for an empty batch
            return ops.zeros(self.compute_output_shape(images.shape), self.compute_dtype)
        return as_tokens(self.projection(images))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return token_shape(input_shape, self.patch_size, self.hidden_dim, self.allow_remainder)

    def get_config(self) -> dict[str, Any]:
        names = ("hidden_dim", "patch_size", "use_bias", "allow_remainder")
        return {**super().get_config(), **arguments(self, *names)}
