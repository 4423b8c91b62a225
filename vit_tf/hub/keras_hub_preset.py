"""Presets of keras-hub: a folder with config.json, weights in HDF5 files, and perhaps a head and its images.

Reference: https://github.com/keras-team/keras-hub, `src/utils/preset_utils.py`. The weights of the backbone
are `model.weights.h5`, or several files that `model.weights.json` names; those of a task, such as a
classifier, are beside them in `task.weights.h5`.
"""

import re

from vit_tf.checks import require, shown
from vit_tf.files import read_json
from vit_tf.hub.config_values import config_value
from vit_tf.hub.hdf5_file import read_hdf5
from vit_tf.hub.lazy_tensor import MissingFile
from vit_tf.hub.readers import read_file
from vit_tf.hub.unwrap import Unwrapped

REGISTERED = "keras_hub>"
WEIGHTS, SHARDS = "model.weights.h5", "model.weights.json"
TASK, TASK_WEIGHTS, CONVERTER = "task.json", "task.weights.h5", "image_converter.json"
HEAD = "task/"  # before the names of the task's own weights
INTERPOLATIONS = {"nearest": 0, "lanczos3": 1, "bilinear": 2, "bicubic": 3}


def is_preset(config):
    """Whether a config.json is that of a preset."""
    return str(config.get("registered_name")).startswith(REGISTERED)


def read_preset(find):
    """Returns (path, Unwrapped): the tensors of a preset, of its head after `HEAD`.

    Args:
        find: function from the name of a file to its path, a ValueError if there is none.
    """
    path = optional(find, WEIGHTS)
    if path is not None:
        tensors = read_part(path)
    else:
        path = find(SHARDS)
        tensors = read_shards(path, find)
    task = optional(find, TASK_WEIGHTS)
    if task is not None:
        tensors |= {HEAD + name: tensor for name, tensor in read_part(task).items()}
    return path, Unwrapped(tensors)


def read_part(path):
    return read_file(path, Unwrapped, read_hdf5).tensors


def read_shards(index, find):
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{str(index)!r} must name the files of the weights in `weight_map`")
    parts = {}
    for names in weight_map.values():
        parts |= dict.fromkeys(map(str, names if isinstance(names, list) else [names]))
    tensors = {}
    for part in parts:
        is_plain = re.fullmatch(r"[^/\\:\0]+\.weights\.h5", part)  # the name must not lead out of the folder
        require(is_plain, f"{str(index)!r} must name plain .weights.h5 files, got {shown(part)}")
        path = optional(find, part)
        require(path, f"{str(index)!r} names {part}, which is missing: download or copy it there")
        tensors |= read_part(path)
    return tensors


def optional(find, name):
    """Returns the path of a file, None if it is missing."""
    try:
        return find(name)
    except MissingFile:
        return None


def preset_configs(config, find):
    """Returns (config, preprocessor) of a preset.

    The settings of its task are `config["task"]`, and those of its image converter are written as those of a
    preprocessor_config.json of transformers.
    """
    task, converter = (optional(find, name) for name in (TASK, CONVERTER))
    if task is not None:
        config = {**config, "task": config_value(read_json(task), "config", dict, {})}
    preprocessor = {} if converter is None else preprocessor_of(read_json(converter))
    return config, preprocessor


def preprocessor_of(converter):
    """Returns the keys of a preprocessor_config.json for an image converter: x * scale + offset.

    Raises:
        ValueError: the converter has values that no model here takes.
    """
    settings = config_value(converter, "config", dict, {})
    size = config_value(settings, "image_size", list)
    scale, offset = (per_channel(settings, key, default) for key, default in (("scale", 1), ("offset", 0)))
    interpolation = config_value(settings, "interpolation", str, "bilinear")
    is_valid = size and len(size) == 2 and all(scale) and interpolation in INTERPOLATIONS
    require(
        is_valid, f"{CONVERTER} must have 'image_size', 'scale' and 'interpolation', got {shown(settings)}"
    )
    crops = config_value(settings, "crop_to_aspect_ratio", bool, True)
    if crops:
        sizes = dict(size=dict(shortest_edge=min(size)), crop_size=dict(height=size[0], width=size[1]))
    else:
        sizes = dict(size=dict(height=size[0], width=size[1]))
    return dict(
        **sizes,
        do_center_crop=crops,
        resample=INTERPOLATIONS[interpolation],
        image_mean=[-o / s / 255 for o, s in zip(offset, scale)],
        image_std=[1 / s / 255 for s in scale],
    )


def per_channel(settings, key, default):
    """Returns three numbers: of each channel, or one for all."""
    value = config_value(settings, key, (int, float, list), default)
    values = value if isinstance(value, list) else [value] * 3
    is_valid = len(values) == 3 and all(
        isinstance(x, int | float) and not isinstance(x, bool) for x in values
    )
    require(is_valid, f"{CONVERTER} must have a number or three as {key!r}, got {shown(value)}")
    return values
