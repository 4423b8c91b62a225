"""Values of a config.json, which strangers wrote: of the kind that is needed, or a clear error."""

from vit_tf.checks import shown

# The model types of transformers that vit_tf reads.
MODEL_TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers")


def read(config, key, kinds, default=None):
    """Returns `config[key]`, or `default` where it is absent or null.

    Args:
        config: dict.
        key: str.
        kinds: a type or a tuple of them. A bool is no int here.

    Raises:
        ValueError: the value is of another kind.
    """
    value = config.get(key)
    if value is None:
        return default
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"config.json must have {expected} as {key!r}, got {shown(value)}")
    return value


def read_image_size(config):
    """Returns (height, width) of timm's `pretrained_cfg.input_size`, None where it says nothing."""
    size = read(read(config, "pretrained_cfg", dict, {}), "input_size", (list, tuple))
    if size is None:
        return None
    if len(size) != 3 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(
            f"config.json must have [channels, height, width] as 'input_size', got {shown(size)}"
        )
    return tuple(size[1:])
