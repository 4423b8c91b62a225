"""Names for models of transformers, whose config.json has hyperparameters but no variant name."""

from dataclasses import replace

from vit_tf.variants import ALIASES, VARIANTS, get_variant

BASE = "vit_base_patch16_224"
# Fields that do not identify an architecture: its use, its initialisation, or the last digits of its outputs.
ACCIDENTAL: dict[str, object] = dict(image_size=1, patch_size=1, in_channels=3, num_classes=0)
ACCIDENTAL |= dict(norm_epsilon=1.0, pooling="token", class_token=True)
FAMILIES = {"vit": "vit_", "deit": "deit_", "dinov2": "dinov2", "dinov2_with_registers": "dinov2"}


def name_variant(kind, fields):
    """Returns (variant, fields): the variant with these hyperparameters, and the fields in which they differ.

    `fields` override those of ViT-B/16; see `huggingface.variant_from_config` for them and for `kind`.
    """
    wanted = get_variant(BASE, **fields)
    names = [name for name, spec in VARIANTS.items() if essence(spec) == essence(wanted)]
    if not names:
        return BASE, fields
    # The first of the equally good names.
    variant = max(names, key=lambda n: (FAMILIES[kind] in n, VARIANTS[n].image_size == wanted.image_size))
    own = VARIANTS[variant]
    other = {key: value for key, value in fields.items() if getattr(wanted, key) != getattr(own, key)}
    other.pop("layer_scale_init", None)  # only an initial value, and the weights are loaded
    return variant, other


def essence(spec):
    """Returns a key that is equal for two variants of the same architecture."""
    scale = None if spec.layer_scale_init is None else 1.0
    pooling = "token" if spec.pooling == "token_avg" else spec.pooling
    apart = spec.patch_size, spec.has_class_token, pooling
    return apart, replace(spec, **ACCIDENTAL, layer_scale_init=scale)


def model_name(kind, variant, fields):
    """Returns the name of a model: its variant, or its kind and sizes if no variant has this architecture."""
    spec = get_variant(variant, **fields)
    if essence(spec) == essence(get_variant(variant)):
        return ALIASES.get(variant, variant)
    patch, size = ("x".join(map(str, dict.fromkeys(sides))) for sides in (spec.patch_size, spec.image_size))
    return f"{kind}_width{spec.hidden_dim}_depth{spec.num_layers}_patch{patch}_{size}"
