"""`ViTConfig`: every hyperparameter of a plain ViT, with what each may be."""

import difflib
from dataclasses import dataclass, fields
from numbers import Integral, Real

from vit_tf.checks import shown
from vit_tf.layers.patches import grid_size, pair

CHOICES = {
    "pooling": ("token", "avg", "max", "avgmax", "map", "token_avg"),
    "patch_stem": ("conv", "patches", "overlap", "whitened"),
    "block": ("encoder", "res_post", "parallel_things", "parallel_scaling"),
    "attention": ("softmax", "differential"),
    "mlp": ("mlp", "swiglu", "swiglu_split"),
    "norm": ("layer", "rms"),
    "final_norm": ("tokens", "pooled", "none"),
}
LARGEST = 1 << 31  # of all numbers: what is counted in int32 somewhere
NEEDS_CLASS_TOKEN = ("token", "token_avg")


@dataclass(frozen=True)
class ViTConfig:
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
    # Stem
    patch_stem: str = "conv"  # "conv", "patches" (Patches + Dense), "overlap" (convolutions), "whitened"
    patch_bias: bool = True
    patch_norm: bool = False  # a norm of the cut pixels; needs "patches"
    embedding_norm: bool = False  # a norm of the embedded patches
    allow_remainder: bool = False  # drop pixels where the patch does not divide the image
    class_token: bool | None = None  # None: where the pooling reads it
    distillation_token: bool = False  # DeiT: a second token with a head of its own
    num_registers: int = 0
    prefix_positions: bool = True  # whether those tokens have positions, too
    pre_norm: bool = False  # a norm before the first block
    # Blocks
    block: str = "encoder"  # "encoder", "res_post", "parallel_things", "parallel_scaling"
    attention: str = "softmax"  # or "differential"
    mlp: str = "mlp"  # "mlp", "swiglu" (one inner matrix), "swiglu_split" (two)
    activation: str = "gelu"  # any Keras activation, "quick_gelu", "gelu_tanh"; of an overlapping stem, too
    norm: str = "layer"  # or "rms"
    norm_epsilon: float = 1e-6
    qkv_bias: bool = True
    projection_bias: bool = True  # of the attention's projection and of the MLP
    qk_norm: bool = False  # a norm of each head's queries and keys
    sub_norm: bool = False  # a norm of the attention's and the MLP's inner values
    layer_scale_init: float | None = None  # None: no LayerScale
    query_chunk_size: int | None = None  # queries whose attention is in memory at a time; None: by n; 0: all
    # Head
    pooling: str = "token"  # "token", "avg", "max", "avgmax", "map" (attention), "token_avg" (both, joined)
    pool_prefix: bool = False  # whether means, maxima and "map" see the prefix tokens
    final_norm: str = "tokens"  # the last norm's place: "tokens", "pooled" (behind the pooling), "none"
    in_channels: int = 3
    num_classes: int = 1000  # 0: no head
    # Training
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    position_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0  # of the last block; rises linearly from 0 at the first

    def __post_init__(self):
        object.__setattr__(self, "image_size", pair(self.image_size, "image_size"))
        object.__setattr__(self, "patch_size", pair(self.patch_size, "patch_size"))
        for field in fields(self):
            check_value(field.name, getattr(self, field.name))
        check_together(self)

    @property
    def grid_size(self):
        """Patches along the height and along the width."""
        return grid_size(self.image_size, self.patch_size, self.allow_remainder)

    @property
    def has_class_token(self):
        return self.pooling in NEEDS_CLASS_TOKEN if self.class_token is None else self.class_token

    @property
    def num_prefix_tokens(self):
        return int(self.has_class_token) + int(self.distillation_token) + self.num_registers


def check_together(spec):
    """Raises a ValueError where hyperparameters do not fit each other."""
    grid_size(spec.image_size, spec.patch_size, spec.allow_remainder)
    divided = spec.head_dim is None or spec.pooling == "map"
    if divided and spec.hidden_dim % spec.num_heads:
        raise ValueError(
            f"num_heads={spec.num_heads} does not divide hidden_dim={spec.hidden_dim}: "
            "choose a divisor, or give `head_dim`"
        )
    if spec.pooling in NEEDS_CLASS_TOKEN and not spec.has_class_token:
        raise ValueError(
            f"pooling={spec.pooling!r} reads the class token, and class_token=False leaves it out: "
            "choose another pooling, such as 'avg', or keep the token"
        )
    if spec.distillation_token and spec.pooling != "token":
        raise ValueError(
            f"a distillation token goes with a class token and pooling='token', got {shown(spec.pooling)}"
        )
    if spec.patch_norm and spec.patch_stem != "patches":
        raise ValueError(
            f"patch_norm=True needs the cut patches: patch_stem='patches', got {shown(spec.patch_stem)}"
        )
    if spec.allow_remainder and spec.patch_stem != "conv":
        raise ValueError(f"allow_remainder=True needs patch_stem='conv', got {shown(spec.patch_stem)}")
    if spec.block == "parallel_scaling" and (spec.mlp != "mlp" or spec.sub_norm):
        raise ValueError("block='parallel_scaling' goes with mlp='mlp' and sub_norm=False only")


def check_value(name, value):
    """Raises a ValueError that says what the hyperparameter `name` may be, unless `value` is one."""
    number = isinstance(value, Real) and not isinstance(value, bool) and abs(value) < LARGEST
    whole = number and isinstance(value, Integral)
    default = ViTConfig.__dataclass_fields__[name].default
    if name in CHOICES:
        valid = value in CHOICES[name]
        expected = " or ".join(repr(c) for c in CHOICES[name]) + suggestion(value, CHOICES[name])
    elif name.endswith("_rate"):
        valid, expected = number and 0 <= value < 1, "a number in [0, 1)"
    elif name == "num_classes":
        valid, expected = whole and value >= 0, "an int from 0 (0 for the pooled features)"
    elif name == "num_registers":
        valid, expected = whole and value >= 0, "an int from 0"
    elif name in ("head_dim", "layer_scale_init"):
        kind, right = ("int", whole) if name == "head_dim" else ("number", number)
        valid, expected = value is None or (right and value > 0), f"a positive {kind} or None"
    elif name == "query_chunk_size":
        valid, expected = value is None or (whole and value >= 0), "an int from 0 (0 for no blocks) or None"
    elif isinstance(default, bool) or name == "class_token":
        valid = isinstance(value, bool) or (value is None and name == "class_token")
        expected = "True or False"
    elif name == "norm_epsilon":
        valid, expected = number and value > 0, "a positive number"
    elif name in ("image_size", "patch_size"):
        return  # checked where they are taken apart
    elif name == "activation":
        valid, expected = isinstance(value, str) or callable(value), "the name of an activation"
    else:
        valid, expected = whole and value > 0, "a positive int"
    if not valid:
        raise ValueError(f"`{name}` must be {expected}, got {shown(value)}")


def suggestion(word, words):
    """Returns " (did you mean 'x'?)" with the nearest of `words`, or "" when none is near."""
    nearest = difflib.get_close_matches(str(word), words, n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""
