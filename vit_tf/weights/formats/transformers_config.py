"""From the config.json of a model of Hugging Face transformers to hyperparameters.

Reference: https://github.com/huggingface/transformers, the `configuration_*.py` of the models. A key that
config.json leaves out has the default of the model's own configuration.
"""

from vit_tf.checks import require, shown
from vit_tf.config import RotaryConfig
from vit_tf.hub.config_values import MODEL_TYPES, config_value, vision_config, vision_image_size

ACTIVATIONS = dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), "gelu_tanh")
# Defaults that differ from those of ViT, by the first letters of the model type; the first match counts.
DEFAULTS = {
    "dinov2": dict(patch_size=14, layer_norm_eps=1e-6),
    "dinov3": dict(hidden_size=384, intermediate_size=1536, num_attention_heads=6, layer_norm_eps=1e-5),
    "clip": dict(patch_size=32, layer_norm_eps=1e-5, hidden_act="quick_gelu", intermediate_size=3072),
    "siglip": dict(layer_norm_eps=1e-6, hidden_act="gelu_pytorch_tanh", intermediate_size=3072),
    "aimv2": dict(
        patch_size=14,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=24,
        num_attention_heads=8,
        hidden_act="silu",
        rms_norm_eps=1e-5,
        qkv_bias=False,
    ),
    "": {},
}


def variant_from_config(config):
    """Returns the hyperparameters that a config.json of these models describes, as a dict.

    Of a model with a text tower, they are those of the vision tower.

    Raises:
        ValueError: the model type is unknown.
    """
    kind = config_value(config, "model_type", str)
    expected = f"expected one of {', '.join(MODEL_TYPES)}"
    require(kind in MODEL_TYPES, f"config.json has model_type {shown(kind)}, {expected}")
    architectures = str(config_value(config, "architectures", list, []))
    is_classifier = "ForImageClassification" in architectures
    config = next(defaults for start, defaults in DEFAULTS.items() if kind.startswith(start)) | {
        key: value for key, value in vision_config(config).items() if value is not None
    }
    fields = common_fields(config)
    if kind == "deit":  # the distillation token always exists, its head only with a teacher
        teacher = "WithTeacher" in architectures
        fields |= {"distillation_token": True} if teacher else {"num_registers": 1}
    elif kind.startswith("dinov2"):
        fields |= dinov2_fields(config, is_classifier)
    elif kind.startswith("dinov3"):
        fields |= dinov3_fields(config)
    elif kind == "beit":
        fields |= beit_fields(config)
    elif kind == "ijepa":
        fields |= dict(pooling="avg", class_token=False)
    elif kind.startswith("clip"):
        fields |= dict(pre_norm=True, patch_bias=False)
        if is_classifier:  # of the patches before the last norm
            fields |= dict(pooling="avg", class_token=True, final_norm="none")
    elif kind.startswith("siglip"):
        is_mapped = config_value(config, "vision_use_head", bool, True) and not is_classifier
        fields |= dict(pooling="map" if is_mapped else "avg", class_token=False)
    elif kind.startswith("aimv2"):
        fields |= aimv2_fields(config)
    return fields


def common_fields(config):
    """Returns the hyperparameters that all these models have, as a dict."""
    hidden_dim = config_value(config, "hidden_size", int, 768)
    activation = config_value(config, "hidden_act", str, "gelu")
    fields = dict(
        image_size=vision_image_size(config),
        patch_size=config_value(config, "patch_size", (int, list), 16),
        hidden_dim=hidden_dim,
        num_layers=config_value(config, "num_hidden_layers", int, 12),
        num_heads=config_value(config, "num_attention_heads", int, 12),
        mlp_dim=config_value(config, "intermediate_size", int, 4 * hidden_dim),
        activation=ACTIVATIONS.get(activation, activation),
        norm_epsilon=config_value(config, "layer_norm_eps", float, 1e-12),
        qkv_bias=config_value(config, "qkv_bias", bool, True),
        in_channels=config_value(config, "num_channels", int, 3),
    )
    sizes = fields["image_size"], fields["patch_size"]
    if all(isinstance(size, int) and size > 0 for size in sizes) and sizes[0] % sizes[1]:
        fields["allow_remainder"] = True  # as a convolution does
    return fields


def dinov2_fields(config, is_classifier):
    hidden_dim = config_value(config, "hidden_size", int, 768)
    fields = dict(
        mlp_dim=int(hidden_dim * config_value(config, "mlp_ratio", (int, float), 4)),
        layer_scale_init=config_value(config, "layerscale_value", (int, float), 1.0),
        pooling="token_avg" if is_classifier else "token",
    )
    if config_value(config, "use_swiglu_ffn", bool, False):
        fields |= dict(mlp="swiglu", activation="silu")
        fields["mlp_dim"] = (int(fields["mlp_dim"] * 2 / 3) + 7) // 8 * 8
    if config.get("model_type") == "dinov2_with_registers":
        registers = config_value(config, "num_register_tokens", int, 4)
        fields |= dict(num_registers=registers, prefix_positions=False)
    return fields


def beit_fields(config):
    has_table, is_shared, is_relative = (
        config_value(config, f"use_{key}", bool, False)
        for key in (
            "absolute_position_embeddings",
            "shared_relative_position_bias",
            "relative_position_bias",
        )
    )
    is_known = is_relative and not has_table and not is_shared
    require(is_known, "config.json describes a BEiT without a relative position bias in each block")
    is_mean = config_value(config, "use_mean_pooling", bool, True)
    return dict(
        **dict(relative_positions=True, position_table=False, qkv_bias="qv", class_token=True),
        pooling="avg" if is_mean else "token",
        final_norm="pooled" if is_mean else "none",
        layer_scale_init=config_value(config, "layer_scale_init_value", (int, float), 0.1),
    )


def dinov3_fields(config):
    query, key, value = (
        config_value(config, f"{part}_bias", bool, part != "key") for part in ("query", "key", "value")
    )
    biases = [config_value(config, key, bool, True) for key in ("proj_bias", "mlp_bias")]
    is_known = query == value and (query or not key) and len(set(biases)) == 1
    require(
        is_known,
        "config.json has biases of queries, keys, values, projection and MLP that do not go together",
    )
    temperature = config_value(config, "rope_theta", (int, float), 100.0)
    return dict(
        rotary=RotaryConfig(kind="dinov3", temperature=float(temperature), half_rotation=True),
        position_table=False,
        qkv_bias=True if key else "qv" if query else False,
        projection_bias=biases[0],
        num_registers=config_value(config, "num_register_tokens", int, 4),
        layer_scale_init=config_value(config, "layerscale_value", (int, float), 1.0),
        mlp="swiglu_split" if config_value(config, "use_gated_mlp", bool, False) else "mlp",
    )


def aimv2_fields(config):
    """Returns the hyperparameters of AIMv2, whose features are the mean of the patches, as in timm."""
    is_native = config_value(config, "is_native", bool, False)
    hint = "expected one with a position table: false, or a checkpoint of another size"
    require(not is_native, f"config.json has 'is_native': true, AIMv2 of any image size, {hint}")
    return dict(
        **dict(pooling="avg", class_token=False, norm="rms", embedding_norm=True, mlp="swiglu_split"),
        norm_epsilon=config_value(config, "rms_norm_eps", float),
        projection_bias=config_value(config, "mlp_bias", bool, False),
    )
