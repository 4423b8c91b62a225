"""Compares a config.json with the tensors of its checkpoint, before a model is built from it."""

import math
import re

from vit_tf.checks import require

SMALL, RATIO = 1 << 22, 4  # always allowed values, and allowed described values per stored value
FEW_PATCHES, PATCH_RATIO = 4096, 16


def check_claims(spec, tensors):
    """Raises a ValueError if a `ViTConfig` describes a model far larger than the weights, by timm's names."""
    blocks = {match[1] for match in map(re.compile(r"blocks\.(\d+)\.").match, tensors) if match}
    found = f"config.json describes {spec.num_layers:,} blocks, the weights have {len(blocks)}"
    require(spec.num_layers <= len(blocks), found)
    table = tensors.get("pos_embed")
    rows = table.shape[1] if table is not None and len(table.shape) == 3 else 0
    patches = math.prod(spec.grid_size)
    found = f"config.json describes images of {patches:,} patches, the weights have positions for {rows:,}"
    is_plausible = patches <= max(FEW_PATCHES, PATCH_RATIO * rows)
    require(is_plausible, f"{found}: pass `image_size` if this size is intended")
    claimed = num_values(spec)
    held = sum(math.prod(tensor.shape) for tensor in tensors.values())
    found = f"config.json describes a model of {claimed:,} values, the weights have {held:,}"
    require(claimed <= max(SMALL, RATIO * held), found)


def num_values(spec):
    """Returns the number of values in the large weights of a model: matrices, positions, tokens."""
    width = spec.hidden_dim
    inner = spec.num_heads * (spec.head_dim or width // spec.num_heads)
    stem = math.prod(spec.patch_size) * spec.in_channels + math.prod(spec.grid_size) + spec.num_registers
    return width * (spec.num_layers * (4 * inner + 2 * spec.mlp_dim) + stem + spec.num_classes)


def check_head(spec, tensors):
    """Raises a ValueError if the head does not fit the width of the model's features."""
    head = tensors.get("head.weight")
    widths = (spec.hidden_dim, 2 * spec.hidden_dim)  # class token and mean joined
    if head is not None and head.shape[0] == spec.num_classes and head.shape[1] not in widths:
        raise ValueError(f"the weights have a head of {head.shape[1]} features, the model {spec.hidden_dim}")
