"""`build_vit`: the functional wiring of the layers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import keras

from vit_tf import layers
from vit_tf.checks import shown
from vit_tf.config import override
from vit_tf.config_checks import RESNET_STEMS
from vit_tf.layers.token_dense import without_initial_values
from vit_tf.memory import paused_collection
from vit_tf.variants import ALIASES, get_variant, resampling

if TYPE_CHECKING:
    from vit_tf.preprocessing import Preprocessing
    from vit_tf.weights import TimmWeights

BLOCKS = {
    "encoder": layers.EncoderBlock,
    "res_post": layers.ResPostBlock,
    "parallel_things": layers.ParallelThingsBlock,
    "parallel_scaling": layers.ParallelScalingBlock,
}
OVERLAPPING_STEMS = {
    "overlap": layers.OverlapPatchEmbedding,
    "whitened": layers.WhitenedPatchEmbedding,
    "pooled": layers.PooledPatchEmbedding,
}
DEFAULT = "vit_base_patch16_224"


def build_vit(
    variant: str | None = None,
    *,
    num_classes: int | None = None,
    image_size: Any = None,
    weights: str | PathLike | TimmWeights | None = None,
    include_preprocessing: bool | Preprocessing = False,
    classifier_activation: str | Callable | None = None,
    separate_heads: bool = False,
    name: str | None = None,
    **overrides: Any,
) -> keras.Model:
    """Builds a Vision Transformer as a plain functional `keras.Model`.

    Args:
        variant: name of a variant or its alias (`vit_b16`); `vit_tf.list_models()` lists them. Defaults
            to what the config.json of `weights` describes; for weights without it, to the only variant whose
            weights have their shapes; without weights, to ViT-B/16.
        num_classes: int, width of the head; 0 leaves the head out, and the model returns the pooled
            features. Defaults to the width of the head in `weights`, else to that of the variant: 1,000
            for most, 10 for the CIFAR-10 variants. If the width differs from that in `weights`, the head
            starts at random.
        image_size: int or (height, width) in pixels. Defaults to that of the variant. A side of None takes
            any size, as in `(None, None)`: the model then keeps the position table of the variant's size, or
            of that in the config.json of `weights`, and each call resamples the table to the patches of its
            images, as `load_weights` does for a model of their size. Images of one call have one size.
        weights: source of published weights, see `vit_tf.load_weights`: a file, a folder, "hf:owner/name",
            or "cifar10", the small trained model of the package. None starts with random values: Glorot's
            uniform for the kernels of all families. timm starts with a normal distribution of 0.02; in EVA
            and BEiT it divides the last kernels of attention and MLP of block i (from 1) by sqrt(2 i), and
            the head by 1,000.
        include_preprocessing: bool. True makes the normalisation a part of the model, which then takes images
            in [0, 255]. Mean and standard deviation are those in the config.json of `weights`, else those of
            timm's default checkpoint for the variant (see `vit_tf.get_preprocessing`). A
            `vit_tf.preprocessing.Preprocessing` sets its own.
        classifier_activation: name or callable of a Keras activation for the head, such as
            "softmax". None returns logits.
        separate_heads: bool, for variants with a distillation token: True returns the logits of both heads
            instead of their mean.
        name: name of the model. Defaults to the full name of the variant; for weights of transformers that
            fit no variant, to their kind and sizes.
        **overrides: any other field of `vit_tf.config.ViTConfig`, such as `num_layers=6`.

    Returns:
        A model from images `(b, height, width, in_channels)` to float32 logits `(b, num_classes)`,
        or to features `(b, hidden_dim)` when `num_classes` is 0; to a pair with `separate_heads`.

    Raises:
        ValueError: an unknown variant or hyperparameter, an invalid value, or weights that cannot be read or
            belong to another model.

    Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words" (https://arxiv.org/abs/2010.11929).
    """
    for key, value in (("num_classes", num_classes), ("image_size", image_size)):
        if value is not None:
            overrides[key] = value
    source: Any = weights
    fields: dict[str, Any] = {}
    is_described = variant is None
    if weights is not None and not str(weights).endswith(".weights.h5"):
        from vit_tf.weights import TimmWeights, open_weights

        source = weights if isinstance(weights, TimmWeights) else open_weights(weights)
        variant, fields = source.describe(variant)
    variant = variant or DEFAULT
    config = configure(variant, fields, overrides, source)
    if hasattr(source, "check_head"):
        source.check_head(config)
    activation = check_activations(config, classifier_activation)
    if separate_heads and not config.distillation_token:
        raise ValueError(f"`separate_heads=True` needs a distillation token, and {variant!r} has none")

    has_weights = weights is not None
    with paused_collection(), without_initial_values() if has_weights else contextlib.nullcontext():
        images = keras.Input((*config.image_size, config.in_channels), name="images")  # type: ignore[misc]  # a pair
        x = images
        if include_preprocessing:
            x = normalization(include_preprocessing, variant, source, config.in_channels)(x)
        x = classify(encode(x, config), config, activation, separate_heads)
        model = keras.Model(images, x, name=ALIASES.get(variant, variant))
    if has_weights:
        from vit_tf.weights import load_weights

        load_weights(model, source)  # the name of the model sets how weights are resampled
    if name is not None:
        model.name = name
    elif is_described and hasattr(source, "model_name"):
        model.name = source.model_name(variant, {**fields, **overrides})
    return model


def encode(x, config):
    """Returns the tokens `(b, n, d)` of normalised images after all blocks."""
    x = embed_patches(x, config)
    positions = {}
    if config.rotary is not None and config.takes_any_size:
        positions["grid"] = layers.PatchGrid(name="patch_grid")(x)
    x = add_tokens(x, config)
    for i in range(config.num_layers):
        x = make_block(config, i)(x, **positions)  # its DropPath rate: `ViTConfig.block_config`
    return make_norm(config, "norm")(x) if config.final_norm == "tokens" else x


def configure(variant, fields, overrides, source):
    """Returns the `ViTConfig` of a variant, with the fields that its weights set, then those of the user."""
    config = override(get_variant(variant, **fields), overrides)
    if not config.takes_any_size or config.position_resampling is not None:
        return config
    name = ALIASES.get(variant, variant)
    options = source.position_resampling(name) if hasattr(source, "position_resampling") else resampling(name)
    return replace(config, position_resampling=options)


def normalization(settings, variant, source, in_channels):
    """Returns the layer that normalises images in [0, 255].

    `settings` is a `Preprocessing`, or True for that of the weights in `source`, else of the variant.
    """
    from vit_tf.preprocessing import get_preprocessing

    if settings is not True:
        return settings.normalization()
    if in_channels != 3:  # published statistics are for red, green and blue
        return keras.layers.Rescaling(1 / 127.5, offset=-1, name="normalization")
    return get_preprocessing(getattr(source, "preprocessing_config", None) or variant).normalization()


def make_norm(config, name):
    return layers.norms.make_norm(config.norm, config.norm_epsilon, None, name)


def embed_patches(images, config):
    """Turns images `(b, h, w, c)` into patch tokens `(b, n, d)` by the stem.

    For images of any size the result is a map `(b, rows, columns, d)`, which says the grid to the layers that
    know positions: to `PatchEncoder`, which makes tokens of it, and to rotary positions by `PatchGrid`.
    """
    size = dict(patch_size=config.patch_size, flatten=not config.takes_any_size)
    size |= dict(hidden_dim=config.hidden_dim, name="patch_embedding")
    if config.patch_stem == "patches":
        x = layers.Patches(config.patch_size, not config.takes_any_size, name="patches")(images)
        if config.patch_norm:
            x = make_norm(config, "patch_norm")(x)
        x = keras.layers.Dense(config.hidden_dim, use_bias=config.patch_bias, name="patch_embedding")(x)
    elif config.patch_stem in OVERLAPPING_STEMS:
        is_pooled = config.patch_stem == "pooled"
        options = dict(stem_width=config.stem_width, blocks=config.stem_blocks) if is_pooled else {}
        stem = OVERLAPPING_STEMS[config.patch_stem]
        x = stem(activation=config.activation, **options, **size)(images)
    elif config.patch_stem in RESNET_STEMS:
        options = dict(kind=config.patch_stem, width=config.stem_width, blocks=config.stem_blocks)
        x = layers.ResNetEmbedding(**size, **options)(images)
    elif config.patch_stem == "mobileclip":
        options = dict(activation=config.activation, allow_remainder=config.allow_remainder)
        x = layers.MobileCLIPEmbedding(**size, **options)(images)
    else:
        x = layers.PatchEmbedding(use_bias=config.patch_bias, allow_remainder=config.allow_remainder, **size)(
            images
        )
    return make_norm(config, "embedding_norm")(x) if config.embedding_norm else x


def add_tokens(patches, config):
    """Turns patch tokens `(b, n, d)`, or their map, into the input of the first block, `(b, p + n, d)`."""
    x = layers.PatchEncoder(
        config.grid_size,
        class_token=config.has_class_token,
        distillation_token=config.distillation_token,
        num_registers=config.num_registers,
        prefix_positions=config.prefix_positions,
        position_table=config.position_table,
        position_grid=config.position_grid,
        resampling=config.position_resampling,
        name="patch_encoder",
    )(patches)
    x = layers.Dropout(config.position_dropout_rate, name="position_dropout")(x)
    return make_norm(config, "pre_norm")(x) if config.pre_norm else x


def make_block(config, index):
    """Returns the encoder block number `index`."""
    return BLOCKS[config.block](**vars(config.block_config(index)), name=f"block_{index}")


def pool(tokens, config, name, token_index):
    """Reduces tokens `(b, p + n, d)` to features `(b, d)`; to `(b, 2 * d)` for "token_avg"."""
    num_prefix_tokens = 0 if config.pool_prefix else config.num_prefix_tokens
    if config.pooling == "map":
        shared = {key: getattr(config, key) for key in ("activation", "norm", "norm_epsilon")}
        heads, mlp_dim = config.pool_heads or config.num_heads, config.pool_mlp_dim or config.mlp_dim
        return layers.AttentionPooling(
            heads, mlp_dim, num_prefix_tokens=num_prefix_tokens, name=name, **shared
        )(tokens)
    return layers.TokenPooling(config.pooling, token_index, num_prefix_tokens, name=name)(tokens)


def classify(tokens, config, activation, separate_heads):
    """Turns the tokens of the last block into features or logits; into a pair with `separate_heads`."""
    names = [("pooling", "head", 0)]
    if config.distillation_token:
        names.append(("distillation_pooling", "distillation_head", 1))
    outputs = []
    for pooling_name, head_name, token_index in names:
        x = pool(tokens, config, pooling_name, token_index)
        if config.final_norm == "pooled":
            x = make_norm(config, "pooled_norm")(x)
        if config.num_classes:
            # float32 under half precision, too: the loss needs precise logits.
            x = keras.layers.Dense(config.num_classes, dtype="float32", name=head_name)(x)
        outputs.append(x)
    if len(outputs) == 2 and not separate_heads:
        dtype = "float32" if config.num_classes else None
        outputs = [keras.layers.Average(dtype=dtype, name="average")(outputs)]
    if activation is not keras.activations.linear:
        names = ("probabilities", "distillation_probabilities")
        outputs = [
            keras.layers.Activation(activation, dtype="float32", name=name)(x)
            for name, x in zip(names, outputs)
        ]
    return outputs[0] if len(outputs) == 1 else outputs


def check_activations(config, classifier_activation):
    """Returns the activation of the head.

    Raises:
        ValueError: an unknown activation, or a `classifier_activation` without a head.
    """
    values = {"activation": config.activation, "classifier_activation": classifier_activation}
    for key, value in values.items():
        try:
            activation = layers.mlp.get_activation(value)
        except ValueError:
            raise ValueError(
                f"`{key}` must be a Keras activation such as 'gelu' or 'softmax', 'quick_gelu' or "
                f"'gelu_tanh', got {shown(value)}"
            ) from None
    if classifier_activation is not None and not config.num_classes:
        raise ValueError(
            f"`classifier_activation={classifier_activation!r}` needs a head, and `num_classes=0` "
            "leaves the head out: give only one of the two"
        )
    return activation
