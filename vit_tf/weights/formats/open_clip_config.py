"""From OpenCLIP's open_clip_config.json to hyperparameters of the image tower.

Reference: https://github.com/mlfoundations/open_clip, `CLIPVisionCfg` in `model.py`, `VisionTransformer` in
`transformer.py` and `TimmModel` in `timm_model.py`.
"""

from functools import partial

from vit_tf.checks import listing, require, shown
from vit_tf.hub import config_values
from vit_tf.hub.open_clip_folder import CONFIG, MODEL, image_size
from vit_tf.variants import get_variant
from vit_tf.weights.formats import timm
from vit_tf.weights.naming import name_variant

config_value = partial(config_values.config_value, file=CONFIG)
# Settings of towers that no model here has.
UNKNOWN = (
    *("attentional_pool", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn"),
    *("scale_attn_inner", "scale_fc"),
)


def variant_from_config(config):
    """Returns (variant, hyperparameters) of the image tower that the settings of a model describe.

    Raises:
        ValueError: the image tower is no ViT, or one that no model here is.
    """
    model = config_value(config, MODEL, dict)
    vision = config_value(model, "vision_cfg", dict)
    if vision.get("timm_model_name") is not None:
        return of_timm(vision)
    return name_variant("clip", tower_fields(vision, config_value(model, "quick_gelu", bool, False)))


def of_timm(vision):
    """Returns (variant, hyperparameters) of an image tower of timm."""
    name = config_value(vision, "timm_model_name", str)
    pooling = config_value(vision, "timm_pool", str, "avg")
    projection = vision.get("timm_proj", "linear")  # null: the head of timm's model
    is_known = projection in (None, "", "none", "linear")
    hint = "expected a linear layer after the image tower, or none"
    require(is_known, f"{CONFIG} has {shown(projection)} as 'timm_proj', {hint}")
    arguments = dict(global_pool=pooling) if pooling else {}
    variant, fields = timm.variant_from_config(dict(architecture=name, model_args=arguments))
    if projection == "linear":  # the model has its own norms, and only then another pooling
        fields["final_norm"] = get_variant(variant).final_norm
    return variant, fields | dict(image_size=image_size(vision))


def tower_fields(vision, is_quick):
    """Returns the hyperparameters of an image tower of OpenCLIP, as a dict."""
    layers = config_value(vision, "layers", (int, list), 12)
    require(isinstance(layers, int), f"{CONFIG} describes a ResNet, expected a ViT")
    unknown = [key for key in UNKNOWN if vision.get(key)]
    require(
        not unknown, f"{CONFIG} describes an image tower with {listing(unknown)}, which no model here has"
    )
    width = config_value(vision, "width", int, 768)
    pool_type = config_value(vision, "pool_type", str, "tok")
    is_known = pool_type in ("tok", "avg")
    require(is_known, f"{CONFIG} must have 'tok' or 'avg' as 'pool_type', got {shown(pool_type)}")
    is_after = pool_type == "avg" and config_value(vision, "final_ln_after_pool", bool, False)
    norm, activation = (config_value(vision, key, dict, {}) for key in ("norm_kwargs", "act_kwargs"))
    is_tanh = config_value(activation, "approximate", str, "none") == "tanh"
    return dict(
        image_size=image_size(vision),
        patch_size=config_value(vision, "patch_size", (int, list), 16),
        hidden_dim=width,
        num_layers=layers,
        num_heads=width // config_value(vision, "head_width", int, 64),
        mlp_dim=int(width * config_value(vision, "mlp_ratio", (int, float), 4.0)),
        activation="quick_gelu" if is_quick else "gelu_tanh" if is_tanh else "gelu",
        norm_epsilon=config_value(norm, "eps", float, 1e-5),
        layer_scale_init=config_value(vision, "ls_init_value", (int, float)),
        pre_norm=not config_value(vision, "no_ln_pre", bool, False),
        patch_bias=False,
        class_token=True,
        pooling="token" if pool_type == "tok" else "avg",
        final_norm="pooled" if is_after else "tokens",
    )
