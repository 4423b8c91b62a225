"""Names for models of transformers, whose config.json has hyperparameters but no variant name."""

from vit_tf.variants import ALIASES, VARIANTS, get_variant

BASE = "vit_base_patch16_224"
# Fields that do not identify an architecture, with arbitrary values: its use, its initialisation, or the last
# digits of its outputs.
IGNORED: dict[str, object] = dict(image_size=1, patch_size=1, in_channels=3, num_classes=0)
IGNORED |= dict(norm_epsilon=1.0, pooling="token", class_token=True)
IGNORED |= dict(position_grid=None, position_resampling=None)
# A part of the names of a model's family, by the first letters of its model type; the first match counts.
FAMILIES = {name: name for name in ("beit", "dinov2", "dinov3", "clip", "siglip", "aimv2")} | {
    "deit": "deit_",
    "": "vit_",
}


def name_variant(kind, fields):
    """Returns (variant, fields): the variant with these hyperparameters, and the fields in which they differ.

    `fields` override those of ViT-B/16; see `transformers_config.variant_from_config` for both.
    """
    config = get_variant(BASE, **fields)
    names = [name for name in VARIANTS if architecture(VARIANTS[name]) == architecture(config)]
    if not names:
        return BASE, fields
    part = next(part for start, part in FAMILIES.items() if kind.startswith(start))
    # The first of the equally good names.
    variant = max(names, key=lambda n: (part in n, VARIANTS[n].image_size == config.image_size))
    defaults = VARIANTS[variant]
    fields = {key: x for key, x in fields.items() if getattr(config, key) != getattr(defaults, key)}
    fields.pop("layer_scale_init", None)  # only an initial value, and the weights are loaded
    return variant, fields


def architecture(config):
    """Returns a key that is equal for two configs of the same architecture."""
    scale = None if config.layer_scale_init is None else 1.0
    pooling = "token" if config.pooling == "token_avg" else config.pooling
    others = {**vars(config), **IGNORED, "layer_scale_init": scale}
    return config.patch_size, config.has_class_token, pooling, others


def model_name(kind, variant, fields):
    """Returns the name of a model: its variant, or its kind and sizes if no variant has this architecture."""
    config = get_variant(variant, **fields)
    if architecture(config) == architecture(get_variant(variant)):
        return ALIASES.get(variant, variant)
    sizes = (config.patch_size, config.image_size)
    patch, size = ("x".join(str(side or "any") for side in dict.fromkeys(pair)) for pair in sizes)
    return f"{kind}_width{config.hidden_dim}_depth{config.num_layers}_patch{patch}_{size}"
