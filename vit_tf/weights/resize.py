"""`resize_model`: a copy of a built model for another image or patch size, with resampled weights."""

from typing import Any

import keras

from vit_tf import layers
from vit_tf.checks import check_choice, pair
from vit_tf.interpolation import METHODS
from vit_tf.patch_grid import grid_size
from vit_tf.structure import HYBRID_STEMS, ViTStructure
from vit_tf.weights import resample
from vit_tf.weights.positions import resample_positions
from vit_tf.weights.relative_tables import resample_relative_table


def resize_model(
    model: keras.Model,
    image_size: Any = None,
    patch_size: Any = None,
    *,
    method: str | None = None,
    antialias: bool | None = None,
) -> keras.Model:
    """Returns a model for another image or patch size, with the same weights.

    The rows of the position table that belong to patches are resampled to the new grid, rotary positions are
    computed for this grid, and the patch kernel is resampled by its pseudo-inverse (see
    `vit_tf.weights.resample`). All other weights are copied. The given model does not change. The new model
    keeps the head, layers that were added to the model, and the `dtype` policies.

    Args:
        model: a model of `build_vit`.
        image_size: int or (height, width) in pixels. A side of None takes any size: the position table then
            keeps its grid, and each call resamples it. Defaults to the model's own.
        patch_size: int or (height, width) in pixels. Defaults to the model's own.
        method: "bicubic" or "bilinear". Defaults to the model's `position_resampling`, else to bicubic.
        antialias: bool, whether to average over the source cells when a grid or a kernel shrinks. Defaults to
            the model's `position_resampling`, else to True.

    Returns:
        A new `keras.Model` of the same name.

    Raises:
        ValueError: `model` is not a model of `build_vit`, the sizes do not fit each other, or the patch
            size changes and the stem has no kernel that can be resampled (several convolutions, a norm of
            the cut pixels, a quantized kernel).
    """
    check_choice("method", method, METHODS, optional=True)
    structure = ViTStructure(model)
    stem, encoder = structure.stem, structure.patch_encoder
    old_image, old_patch = tuple(model.inputs[0].shape[1:3]), stem.patch_size
    new_image = old_image if image_size is None else pair(image_size, "image_size", unknown=True)
    new_patch = old_patch if patch_size is None else pair(patch_size, "patch_size")
    convolutional = isinstance(stem, (layers.OverlapPatchEmbedding, *HYBRID_STEMS))
    if new_patch != old_patch and (convolutional or structure.named("patch_norm")):
        raise ValueError(
            f"the patches of {model.name!r} ({type(stem).__name__}, {old_patch}) cannot be resampled to "
            f"{new_patch}: stems of several convolutions and a norm of the cut pixels have no kernel for that"
        )
    options = getattr(stem, "allow_remainder", False), getattr(stem, "stride", 1)
    new_grid = grid_size(new_image, new_patch, *options)
    if new_patch != old_patch and structure.patch_embedding.quantization_mode:
        raise ValueError(f"the patch kernel of {model.name!r} is quantized: resize first, then quantize")
    is_fixed = None not in new_grid
    changes = {stem.name: {"patch_size": new_patch, "flatten": is_fixed}}
    if encoder is not None:
        position_grid = new_grid if is_fixed else encoder.position_grid
        changes[encoder.name] = {"grid_size": new_grid, "position_grid": position_grid}

    for block in structure.blocks.values():
        if block.config.relative_positions and not is_fixed:
            raise ValueError(f"{model.name!r} has relative positions, which need a known grid: give a size")
        if block.config.rotary is not None or block.config.relative_positions:
            changes[block.name] = {"grid_size": new_grid if is_fixed else None}
    images = keras.Input((*new_image, model.inputs[0].shape[3]), name=model.inputs[0].name)
    resized = clone(model, images, changes)
    resized.name = model.name
    sampling = {"method": method, "antialias": antialias}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    for layer in filter(lambda layer: layer.weights, model.layers):
        copy_weights(layer, resized.get_layer(layer.name), old_patch, new_patch, sampling)
    return resized


def clone(model, images, changes):
    """Returns a copy of a model for other images, with new weights.

    Args:
        model: a model of `build_vit`.
        images: its new symbolic input.
        changes: dict from the names of layers to changes in their configs.
    """
    grid = {}

    def make(layer):
        return type(layer).from_config({**layer.get_config(), **changes.get(layer.name, {})})

    def call(layer, *args, **kwargs):
        if isinstance(layer, layers.PatchEncoder) and None in layer.grid_size:
            grid["grid"] = layers.PatchGrid(name="patch_grid")(*args)
        if isinstance(layer, layers.Block) and layer.config.rotary is not None:
            kwargs = {name: value for name, value in kwargs.items() if name != "grid"} | grid
        return layer(*args, **kwargs)

    return keras.models.clone_model(model, input_tensors=images, clone_function=make, call_function=call)


def copy_weights(old, new, old_patch, new_patch, options):
    """Copies the weights of a layer; those that depend on the grid or the patch are resampled."""
    targets = {weight.path: weight for weight in new.weights}  # their order depends on earlier quantization
    for source in old.weights:
        target = targets[source.path]
        value = keras.ops.convert_to_numpy(source.value)
        if source.path.endswith("position_embedding"):
            options = {**old.resampling, **options}
            grids = (old.position_grid, new.position_grid)
            value = resample_positions(value, *grids, old.num_prefix_positions, **options)
        elif source.path.endswith("relative_positions/table"):
            value = resample_relative_table(value, old.config.grid_size, new.config.grid_size)
        elif old.name == "patch_embedding" and source.shape != target.shape:
            kernel = value.reshape(*old_patch, -1, value.shape[-1])
            value = resample.resample_patch_kernel(kernel, new_patch, **options)
            value = value.reshape(target.shape)
        target.assign(value)
