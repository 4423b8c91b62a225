"""The table of named variants by family: plain data, as a rule one line per variant.

A new variant is a line `"name": ViTConfig(...)` in `FAMILIES` of its family's module; a new module is listed
in `FAMILIES` below. CONTRIBUTING.md says which tests then pin its size.

Names and switches are those of timm 1.0.31 (https://github.com/huggingface/pytorch-image-models, `models/`:
`vision_transformer.py`, `vision_transformer_hybrid.py`, `deit.py` and `eva.py`), so that the name of a
checkpoint says which variant it fits. `num_classes` is that of timm's default checkpoint for the name: 0 for
a checkpoint without a head, the width of the joint space for CLIP. Comments cite the papers.
"""

import fnmatch
from typing import Any

from vit_tf.checks import cut, shown, suggestion
from vit_tf.config import ViTConfig, override
from vit_tf.variants import (
    beit,
    clip,
    deit,
    dinov3,
    eva,
    foundation,
    hybrid,
    perception,
    registers,
    rope,
    siglip,
    small,
    vit,
)

MODULES = (vit, deit, clip, siglip, foundation, registers, beit, hybrid, eva, rope, perception, dinov3, small)
FAMILIES = {  # label: {name: config}
    label: variants for module in MODULES for label, variants in module.FAMILIES.items()
}
VARIANTS = {name: config for variants in FAMILIES.values() for name, config in variants.items()}
ALIASES = {
    "vit_ti16": "vit_tiny_patch16_224",
    "vit_s16": "vit_small_patch16_224",
    "vit_s32": "vit_small_patch32_224",
    "vit_b16": "vit_base_patch16_224",
    "vit_b32": "vit_base_patch32_224",
    "vit_l14": "vit_large_patch14_224",
    "vit_l16": "vit_large_patch16_224",
    "vit_l32": "vit_large_patch32_224",
    "vit_h14": "vit_huge_patch14_224",
}


def family(name: str) -> str | None:
    """Returns the label of a variant's family, such as "DINOv2"; None for an unknown name."""
    return next((label for label, variants in FAMILIES.items() if name in variants), None)


def resampling(name: str) -> dict[str, str | bool]:
    """Returns how timm resamples the weights of a variant to other sizes, as a dict of options."""
    bilinear = family(name) in ("FlexiViT", "RADIO")
    return {
        "method": "bilinear" if bilinear else "bicubic",
        "antialias": not bilinear,
        "align_corners": name in ("vit_base_patch16_radio_v3", "vit_huge_patch16_radio_v3"),
    }


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names of the variants that match a shell pattern, such as "vit_*_384".

    Aliases (`vit_b16`) are listed only if the pattern matches no full name.

    Raises:
        ValueError: the pattern has more than 1,000 characters.
    """
    if len(pattern) > 1000:  # `fnmatch` would take seconds
        raise ValueError(f"a pattern must have at most 1,000 characters, got {len(pattern):,}")
    names = fnmatch.filter(VARIANTS, pattern) or fnmatch.filter(ALIASES, pattern)
    return sorted(names)


def get_variant(name: str, /, **overrides: Any) -> ViTConfig:
    """Returns the `ViTConfig` of a variant, by name or alias, with some fields replaced.

    Args:
        name: str.
        **overrides: fields of `ViTConfig`.

    Raises:
        ValueError: unknown name, unknown field, or an invalid value.
    """
    name = ALIASES.get(name, name) if isinstance(name, str) else name
    if not isinstance(name, str) or name not in VARIANTS:
        nearest = suggestion(name, [*VARIANTS, *ALIASES])
        architecture, _, tag = str(name).partition(".")
        if tag and architecture in VARIANTS:
            nearest = f" (a checkpoint of {architecture!r}: load it with `weights='hf:timm/{name}'`)"
        raise ValueError(
            f"unknown variant {shown(name)}{cut(nearest)}: `vit_tf.list_models()` lists the "
            f"{len(VARIANTS)} names"
        )
    return override(VARIANTS[name], overrides)
