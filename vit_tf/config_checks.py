"""The valid values of hyperparameters: of each by itself, and of those that depend on each other."""

from dataclasses import fields

from vit_tf.checks import check_choice, check_int, check_number, check_valid, is_int, require, shown

RESNET_STEMS = ("resnet_v2", "resnet_d")
BATCH_NORM_STEMS = ("pooled", "resnet_d", "mobileclip")
HYBRID_STEMS = (*RESNET_STEMS, "mobileclip")
CHOICES = {
    "pooling": ("token", "avg", "max", "avgmax", "map", "token_avg"),
    "patch_stem": ("conv", "patches", "overlap", "whitened", "pooled", *HYBRID_STEMS),
    "block": ("encoder", "res_post", "parallel_things", "parallel_scaling"),
    "attention": ("softmax", "differential"),
    "mlp": ("mlp", "swiglu", "swiglu_split"),
    "norm": ("layer", "rms"),
    "final_norm": ("tokens", "pooled", "none"),
}
# Switches that also take names: of the parts where the switch is on.
SWITCHES = {"qkv_bias": ("qv",), "sub_norm": ("attention", "mlp")}
COUNTS = (
    *("num_classes", "num_registers", "num_prefix_tokens", "num_full_blocks", "block_index"),
    "query_chunk_size",
)
CHECKED = (  # before the others
    *("image_size", "patch_size", "grid_size", "position_grid", "rotary", "kind", "reference_grid"),
)
RESAMPLING = ("method", "antialias", "align_corners", "offset", "square")  # see `interpolation`
NEEDS_CLASS_TOKEN = ("token", "token_avg")


def check_together(config):
    """Raises a ValueError if hyperparameters contradict each other."""
    check_stem(config)
    check_relative(config)
    if config.takes_any_size and config.position_grid is None:
        raise ValueError(
            f"image_size={config.image_size} needs the grid of the position table: give `position_grid`, "
            "such as that of the images of the training"
        )
    check_widths(config)
    check_heads(config)
    if config.pooling in NEEDS_CLASS_TOKEN and not config.has_class_token:
        raise ValueError(
            f"pooling={config.pooling!r} reads the class token, and class_token=False leaves it out: "
            "choose another pooling, such as 'avg', or keep the token"
        )
    if config.distillation_token and config.pooling != "token":
        raise ValueError(
            f"a distillation token goes with a class token and pooling='token', got {shown(config.pooling)}"
        )
    if config.block == "parallel_scaling" and (config.mlp != "mlp" or config.sub_norm):
        raise ValueError("block='parallel_scaling' goes with mlp='mlp' and sub_norm=False only")
    if config.block == "parallel_scaling" and config.qkv_bias == "qv":
        raise ValueError("block='parallel_scaling' goes with qkv_bias=True or False only, got 'qv'")


def check_widths(config):
    """Raises a ValueError if heads whose width is not given do not divide the width of the model."""
    divisors = {} if config.head_dim else {"num_heads": "choose a divisor, or give `head_dim`"}
    if config.pooling == "map":
        divisors |= {"pool_heads" if config.pool_heads else "num_heads": "choose a divisor"}
    for name, hint in divisors.items():
        count = getattr(config, name)
        if config.hidden_dim % count:
            raise ValueError(f"{name}={count} does not divide hidden_dim={config.hidden_dim}: {hint}")


def check_relative(config):
    """Raises a ValueError if relative positions do not fit the other options."""
    if not config.relative_positions:
        return
    if config.attention != "softmax":
        raise ValueError(f"relative_positions=True needs attention='softmax', got {shown(config.attention)}")
    if config.grid_size is None or None in config.grid_size:
        raise ValueError("relative_positions=True needs a known grid: give `grid_size`, or an image size")


def check_stem(config):
    """Raises a ValueError if the hyperparameters of the stem contradict each other or the image size."""
    config.grid_size  # noqa: B018 (raises an error for sizes that do not fit)
    stem, stem_is = config.patch_stem, f"got {shown(config.patch_stem)}"
    if config.patch_norm and stem != "patches":
        raise ValueError(f"patch_norm=True needs the cut patches: patch_stem='patches', {stem_is}")
    if config.allow_remainder and stem not in ("conv", "mobileclip"):
        raise ValueError(f"allow_remainder=True needs patch_stem='conv' or 'mobileclip', {stem_is}")
    if config.stem_blocks and stem not in (*RESNET_STEMS, "pooled"):
        names = " or ".join(map(repr, (*RESNET_STEMS, "pooled")))
        raise ValueError(f"stem_blocks={config.stem_blocks} needs patch_stem={names}, {stem_is}")
    multiple = {"resnet_v2": 32, "resnet_d": 2}.get(stem, 1)  # of group norms; of the first two convolutions
    if config.stem_width % multiple:
        raise ValueError(
            f"patch_stem={stem!r} needs a multiple of {multiple} as `stem_width`, got {config.stem_width}"
        )
    if stem == "mobileclip" and (config.patch_size != (16, 16) or config.hidden_dim % 4):
        sizes = f"got patch_size={config.patch_size} and hidden_dim={config.hidden_dim}"
        raise ValueError(f"patch_stem='mobileclip' needs patches of 16 and a multiple of 4 as width, {sizes}")


def check_heads(config):
    """Raises a ValueError if the heads of attention do not fit its other options."""
    if config.num_kv_heads and config.num_heads % config.num_kv_heads:
        raise ValueError(
            f"num_kv_heads={config.num_kv_heads} does not divide num_heads={config.num_heads}: "
            "choose a divisor"
        )
    if config.attention == "differential" and config.num_kv_heads not in (None, config.num_heads):
        raise ValueError("attention='differential' has as many heads of keys as of queries: give `num_heads`")
    if config.rotary and config.rotary.kind == "mixed":
        one_set = config.attention == "softmax" and config.num_kv_heads in (None, config.num_heads)
        problem = "rotary positions of kind='mixed' have a set of frequencies per head: they go with"
        require(one_set, f"{problem} attention='softmax' and without `num_kv_heads`")


def check_fields(config):
    """Raises a ValueError unless each field of a config, checked by itself, has a valid value."""
    for field in fields(config):
        check_value(field.name, getattr(config, field.name), field.default)


def check_value(name, value, default):
    """Raises a ValueError that says which values the hyperparameter `name` takes, unless `value` is valid."""
    if name in CHOICES:
        check_choice(name, value, CHOICES[name])
    elif name.endswith("_rate"):
        check_number(name, value, "[0, 1)")
    elif name in SWITCHES:
        is_valid = isinstance(value, bool) or (isinstance(value, str) and value in SWITCHES[name])
        check_valid(name, value, is_valid, f"True or False, or {' or '.join(map(repr, SWITCHES[name]))}")
    elif name in COUNTS:
        check_int(name, value, 0, optional=name == "query_chunk_size")
    elif name == "offset":
        check_number(name, value, "(-inf, inf)")
    elif name in ("norm_epsilon", "layer_scale_init", "temperature"):
        check_number(name, value, "(0, inf)", optional=name == "layer_scale_init")
    elif isinstance(default, bool) or name == "class_token":
        check_valid(name, value, isinstance(value, bool), "True or False", optional=name == "class_token")
    elif name == "activation":
        is_valid = isinstance(value, str) or callable(value)
        check_valid(name, value, is_valid, "the name of an activation")
    elif name == "stem_blocks":
        is_valid = isinstance(value, (tuple, list)) and all(is_int(count) and count > 0 for count in value)
        check_valid(name, value, is_valid, "a tuple of positive ints")
    elif name == "position_resampling":
        is_valid = isinstance(value, dict) and value.keys() <= set(RESAMPLING)
        check_valid(name, value, is_valid, f"a dict of {', '.join(RESAMPLING)}", optional=True)
    elif name not in CHECKED:
        check_int(name, value, 1, optional=name in ("head_dim", "num_kv_heads", "pool_heads", "pool_mlp_dim"))
