"""Values of a config.json, which may be hostile: each has the expected type, or raises a clear error."""

import math

from vit_tf.checks import require, shown

# Values of "model_type" in a config.json of transformers whose models can be built.
MODEL_TYPES = (
    *("vit", "deit", "dinov2", "dinov2_with_registers", "vit_mae", "vit_msn", "ijepa"),
    *("clip", "clip_vision_model", "siglip", "siglip_vision_model", "siglip2", "siglip2_vision_model"),
    *("aimv2", "aimv2_vision_model", "dinov3_vit", "beit"),
)


def config_value(config, key, types, default=None, file="config.json"):
    """Returns `config[key]`, or `default` if the key is missing or the value is null.

    Args:
        config: dict.
        key: str.
        types: a type or a tuple of types. A bool does not count as an int.
        file: str, the name of the file in messages.

    Raises:
        ValueError: the value has another type.
    """
    value = config.get(key)
    if value is None:
        return default
    types = types if isinstance(types, tuple) else (types,)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        expected = " or ".join(kind.__name__ for kind in types)
        raise ValueError(f"{file} must have {expected} as {key!r}, got {shown(value)}")
    return value


def config_image_size(config):
    """Returns (height, width) of timm's `pretrained_cfg.input_size`; None if the key is missing."""
    size = config_value(config_value(config, "pretrained_cfg", dict, {}), "input_size", (list, tuple))
    if size is None:
        return None
    is_valid = len(size) == 3 and all(isinstance(side, int) and side > 0 for side in size)
    expected = "[channels, height, width] as 'input_size'"
    require(is_valid, f"config.json must have {expected}, got {shown(size)}")
    return tuple(size[1:])


def vision_config(config):
    """Returns the part of a config.json of transformers that describes the vision tower, or the whole."""
    return config_value(config, "vision_config", dict, config)


def vision_image_size(config):
    """Returns the image size in a config.json of transformers: int or [height, width], 224 by default."""
    config = vision_config(config)
    patches = config_value(config, "num_patches", int)
    if patches is not None:  # SigLIP 2 of any size: the square of its position table
        return math.isqrt(max(patches, 0)) * config_value(config, "patch_size", int, 16)
    return config_value(config, "image_size", (int, list), 224)
