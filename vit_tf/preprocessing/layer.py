"""`PreprocessImages`: the evaluation transform as a Keras layer, inside the graph of a model.

Shapes: b images, h rows, w columns of the input; H rows, W columns of the output.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from vit_tf.checks import pair, require
from vit_tf.config import Shape, Tensor
from vit_tf.preprocessing.transform import Preprocessing, crop_resize_matrix

register = keras.saving.register_keras_serializable(package="vit_tf")


@register
class ChannelRescaling(keras.layers.Rescaling):
    """`keras.layers.Rescaling` by a factor and an offset per channel, always along the last axis.

    Keras's layer takes another axis after `keras.config.set_image_data_format("channels_first")`.

    Args: as of `keras.layers.Rescaling`.

    Input and output shape: `(..., c)`; the output has the layer's compute dtype.
    """

    def call(self, inputs: Tensor) -> Tensor:
        values = (inputs, self.scale, self.offset)
        inputs, scale, offset = (self.backend.cast(x, self.compute_dtype) for x in values)
        return inputs * scale + offset


@register
class PreprocessImages(keras.layers.Layer):
    """Resizes, crops and normalises a batch of images as `Preprocessing` does.

    Like Pillow, the layer resizes one side after the other and rounds to bytes after each. Pixels differ from
    those of Pillow 13 by at most 1/255; those of `keras.ops.image.resize` differ by 6/255 at edges. Older
    releases of Pillow resize the sides in the other order where the height shrinks by more than twice as much
    as the width; edges then differ by about 7/255. `h` and `w` may be unknown in a graph.

    Args:
        settings: dict, the result of `Preprocessing.to_dict()`. `interpolation` must be "bicubic" or
            "bilinear".

    Input shape: `(b, h, w, 3)`, integers or floats in [0, 255].
    Output shape: `(b, H, W, 3)`, in the layer's compute dtype.

    Raises:
        ValueError: another interpolation, or images of another rank or number of channels.
    """

    def __init__(self, settings: dict[str, Any], **kwargs: Any):
        super().__init__(**kwargs)
        self.preprocessing = Preprocessing(**settings)
        interpolation, hint = self.preprocessing.interpolation, "call the Preprocessing on the images instead"
        problem = f"the layer resizes by 'bicubic' or 'bilinear', got {interpolation=}"
        require(interpolation in ("bicubic", "bilinear"), f"{problem}: {hint}")

    def build(self, input_shape: Shape) -> None:
        is_rgb = len(input_shape) == 4 and input_shape[-1] == 3
        require(is_rgb, f"images must have the shape (b, h, w, 3), got {tuple(input_shape)}")

    def call(self, images: Tensor) -> Tensor:
        settings = self.preprocessing
        _, h, w, _ = ops.shape(images)
        xp = np
        if not (isinstance(h, int) and isinstance(w, int)):  # TensorFlow: known when a batch comes
            xp, h, w = ops, ops.cast(h, "float64"), ops.cast(w, "float64")
        new_h, new_w = settings.resized_size(h, w, xp)
        _, height, width, _ = self.compute_output_shape(images.shape)
        rows, row_exists = crop_resize_matrix(h, new_h, height, settings.interpolation, xp)
        columns, column_exists = crop_resize_matrix(w, new_w, width, settings.interpolation, xp)
        exists = row_exists[:, None, None] & column_exists[None, :, None]  # (H, W, 1)
        rows_first = (new_h < h) & (2 * (w - new_w) < h - new_h)  # github.com/python-pillow/Pillow/pull/9549
        images = resize_by_matrices(images, rows, columns, rows_first)
        colours = (settings.fill, settings.mean, settings.std)
        fill, mean, std = (ops.convert_to_tensor(colour, "float32") for colour in colours)
        images = ops.where(exists, images, fill)
        return ops.cast((images / 255 - mean) / std, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], *pair(self.preprocessing.image_size, "image_size"), 3

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "settings": self.preprocessing.to_dict()}


def resize_by_matrices(images, rows, columns, rows_first):
    """Resizes images (b, h, w, 3) by weights (H, h) and (W, w), in float32 and rounded after each side."""
    images, rows, columns = (ops.cast(x, "float32") for x in (images, rows, columns))

    def resize_sides(*steps):
        x = images
        for equation, weights in steps:
            x = ops.clip(ops.floor(ops.einsum(equation, x, weights) + 0.5), 0, 255)
        return x

    height, width = ("bhwc,yh->bywc", rows), ("bhwc,xw->bhxc", columns)
    return ops.cond(rows_first, lambda: resize_sides(height, width), lambda: resize_sides(width, height))
