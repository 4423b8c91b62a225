"""The way back: a model's weights under timm's names."""

from pathlib import Path

import keras
import numpy as np

from vit_tf.checks import shown
from vit_tf.files import atomic_path, require_space
from vit_tf.structure import ViTStructure
from vit_tf.weights.formats import timm


def save_weights(model, path, format="timm", dtype="float32"):
    """Writes a model's weights under another library's names, whole or not at all.

    Args:
        model: a model of `build_vit`.
        path: a path that ends in .safetensors.
        format: "timm": `timm.create_model(name, checkpoint_path=path)` loads it strictly, if timm has the
            architecture; an overlapping stem or a norm of the cut pixels get names of our own.
        dtype: "float32" or "float16", in which they are stored.

    Returns:
        The path.

    Raises:
        ValueError: another format, dtype or ending, no such folder, or a model that is not of `build_vit`.
        OSError: the disk is full, or the folder cannot be written to.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(path)
    if format != "timm":
        raise ValueError(f'`format` must be "timm", got {shown(format)}')
    if dtype not in ("float32", "float16"):
        raise ValueError(f'`dtype` must be "float32" or "float16", got {shown(dtype)}')
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors, got {shown(str(path))}")
    if not path.parent.is_dir():
        raise ValueError(f"no folder {str(path.parent)!r} to write {path.name!r} into: make it first")
    arrays = {}
    for name, entry in timm.weight_mappings(model).items():
        array = keras.ops.convert_to_numpy(entry.variable.value)
        arrays[name] = np.ascontiguousarray(entry.to_timm(array), dtype)
    grid = "x".join(map(str, ViTStructure(model).grid_size))
    require_space(path.parent, sum(array.nbytes for array in arrays.values()))
    with atomic_path(path) as partial:
        try:
            save_file(arrays, partial, metadata={"format": "pt", "grid_size": grid})
        except SafetensorError as error:
            raise OSError(f"{str(path)!r} cannot be written: {error}") from error
    return path
