"""The table of named variants: plain data, one line a variant.

Names are timm's (https://github.com/huggingface/pytorch-image-models), so that its checkpoints' names
say which variant they fit. Sizes: Ti and S from "Training data-efficient image transformers"
(https://arxiv.org/abs/2012.12877), B, L and H from table 1 of the ViT paper
(https://arxiv.org/abs/2010.11929).
"""

import difflib
import fnmatch
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real

from vit_tf.layers.patches import grid_size, pair

CHOICES = {"pooling": ("token", "avg"), "patch_stem": ("conv", "patches", "overlap")}


@dataclass(frozen=True)
class Variant:
    """Every hyperparameter of a plain ViT. Each field can be overridden in `build_vit` by its name.

    Raises:
        ValueError: a value is of the wrong kind or out of range, or two do not fit each other.
    """

    image_size: int | tuple[int, int]  # pixels: side, or (height, width)
    patch_size: int | tuple[int, int]
    hidden_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    head_dim: int | None = None  # None: hidden_dim // num_heads
    pooling: str = "token"  # "token": class token; "avg": mean of the patches, no class token
    patch_stem: str = "conv"  # "conv", "patches" (Patches + Dense), "overlap" (convolutions)
    qkv_bias: bool = True
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    position_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0  # of the last block; rises linearly from 0 at the first
    layer_scale_init: float | None = None  # None: no LayerScale
    norm_epsilon: float = 1e-6
    activation: str = "gelu"  # any Keras activation; of the MLP and of an overlapping stem
    in_channels: int = 3
    num_classes: int = 1000  # 0: no head

    def __post_init__(self):
        object.__setattr__(self, "image_size", pair(self.image_size, "image_size"))
        object.__setattr__(self, "patch_size", pair(self.patch_size, "patch_size"))
        for field in fields(self):
            check_value(field.name, getattr(self, field.name))
        grid_size(self.image_size, self.patch_size)
        if self.head_dim is None and self.hidden_dim % self.num_heads:
            raise ValueError(
                f"num_heads={self.num_heads} does not divide hidden_dim={self.hidden_dim}: "
                "choose a divisor, or give `head_dim`"
            )


def check_value(name, value):
    """Raises a ValueError that says what the hyperparameter `name` may be, unless `value` is one."""
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    number = isinstance(value, Real) and not isinstance(value, bool)
    if name in CHOICES:
        valid, expected = value in CHOICES[name], " or ".join(repr(c) for c in CHOICES[name])
        expected += suggestion(value, CHOICES[name])
    elif name.endswith("_rate"):
        valid, expected = number and 0 <= value < 1, "a number in [0, 1)"
    elif name == "num_classes":
        valid, expected = whole and value >= 0, "an int from 0 (0 for the pooled features)"
    elif name in ("head_dim", "layer_scale_init"):
        kind, right = ("int", whole) if name == "head_dim" else ("number", number)
        valid, expected = value is None or (right and value > 0), f"a positive {kind} or None"
    elif name == "qkv_bias":
        valid, expected = isinstance(value, bool), "True or False"
    elif name == "norm_epsilon":
        valid, expected = number and value > 0, "a positive number"
    elif name in ("image_size", "patch_size", "activation"):
        return  # checked where they are taken apart
    else:
        valid, expected = whole and value > 0, "a positive int"
    if not valid:
        raise ValueError(f"`{name}` must be {expected}, got {value!r}")


def suggestion(word, words):
    """Returns " (did you mean 'x'?)" with the nearest of `words`, or "" when none is near."""
    nearest = difflib.get_close_matches(str(word), words, n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""


TINY = dict(hidden_dim=192, num_layers=12, num_heads=3, mlp_dim=768)
SMALL = dict(hidden_dim=384, num_layers=12, num_heads=6, mlp_dim=1536)
BASE = dict(hidden_dim=768, num_layers=12, num_heads=12, mlp_dim=3072)
LARGE = dict(hidden_dim=1024, num_layers=24, num_heads=16, mlp_dim=4096)
HUGE = dict(hidden_dim=1280, num_layers=32, num_heads=16, mlp_dim=5120)

VARIANTS = {
    "vit_tiny_patch16_224": Variant(224, 16, **TINY),
    "vit_tiny_patch16_384": Variant(384, 16, **TINY),
    "vit_small_patch32_224": Variant(224, 32, **SMALL),
    "vit_small_patch32_384": Variant(384, 32, **SMALL),
    "vit_small_patch16_224": Variant(224, 16, **SMALL),
    "vit_small_patch16_384": Variant(384, 16, **SMALL),
    "vit_base_patch32_224": Variant(224, 32, **BASE),
    "vit_base_patch32_384": Variant(384, 32, **BASE),
    "vit_base_patch16_224": Variant(224, 16, **BASE),
    "vit_base_patch16_384": Variant(384, 16, **BASE),
    "vit_large_patch32_224": Variant(224, 32, **LARGE),
    "vit_large_patch32_384": Variant(384, 32, **LARGE),
    "vit_large_patch16_224": Variant(224, 16, **LARGE),
    "vit_large_patch16_384": Variant(384, 16, **LARGE),
    "vit_large_patch14_224": Variant(224, 14, **LARGE),
    "vit_huge_patch14_224": Variant(224, 14, **HUGE),
    # Small models for CIFAR-10: the Keras tutorial's with a class token, and our own.
    "vit_cifar10_tutorial": Variant(
        72, 6, 64, 8, 4, 128, dropout_rate=0.1, attention_dropout_rate=0.1, num_classes=10
    ),
    "vit_cifar10": Variant(
        32, 4, 128, 4, 4, 256, pooling="avg", patch_stem="overlap", activation="relu", num_classes=10
    ),
}

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


def list_models(pattern="*"):
    """Returns the sorted names of the variants that match a shell pattern, such as "vit_*_384".

    Aliases (`vit_b16`) are listed only where the pattern matches no full name.
    """
    names = fnmatch.filter(VARIANTS, pattern) or fnmatch.filter(ALIASES, pattern)
    return sorted(names)


def get_variant(name, **overrides):
    """Returns the variant called `name`, or its alias, with some fields replaced.

    Raises:
        ValueError: unknown name, unknown field, or a value that does not fit.
    """
    name = ALIASES.get(name, name)
    if name not in VARIANTS:
        raise ValueError(
            f"unknown variant {name!r}{suggestion(name, [*VARIANTS, *ALIASES])}; "
            f"the variants are {', '.join(list_models())}"
        )
    known = [field.name for field in fields(Variant)]
    for override in overrides:
        if override not in known:
            raise ValueError(
                f"unknown hyperparameter {override!r}{suggestion(override, known)}; "
                f"those of a variant are {', '.join(known)}"
            )
    return replace(VARIANTS[name], **overrides)
