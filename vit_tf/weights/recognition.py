"""Finds the variant of weights that no config.json describes, by the shapes of their tensors."""

import math
import re
from typing import Any

from vit_tf.checks import listing
from vit_tf.config_checks import HYBRID_STEMS
from vit_tf.models import build_vit
from vit_tf.variants import VARIANTS
from vit_tf.weights.fitting import PATCH_KERNEL, unfold_kernels
from vit_tf.weights.formats import timm
from vit_tf.weights.formats.backbones import BACKBONE
from vit_tf.weights.formats.timm import HEAD_TENSORS

BLOCK = re.compile(r"blocks\.(\d+)\.")
POSITIONS = "pos_embed"
USE = ("image_size", "num_classes", "query_chunk_size")  # fields that do not belong to the architecture


def recognise(tensors: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns (variant, fields): the only variant whose weights have the shapes of these tensors.

    Of several variants that are the same model, such as ViT-B/16 and DeiT-B/16, it is the first. Weights of
    another image size give `fields` with the `image_size`, if their position table is a square.

    Args:
        tensors: dict of `LazyTensor` by timm's names, see `vit_tf.weights.open_weights`.

    Raises:
        ValueError: no variant has weights of these shapes, or several have.
    """
    fitting = fitting_variants(tensors)
    exact = {name: size for name, size in fitting.items() if size == VARIANTS[name].image_size}
    models: dict[Any, str] = {}
    for name, size in (exact or fitting).items():
        models.setdefault((architecture(VARIANTS[name]), size), name)
    if not models:
        raise ValueError("no variant has weights of these shapes")
    if len(models) > 1:
        raise ValueError(f"weights of these shapes have {listing(models.values())}")
    (((_, size), name),) = models.items()
    return name, {} if name in exact else {"image_size": size}


def architecture(config):
    """Returns a key that is equal for two variants of the same model, whatever their image size."""
    return tuple((field, value) for field, value in vars(config).items() if field not in USE)


def fitting_variants(tensors):
    """Returns {name: image size} of the variants whose weights have the shapes of the tensors.

    Only one block of each architecture is built, and the head is not compared.
    """
    kernel = tensors.get(PATCH_KERNEL)
    width = kernel.shape[0] if kernel is not None and len(kernel.shape) == 4 else None
    num_layers = len({match[1] for match in map(BLOCK.match, tensors) if match})
    is_hybrid = any(name.startswith(BACKBONE) for name in tensors)
    prefixes, fitting = {}, {}
    for name, config in VARIANTS.items():
        if config.num_layers != num_layers or width not in (None, config.hidden_dim):
            continue
        if is_hybrid != (config.patch_stem in HYBRID_STEMS):  # which take time to build
            continue
        key = architecture(config)
        if key not in prefixes:
            prefixes[key] = prefix_positions(name, tensors)
        size = None if prefixes[key] is None else image_size(config, tensors.get(POSITIONS), prefixes[key])
        if size is not None:
            fitting[name] = size
    return fitting


def prefix_positions(name, tensors):
    """Returns how many rows of the position table of a variant belong to prefix tokens.

    None if its other weights, of one block, have other shapes than the tensors.
    """
    mappings = timm.weight_mappings(build_vit(name, num_layers=1, num_classes=0))
    expected = compared({key: mapping.shape for key, mapping in mappings.items()})
    if compared({key: t.shape for key, t in unfold_kernels(tensors, mappings).items()}) != expected:
        return None
    rows = mappings[POSITIONS].shape[1] if POSITIONS in mappings else 0
    return rows - math.prod(VARIANTS[name].grid_size) if rows else 0


def compared(shapes):
    """Returns the shapes by name that are compared: without heads, positions and all blocks but the first."""
    left = (*HEAD_TENSORS, POSITIONS)
    return {
        name: shape
        for name, shape in shapes.items()
        if name not in left and not name.startswith("pre_logits.") and block_number(name) == 0
    }


def block_number(name):
    match = BLOCK.match(name)
    return int(match[1]) if match else 0


def image_size(config, table, num_prefix):
    """Returns (height, width) of the images whose patches have the rows of a position table.

    It is the image size of the variant if it fits, else that of a square; None if none fits.
    """
    if table is None:
        return config.image_size
    if len(table.shape) != 3:
        return None
    rows, columns = config.grid_size
    count = table.shape[1] - num_prefix
    if count == rows * columns:
        return config.image_size
    side = math.isqrt(max(count, 0))
    if not side or side * side != count:
        return None
    height, width = config.image_size
    return side * (height // rows), side * (width // columns)
