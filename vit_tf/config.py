"""`ViTConfig`: every hyperparameter of a plain ViT, and the options of its blocks."""

from dataclasses import dataclass, fields, replace
from math import prod
from typing import Any

from vit_tf.checks import check_choice, check_valid, pair, shown, suggestion
from vit_tf.config_checks import (
    NEEDS_CLASS_TOKEN,
    RESNET_STEMS,
    check_fields,
    check_heads,
    check_relative,
    check_together,
)
from vit_tf.patch_grid import grid_size, resnet_stride

Tensor = Any  # of Keras, on any backend
Shape = tuple[Any, ...]  # ints, and None for an unknown size
Size = int | tuple[int, int]  # (height, width), or one int for both


@dataclass(frozen=True, kw_only=True)
class RotaryConfig:
    """The options of rotary positions, see `vit_tf.layers.RotaryPositions`.

    Args:
        kind: "axial": patch indices, half of a head's channels for each axis; "dinov3": the same with
            patch centres in [-1, 1] times 2 pi; "mixed": patch indices, and learned frequencies of each
            head along both axes.
        temperature: float, the ratio of the largest to (nearly) the smallest frequency.
        half_rotation: bool, whether channel i is paired with i + k / 2; False pairs neighbours.
        columns_first: bool, whether the first half of the channels is for the columns; False: for the rows.
        offset: float, added to the patch indices of "axial".
        reference_grid: (rows, columns) that the patch indices of "axial" are scaled to; None does not scale.

    Raises:
        ValueError: a value has the wrong type or is out of range, or two values contradict each other.
    """

    kind: str = "axial"
    temperature: float = 10000.0
    half_rotation: bool = False
    columns_first: bool = False
    offset: float = 0.0
    reference_grid: tuple[int, int] | None = None

    def __post_init__(self):
        if self.reference_grid is not None:
            object.__setattr__(self, "reference_grid", pair(self.reference_grid, "reference_grid"))
        check_choice("kind", self.kind, ("axial", "dinov3", "mixed"))
        check_fields(self)
        if self.kind != "axial" and (self.offset or self.reference_grid):
            raise ValueError(f"`offset` and `reference_grid` go with kind='axial', got {shown(self.kind)}")

    def __str__(self):
        others = [field for field in fields(self)[1:] if getattr(self, field.name) != field.default]
        options = ", ".join(f"{field.name}={getattr(self, field.name)}" for field in others)
        return f"{self.kind} ({options})" if options else self.kind


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The options of self-attention.

    `MultiHeadSelfAttention`, the core attention inside it and every encoder block take the fields as keyword
    arguments, hand the config down as a whole, and return the fields in `get_config`. So a new option of
    attention is a field here; it also is a field of `ViTConfig` if variants set it.

    Args:
        num_heads: int.
        head_dim: int, the width k of a head. None is d // num_heads.
        num_kv_heads: int, the number of heads of keys and values, which divides `num_heads`: each serves as
            many neighbouring heads of queries (grouped queries, https://arxiv.org/abs/2305.13245). None is
            `num_heads`.
        attention: "softmax" (`DotProductAttention`) or "differential" (`DifferentialAttention`).
        block_index: int, the depth of the block, which sets the initial lambda of differential attention.
        qkv_bias: bool, whether queries, keys and values have a bias. "qv": queries and values only (BEiT).
        separate_qkv: bool, whether files have the matrices of queries, keys and values one by one. Here they
            always are one matrix.
        projection_bias: bool, whether the output projection has a bias.
        qk_norm: bool, whether the queries and keys of each head are normalised (ViT-22B,
            https://arxiv.org/abs/2302.05442, section 2).
        sub_norm: bool, whether the concatenated heads are normalised before the projection (BEiT-3,
            https://arxiv.org/abs/2208.10442); also the inner values of the MLP in a block. "attention" and
            "mlp" normalise in only one of them.
        rotary: a `RotaryConfig` or a dict of its fields, for rotary positions of queries and keys; or None.
        relative_positions: bool, whether the scores have a learned bias for each offset between two patches,
            see `vit_tf.layers.RelativePositions`; needs `grid_size` and attention="softmax".
        grid_size: (rows, columns) of the patches, which come last among the tokens. None: each call says
            where the tokens lie.
        num_prefix_tokens: int, the number of tokens before the patches, which have no place in the grid.
        norm: "layer" or "rms", the kind of these norms; in a block of all norms.
        norm_epsilon: float, added to the variance in these norms.
        dropout_rate: float in [0, 1), dropout of the output.
        attention_dropout_rate: float in [0, 1), dropout of the attention probabilities.
        query_chunk_size: int, how many queries have their scores in memory at a time, see
            `vit_tf.layers.chunked_attention`; 0 for all. None chooses by the number of tokens.

    Raises:
        ValueError: a value has the wrong type or is out of range.
    """

    num_heads: int
    head_dim: int | None = None
    num_kv_heads: int | None = None
    attention: str = "softmax"
    block_index: int = 0
    qkv_bias: bool | str = True
    separate_qkv: bool = False
    projection_bias: bool = True
    qk_norm: bool = False
    sub_norm: bool | str = False
    rotary: RotaryConfig | None = None
    relative_positions: bool = False
    grid_size: tuple[int, int] | None = None
    num_prefix_tokens: int = 0
    norm: str = "layer"
    norm_epsilon: float = 1e-6
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    query_chunk_size: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "rotary", rotary_config(self.rotary))
        if self.grid_size is not None:
            object.__setattr__(self, "grid_size", pair(self.grid_size, "grid_size"))
        check_fields(self)
        check_heads(self)
        check_relative(self)


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """The options of an MLP; `MLP`, `GatedMLP` and every encoder block take the fields as keyword arguments.

    Args:
        mlp_dim: int, the width between the dense layers.
        activation: name or callable, see `vit_tf.layers.mlp.get_activation`.
        projection_bias: bool, whether the dense layers have biases.
        sub_norm: bool, whether the inner values are normalised before the last layer (BEiT-3); see
            `AttentionConfig` for "attention" and "mlp".
        norm, norm_epsilon: kind and epsilon of that norm, see `AttentionConfig`.
        dropout_rate: float in [0, 1), dropout after each dense layer.

    Raises:
        ValueError: a value has the wrong type or is out of range.
    """

    mlp_dim: int
    activation: str = "gelu"
    projection_bias: bool = True
    sub_norm: bool | str = False
    norm: str = "layer"
    norm_epsilon: float = 1e-6
    dropout_rate: float = 0.0

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class BlockConfig(AttentionConfig, MLPConfig):
    """The options of an encoder block: of its attention, its MLP and its residual branches.

    Args:
        mlp: "mlp" (`MLP`), "swiglu" (`GatedMLP` with one inner matrix) or "swiglu_split" (with two).
        drop_path_rate: float in [0, 1), see `DropPath`; of each branch.
        layer_scale_init: float, see `LayerScale`; of each branch. None for no LayerScale.
        mlp_layer_scale: bool. False leaves out the LayerScale of the MLP.
        **kwargs: the fields of `AttentionConfig` and of `MLPConfig`.

    Raises:
        ValueError: a value has the wrong type or is out of range.
    """

    mlp: str = "mlp"
    drop_path_rate: float = 0.0
    layer_scale_init: float | None = None
    mlp_layer_scale: bool = True


@dataclass(frozen=True)
class ViTConfig:
    """Every hyperparameter of a plain ViT. `build_vit` takes each field by name as an override.

    Raises:
        ValueError: a value has the wrong type or is out of range, or two values contradict each other.
    """

    image_size: Any  # pixels: side, or (height, width); a side of None: any size
    patch_size: int | tuple[int, int]
    hidden_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    head_dim: int | None = None  # None: hidden_dim // num_heads
    num_kv_heads: int | None = None  # heads of keys and values; None: num_heads
    num_full_blocks: int = 0  # blocks at each end of the model whose keys and values have num_heads heads
    # Stem
    # "conv", "patches" (Patches + Dense), "overlap" (convolutions), "whitened", "pooled" (max pooling);
    # networks of hybrids: "resnet_v2", "resnet_d", "mobileclip"
    patch_stem: str = "conv"
    stem_blocks: tuple[int, ...] = ()  # per stage: of "resnet_v2" and "resnet_d"; convolutions of "pooled"
    stem_width: int = 64  # of these and of "pooled": channels of the first convolutions
    patch_bias: bool = True
    patch_norm: bool = False  # normalise the cut pixels; needs "patches"
    embedding_norm: bool = False  # normalise the embedded patches
    allow_remainder: bool = False  # drop the pixels beyond the last whole patch
    class_token: bool | None = None  # None: if the pooling reads it
    distillation_token: bool = False  # DeiT: a second token with its own head
    num_registers: int = 0
    position_table: bool = True  # learned positions, added to the tokens
    prefix_positions: bool = True  # whether the table has rows for the prefix tokens, too
    position_grid: Any = None  # (rows, columns) of the position table; None: the patches of an image
    position_resampling: dict[str, Any] | None = None  # to another grid, see `interpolation.grid_matrices`
    rotary: RotaryConfig | None = None  # rotary positions of queries and keys, with or without a table
    relative_positions: bool = False  # a learned bias of the scores for each offset, in each block
    pre_norm: bool = False  # normalise the tokens before the first block
    # Blocks
    block: str = "encoder"  # "encoder", "res_post", "parallel_things", "parallel_scaling"
    attention: str = "softmax"  # or "differential"
    mlp: str = "mlp"  # "mlp", "swiglu" (one inner matrix), "swiglu_split" (two)
    activation: str = "gelu"  # a Keras activation, "quick_gelu", "gelu_tanh"; also of convolutional stems
    norm: str = "layer"  # or "rms"
    norm_epsilon: float = 1e-6
    qkv_bias: bool | str = True  # "qv": of queries and values only
    separate_qkv: bool = False  # files have a matrix for each of queries, keys and values
    projection_bias: bool = True  # of the output projection of attention, and of the MLP
    qk_norm: bool = False  # normalise the queries and keys of each head
    sub_norm: bool | str = False  # normalise the inner values of both, "attention" or "mlp"
    layer_scale_init: float | None = None  # None: no LayerScale
    mlp_layer_scale: bool = True  # LayerScale of the MLP, too
    query_chunk_size: int | None = None  # queries per chunk; 0: all; None: by the number of tokens
    # Head
    pooling: str = "token"  # "token", "avg", "max", "avgmax", "map" (attention), "token_avg" (both, joined)
    pool_prefix: bool = False  # whether "avg", "max" and "map" read the prefix tokens
    pool_heads: int | None = None  # heads of "map"; None: num_heads
    pool_mlp_dim: int | None = None  # inner width of the MLP of "map"; None: mlp_dim
    final_norm: str = "tokens"  # place of the last norm: "tokens", "pooled" (after the pooling), "none"
    in_channels: int = 3
    num_classes: int = 1000  # 0: no head
    # Training
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    position_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0  # of the last block; rises linearly from 0 at the first

    def __post_init__(self):
        object.__setattr__(self, "image_size", pair(self.image_size, "image_size", unknown=True))
        object.__setattr__(self, "patch_size", pair(self.patch_size, "patch_size"))
        object.__setattr__(self, "rotary", rotary_config(self.rotary))
        if self.position_grid is not None:
            object.__setattr__(self, "position_grid", pair(self.position_grid, "position_grid"))
        check_fields(self)
        object.__setattr__(self, "stem_blocks", tuple(self.stem_blocks))
        check_together(self)

    @property
    def grid_size(self):
        """The number of patches along the height and along the width; None along a side of any size."""
        is_padded = self.patch_stem in RESNET_STEMS
        pad_to = resnet_stride(self.stem_blocks, self.patch_size) if is_padded else 1
        return grid_size(self.image_size, self.patch_size, self.allow_remainder, pad_to)

    @property
    def takes_any_size(self):
        """Whether a side of the images may have any size."""
        return None in self.image_size

    @property
    def table_grid(self):
        """Rows and columns of the position table."""
        return self.position_grid or self.grid_size

    @property
    def native_grid(self):
        """Rows and columns of the patches; those of the position table along a side of any size."""
        return tuple(count or known for count, known in zip(self.grid_size, self.table_grid))

    @property
    def native_size(self):
        """Height and width of the images; those of the position table along a side of any size."""
        sizes = zip(self.image_size, self.table_grid, self.patch_size)
        return tuple(side or cells * patch for side, cells, patch in sizes)

    @property
    def has_class_token(self):
        return self.pooling in NEEDS_CLASS_TOKEN if self.class_token is None else self.class_token

    @property
    def num_prefix_tokens(self):
        return int(self.has_class_token) + int(self.distillation_token) + self.num_registers

    @property
    def least_parameters(self):
        """A lower bound of the number of parameters: those of positions, blocks and head."""
        head_dim = self.head_dim or self.hidden_dim // self.num_heads
        block = 2 * (self.num_heads + (self.num_kv_heads or self.num_heads)) * head_dim + 2 * self.mlp_dim
        positions = prod(self.table_grid) if self.position_table else 0
        return self.hidden_dim * (positions + self.num_layers * block + self.num_classes)

    def block_config(self, index):
        """Returns the `BlockConfig` of encoder block number `index`."""
        options = shared_fields(self, BlockConfig)
        options["drop_path_rate"] *= index / max(1, self.num_layers - 1)
        if self.rotary is None and not self.relative_positions:  # attention has no positions
            options |= {"grid_size": None, "num_prefix_tokens": 0}
        elif self.takes_any_size:  # each call says the grid
            options["grid_size"] = None
        if not self.num_full_blocks <= index < self.num_layers - self.num_full_blocks:
            options["num_kv_heads"] = None
        return BlockConfig(**options, block_index=index)


def override(config, settings):
    """Returns a `ViTConfig` with some fields replaced by those in the dict `settings`.

    A model for images of any size keeps the position table of the size before, unless `settings` has another
    `position_grid`.

    Raises:
        ValueError: an unknown field, or an invalid value.
    """
    known = [field.name for field in fields(config)]
    for name in settings:
        if name not in known:
            raise ValueError(
                f"unknown hyperparameter {shown(name)}{suggestion(name, known)}; "
                f"the hyperparameters are {', '.join(known)}"
            )
    if "image_size" in settings and "position_grid" not in settings:
        any_size = None in pair(settings["image_size"], "image_size", unknown=True)
        settings = {**settings, "position_grid": table_of(config, settings) if any_size else None}
    return replace(config, **settings)


def table_of(config, settings):
    """Returns (rows, columns) of the position table of a config, with the patch size in `settings`."""
    if config.takes_any_size:
        return config.position_grid
    patch_size = pair(settings.get("patch_size", config.patch_size), "patch_size")
    return grid_size(config.image_size, patch_size, allow_remainder=True)


def shared_fields(config, config_class):
    """Returns a dict of those fields of a config that another config class has, too."""
    return {f.name: getattr(config, f.name) for f in fields(config_class) if hasattr(config, f.name)}


def rotary_config(value):
    """Returns the option `rotary`, a `RotaryConfig`, a dict of its fields or None, as a config or None.

    Raises:
        ValueError: the value is neither, or a field is unknown or has an invalid value.
    """
    if value is None or isinstance(value, RotaryConfig):
        return value
    check_valid("rotary", value, isinstance(value, dict), "a `RotaryConfig`, a dict of its fields", True)
    return override(RotaryConfig(), value)
