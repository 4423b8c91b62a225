"""A built model for another image or patch size, its weights resampled."""

import keras

from vit_tf import layers
from vit_tf.checks import pair
from vit_tf.config import grid_size
from vit_tf.weights import resample


def resize_model(model, image_size=None, patch_size=None, *, method="bicubic", antialias=True):
    """Returns a model for another image or patch size, with the same weights.

    The position table is resampled to the new grid, prefix tokens apart, and the patch kernel by the
    pseudo-inverse (see `vit_tf.weights.resample`). All other weights are copied. The model itself stays
    as it is. A head, a wrapper's other layers and a `dtype` policy are kept.

    Args:
        model: a model of `build_vit`.
        image_size: int or (height, width) in pixels. Defaults to the model's own.
        patch_size: int or (height, width). Defaults to the model's own.
        method: "bicubic" or "bilinear".
        antialias: bool, whether shrinking averages.

    Returns:
        A new `keras.Model` of the same name.

    Raises:
        ValueError: the model is not one of `build_vit`, the sizes do not fit each other, or its patch
            stem has no kernel that can be resampled (an overlapping stem, a norm of the cut pixels, a
            quantized kernel).
    """
    resample.check_method(method)
    stem, encoder = find_parts(model)
    old_image, old_patch = tuple(model.inputs[0].shape[1:3]), stem.patch_size
    new_image = old_image if image_size is None else pair(image_size, "image_size")
    new_patch = old_patch if patch_size is None else pair(patch_size, "patch_size")
    new_grid = grid_size(new_image, new_patch, getattr(stem, "allow_remainder", False))
    if new_patch != old_patch and (
        isinstance(stem, layers.OverlapPatchEmbedding) or has_layer(model, "patch_norm")
    ):
        raise ValueError(
            f"the patches of {model.name!r} ({type(stem).__name__}, {old_patch}) cannot be resampled to "
            f"{new_patch}: an overlapping stem and a norm of the cut pixels have no kernel for that"
        )
    if new_patch != old_patch and model.get_layer("patch_embedding").quantization_mode:
        raise ValueError(f"the patch kernel of {model.name!r} is quantized: resize first, then quantize")
    changes = {stem.name: {"patch_size": new_patch}, encoder.name: {"grid_size": new_grid}}

    def clone(layer):
        return type(layer).from_config({**layer.get_config(), **changes.get(layer.name, {})})

    images = keras.Input((*new_image, model.inputs[0].shape[3]), name=model.inputs[0].name)
    resized = keras.models.clone_model(model, input_tensors=images, clone_function=clone)
    resized.name = model.name
    options = dict(method=method, antialias=antialias)
    for layer in model.layers:
        copy_weights(layer, resized.get_layer(layer.name), old_patch, new_patch, options)
    return resized


def find_parts(model):
    """Returns the layers that know the patch size and the grid."""
    if not getattr(model, "inputs", None) or not has_layer(model, "patch_encoder"):
        raise ValueError(
            f"{getattr(model, 'name', model)!r} is not a model of `build_vit`: give the ViT itself"
        )
    stem = model.get_layer("patches" if has_layer(model, "patches") else "patch_embedding")
    return stem, model.get_layer("patch_encoder")


def has_layer(model, name):
    return any(layer.name == name for layer in model.layers)


def copy_weights(old, new, old_patch, new_patch, options):
    """Copies one layer's weights, resampling those that depend on the grid or the patch."""
    targets = {weight.path: weight for weight in new.weights}  # whose order depends on when it was quantized
    for source in old.weights:
        target = targets[source.path]
        value = keras.ops.convert_to_numpy(source.value)
        if source.path.endswith("position_embedding"):
            value = resample.resample_positions(
                value, old.grid_size, new.grid_size, old.num_prefix_positions, **options
            )
        elif old.name == "patch_embedding" and source.shape != target.shape:
            kernel = value.reshape(*old_patch, -1, value.shape[-1])
            value = resample.resample_patch_kernel(kernel, new_patch, **options)
            value = value.reshape(target.shape)
        target.assign(value)
