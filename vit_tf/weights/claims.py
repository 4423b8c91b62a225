"""Compares a config.json with the tensors of its checkpoint, before a model is built from it."""

import math
import re

from vit_tf.checks import require

# A description within SMALL values and FEW_PATCHES is allowed for any weights; a larger one may exceed the
# stored values and positions by these factors.
SMALL, RATIO = 1 << 22, 4
FEW_PATCHES, PATCH_RATIO = 4096, 16


def check_claims(config, tensors):
    """Raises a ValueError if a `ViTConfig` describes a model far larger than the weights, by timm's names."""
    blocks = {match[1] for match in map(re.compile(r"blocks\.(\d+)\.").match, tensors) if match}
    problem = f"config.json describes {config.num_layers:,} blocks, the weights have {len(blocks)}"
    require(config.num_layers <= len(blocks), problem)
    table = tensors.get("pos_embed")
    rows = table.shape[1] if table is not None and len(table.shape) == 3 else 0
    patches = math.prod(config.grid_size)
    problem = f"config.json describes images of {patches:,} patches, the weights have positions for {rows:,}"
    is_plausible = patches <= max(FEW_PATCHES, PATCH_RATIO * rows)
    require(is_plausible, f"{problem}: pass `image_size` if this size is intended")
    stem = math.prod(config.patch_size) * config.in_channels + config.num_registers
    claimed = config.least_parameters + config.hidden_dim * stem
    held = sum(math.prod(tensor.shape) for tensor in tensors.values())
    problem = f"config.json describes a model of {claimed:,} values, the weights have {held:,}"
    require(claimed <= max(SMALL, RATIO * held), problem)
