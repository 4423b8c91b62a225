"""Progressive resizing: a model at other resolutions that shares its weights."""

import keras
import numpy as np
from keras import ops

from vit_tf.layers import PatchEncoder
from vit_tf.structure import ViTStructure
from vit_tf.weights.resample import resize_matrix


def with_image_size(model, image_size):
    """Returns a model for images of another size that shares all weights with `model`.

    Each call resamples the position table of `model` bicubically, and gradients flow back to this table.
    `vit_tf.resize_model` makes an independent model instead.

    Args:
        model: a model of `build_vit`.
        image_size: (height, width) in pixels.

    Returns:
        A `keras.Model`; `model` itself if the size is its own.

    Raises:
        ValueError: the patch size does not divide the image size.
    """
    if tuple(model.input_shape[1:3]) == tuple(image_size):
        return model
    images = keras.Input((*image_size, model.input_shape[-1]), name="images")
    old_size = model.input_shape[1:3]

    def share(layer):
        if not isinstance(layer, PatchEncoder):
            return layer
        grid = tuple(n * new // old for n, new, old in zip(layer.grid_size, image_size, old_size))
        return ResampledPatchEncoder(layer, grid)

    return keras.models.clone_model(model, input_tensors=images, clone_function=share)


class ResampledPatchEncoder(PatchEncoder):
    """A `PatchEncoder` with the variables of another, whose positions are resampled to another grid.

    Args:
        encoder: the `PatchEncoder` that has the variables.
        grid_size: (rows, columns) of patches.

    Input and output shape: see `PatchEncoder`.
    """

    def __init__(self, encoder, grid_size):
        config = {**encoder.get_config(), "parts": None}
        super().__init__(**{**config, "grid_size": grid_size, "dtype": encoder.dtype_policy})
        self.encoder = encoder
        rows, columns = (resize_matrix(old, new) for old, new in zip(encoder.grid_size, grid_size))
        patches = np.kron(rows, columns)  # (new rows * new columns, rows * columns)
        p = self.num_prefix_positions  # these stay
        self.matrix = np.eye(p + patches.shape[0], p + patches.shape[1], dtype="float32")
        self.matrix[p:, p:] = patches

    def build_parts(self, input_shape):
        self.prefix = self.encoder.prefix

    @property
    def position_embedding(self):
        table = ops.cast(self.encoder.position_embedding, "float32")  # (1, p + n, d)
        return ops.cast(ops.matmul(self.matrix, table), self.compute_dtype)


def scaled_size(model, share):
    """Returns the image size (height, width) in pixels that is a share of a model's, in whole patches.

    Args:
        model: a model of `build_vit`.
        share: float in (0, 1], of the height and of the width.
    """
    grid, size = ViTStructure(model).grid_size, model.input_shape[1:3]
    return tuple(max(1, round(share * cells)) * (side // cells) for cells, side in zip(grid, size))
