"""Saving: a model's weights under timm's names."""

from os import PathLike
from pathlib import Path

import keras
import numpy as np

from vit_tf.checks import check_choice, shown
from vit_tf.files import atomic_path, require_space
from vit_tf.structure import ViTStructure
from vit_tf.weights.formats import eva_names, timm


def save_weights(model: keras.Model, path: str | PathLike, dtype: str = "float32") -> Path:
    """Writes a model's weights under timm's names, completely or not at all.

    `timm.create_model(name, checkpoint_path=path)` loads the file strictly if timm has the architecture. An
    overlapping stem and a norm of the cut pixels, which timm does not have, get names of their own.

    Args:
        model: a model of `build_vit`.
        path: path of the file, which must end in .safetensors.
        dtype: "float32" or "float16", the dtype in the file.

    Returns:
        The path.

    Raises:
        ValueError: an invalid dtype or ending, a missing folder, or a model that `build_vit` did not build.
        OSError: the disk is full, or the folder cannot be written to.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(path)
    check_choice("dtype", dtype, ("float32", "float16"))
    if path.suffix != ".safetensors":
        raise ValueError(f"`path` must end in .safetensors, got {shown(str(path))}")
    if not path.parent.is_dir():
        raise ValueError(f"no folder {str(path.parent)!r} for {path.name!r}: create the folder first")
    arrays = {}
    for name, mapping in timm.weight_mappings(model).items():
        array = keras.ops.convert_to_numpy(mapping.variable.value)
        arrays[name] = mapping.to_timm(array)
    arrays = {name: np.ascontiguousarray(x, dtype) for name, x in eva_names.to_eva(arrays, model).items()}
    grid = "x".join(map(str, ViTStructure(model).patch_encoder.position_grid))
    require_space(path.parent, sum(array.nbytes for array in arrays.values()))
    with atomic_path(path) as partial:
        try:
            save_file(arrays, partial, metadata={"format": "pt", "grid_size": grid})
        except SafetensorError as error:
            raise OSError(f"{str(path)!r} cannot be written: {error}") from error
    return path
