"""Progressive resizing: a model at other resolutions that shares its weights."""

import keras
from keras import ops

from vit_tf.layers import Block, PatchEncoder
from vit_tf.structure import ViTStructure


def with_image_size(model, image_size):
    """Returns a model for images of another size that shares all weights with `model`.

    Each call resamples the position table of `model`, and gradients flow back to this table. Rotary positions
    are computed for the new grid. `vit_tf.resize_model` makes an independent model instead.

    Args:
        model: a model of `build_vit`.
        image_size: (height, width) in pixels.

    Returns:
        A `keras.Model`; `model` itself if the size is its own.

    Raises:
        ValueError: the patch size does not divide the image size, or the model has relative positions, whose
            offsets are those of one grid.
    """
    if tuple(model.input_shape[1:3]) == tuple(image_size):
        return model
    if any(block.config.relative_positions for block in ViTStructure(model).blocks.values()):
        raise ValueError(
            f"{model.name!r} has relative positions, and cannot be trained at other image sizes in turn: set "
            "progressive_resizing to none"
        )
    images = keras.Input((*image_size, model.input_shape[-1]), name="images")
    grid = ViTStructure(model).grid_of(image_size)

    def share(layer):
        if isinstance(layer, Block) and layer.config.grid_size is not None:
            return BlockOnGrid(layer, grid)
        return ResampledPatchEncoder(layer, grid) if isinstance(layer, PatchEncoder) else layer

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

    def build_parts(self, input_shape):
        self.prefix = self.encoder.prefix
        if self.position_table:
            self.position_embedding = self.encoder.position_embedding


class BlockOnGrid(keras.layers.Layer):
    """A block with positions in its attention, on the tokens of another grid.

    Args:
        block: the `Block`.
        grid_size: (rows, columns) of patches.

    Input and output shape: see `Block`.
    """

    def __init__(self, block, grid_size):
        super().__init__(name=block.name, dtype=block.dtype_policy)
        self.block = block
        self.grid_size = grid_size

    def build(self, input_shape):
        pass  # the block is built

    def call(self, inputs, training=None):
        return self.block(inputs, training=training, grid=ops.zeros(self.grid_size, "int32"))

    def compute_output_shape(self, input_shape):
        return input_shape


def scaled_size(model, share, image_size=None):
    """Returns the image size (height, width) in pixels that is a share of a model's, in whole patches.

    Args:
        model: a model of `build_vit`.
        share: float in (0, 1], of the height and of the width.
        image_size: (height, width) in pixels, for a model that takes any size.
    """
    structure = ViTStructure(model, image_size=image_size)
    sizes = zip(structure.grid_size, structure.image_size)
    return tuple(max(1, round(share * cells)) * (side // cells) for cells, side in sizes)
