"""`forward_features`: the tokens that leave chosen blocks; and the input checks that `explain` uses, too."""

from typing import Any

import keras
import numpy as np
from keras import ops

from vit_tf.checks import is_int, shown
from vit_tf.structure import PATCHES, ViTStructure


def forward_features(
    model: keras.Model, images: Any, layers: Any = None, norm: bool = True, reshape: bool = True
) -> dict[str, np.ndarray]:
    """Returns the tokens that leave chosen blocks, as maps for dense tasks.

    Equals timm's `forward_intermediates(norm=True)`.

    Args:
        model: a model of `build_vit`.
        images: array `(b, height, width, channels)`, preprocessed as the model expects.
        layers: blocks by number (-1 is the last) or name ("block_3"), one or a list; None takes all.
        norm: bool, whether to apply the model's final norm to the tokens of each block. A model that
            normalises the pooled features instead has no such norm.
        reshape: bool. True returns the patch tokens as maps, False all tokens, the prefix tokens first.

    Returns:
        Dict from the names of the blocks to float32 arrays `(b, grid_h, grid_w, d)`, or `(b, p + n, d)`.

    Raises:
        ValueError: `model` is not a model of `build_vit`, the images have another shape or type than the
            model takes, or a block does not exist.
    """
    structure, images = check_images(model, images)
    names = select_blocks(structure, layers)
    forward = keras.Model(model.input, [structure.blocks[name].output for name in names])
    features = {}
    for name, x in zip(names, keras.tree.flatten(predict_eagerly(forward, images))):
        if norm and "final" in structure.norms:
            x = structure.norms["final"](x)
        x = to_numpy(x)
        if reshape:
            x = x[:, structure.tokens(PATCHES)].reshape(len(x), *structure.grid_size, x.shape[-1])
        features[name] = x
    return features


def check_images(model, images):
    """Returns the `ViTStructure` of a model for images, and the images as an array that it takes.

    Args:
        model: a model of `build_vit`.
        images: the argument of the user.

    Raises:
        ValueError: the model does not begin with images; or `images` is not an array of at least one image
            of the model's size, is uint8 where the model takes normalised images, or is not finite.
    """
    structure = ViTStructure(model)
    _, values = structure.stem, images
    name, expected = model.name, tuple(model.input_shape[1:])
    takes = f"{name!r} takes images of the shape {('b', *expected)}"
    try:
        images = np.asarray(values)
    except ValueError:
        raise ValueError(f"{takes}, got several shapes: resize them") from None
    if images.dtype.kind not in "fiu" or not images.ndim:
        got = f"an array of {images.dtype}" if images.ndim else shown(values)
        raise ValueError(f"{takes}, got {got}: `vit_tf.get_preprocessing` reads image files")
    if not fits(images.shape[1:], expected) or not len(images):
        raise ValueError(f"{takes}, got {images.shape}: {shape_hint(images.shape, expected)}")
    if images.dtype.kind in "iu" and structure.normalization is None:
        raise ValueError(
            f"{name!r} takes normalised images, got {images.dtype}: use `vit_tf.get_preprocessing`, or build "
            "the model with `include_preprocessing=True`; if it was trained on raw pixels, give float32"
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise ValueError("images must be finite, got NaN or infinite values")
    return ViTStructure(model, image_size=images.shape[1:3]), images


def fits(shape, expected):
    """Whether a shape is the expected one, in which None stands for any size."""
    return len(shape) == len(expected) and all(want in (None, side) for side, want in zip(shape, expected))


def shape_hint(shape, expected):
    """Returns how to mend images of a wrong shape, as the end of a message."""
    if fits(shape, expected):
        return "a single image goes in as images[None]"
    if len(shape) == 4 and fits((shape[2], shape[3], shape[1]), expected):
        return "channels come last, images.transpose(0, 2, 3, 1)"
    return "resize them, or the model with `vit_tf.resize_model`"


def select_blocks(structure, layers):
    """Returns the names of blocks in the order of the model.

    Args:
        structure: the `ViTStructure` of the model.
        layers: blocks by number (-1 is the last) or name, one or several; None takes all.

    Raises:
        ValueError: a block does not exist, or `layers` is empty.
    """
    names = list(structure.blocks)
    selected = set()
    for key in names if layers is None else as_list(layers):
        name = names[key] if is_int(key) and -len(names) <= key < len(names) else key
        if name not in names:
            raise ValueError(
                f"{structure.model.name!r} has no block {shown(key)}: choose from {names[0]!r} to "
                f"{names[-1]!r}, by name or by number from {-len(names)} to {len(names) - 1}"
            )
        selected.add(name)
    if not selected:
        raise ValueError("no block was chosen: name at least one in `layers`, or give None for all")
    return [name for name in names if name in selected]


def as_list(values):
    """Returns one or several numbers or names as a list."""
    return list(values) if isinstance(values, (list, tuple, set, range, np.ndarray)) else [values]


def predict_eagerly(model, images):
    """Returns the outputs of a model for images, at inference; PyTorch keeps no activations."""
    if keras.backend.backend() != "torch":
        return model(images, training=False)
    import torch

    with torch.no_grad():
        return model(images, training=False)


def to_numpy(x):
    """Returns a tensor as a float32 array."""
    return np.asarray(ops.convert_to_numpy(ops.cast(x, "float32")))
