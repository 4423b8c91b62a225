"""`build_vit`: the functional wiring of the layers."""

import warnings
from pathlib import Path

import keras

from vit_tf import layers
from vit_tf.variants import ALIASES, get_variant


def build_vit(
    variant="vit_base_patch16_224",
    *,
    num_classes=None,
    image_size=None,
    weights=None,
    include_preprocessing=False,
    classifier_activation=None,
    name=None,
    **overrides,
):
    """Builds a Vision Transformer as a plain functional `keras.Model`.

    Args:
        variant: name of a variant or its alias (`vit_b16`); `vit_tf.list_models()` lists them.
        num_classes: int, width of the head; 0 leaves the head out, and the model gives the pooled
            features. Defaults to the variant's own: 1,000, and 10 for the CIFAR-10 variants.
        image_size: int or (height, width) in pixels. Defaults to the variant's own.
        weights: path of a `.weights.h5` file that such a model saved. None starts at random.
        include_preprocessing: bool. True puts the scaling from [0, 255] to [-1, 1] into the model;
            otherwise it expects images that are scaled already.
        classifier_activation: name or callable of a Keras activation for the head, such as
            "softmax". None gives logits.
        name: name of the model. Defaults to the variant's full name.
        **overrides: any other field of `vit_tf.variants.Variant`, such as `num_layers=6`.

    Returns:
        A model from images `(b, height, width, in_channels)` to float32 logits `(b, num_classes)`,
        or to features `(b, hidden_dim)` when `num_classes` is 0.

    Raises:
        ValueError: an unknown variant or hyperparameter, a value that does not fit, or a weight
            file that is missing or belongs to another model.

    Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words" (https://arxiv.org/abs/2010.11929).
    """
    for key, value in (("num_classes", num_classes), ("image_size", image_size)):
        if value is not None:
            overrides[key] = value
    spec = get_variant(variant, **overrides)
    activation = check_activations(spec, classifier_activation)

    images = keras.Input((*spec.image_size, spec.in_channels), name="images")
    x = images
    if include_preprocessing:
        x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="preprocessing")(x)
    x = embed_patches(x, spec)
    x = layers.PatchEncoder(
        layers.patches.grid_size(spec.image_size, spec.patch_size),
        class_token=spec.pooling == "token",
        name="patch_encoder",
    )(x)
    x = keras.layers.Dropout(spec.position_dropout_rate, name="position_dropout")(x)
    for i in range(spec.num_layers):
        x = layers.EncoderBlock(
            spec.num_heads,
            spec.mlp_dim,
            head_dim=spec.head_dim,
            qkv_bias=spec.qkv_bias,
            activation=spec.activation,
            dropout_rate=spec.dropout_rate,
            attention_dropout_rate=spec.attention_dropout_rate,
            drop_path_rate=spec.drop_path_rate * i / max(1, spec.num_layers - 1),
            layer_scale_init=spec.layer_scale_init,
            norm_epsilon=spec.norm_epsilon,
            name=f"block_{i}",
        )(x)
    x = keras.layers.LayerNormalization(epsilon=spec.norm_epsilon, name="norm")(x)
    x = layers.TokenPooling(spec.pooling, name="pooling")(x)
    if spec.num_classes:
        # float32: under half precision the loss needs all digits of the logits.
        x = keras.layers.Dense(spec.num_classes, activation=activation, dtype="float32", name="head")(x)
    model = keras.Model(images, x, name=name or ALIASES.get(variant, variant))
    if weights is not None:
        load_weights(model, weights)
    return model


def embed_patches(images, spec):
    """Turns images `(b, h, w, c)` into patch tokens `(b, n, d)` by the variant's stem."""
    if spec.patch_stem == "patches":
        patches = layers.Patches(spec.patch_size, name="patches")(images)
        return keras.layers.Dense(spec.hidden_dim, name="patch_embedding")(patches)
    size = dict(hidden_dim=spec.hidden_dim, patch_size=spec.patch_size, name="patch_embedding")
    if spec.patch_stem == "overlap":
        return layers.OverlapPatchEmbedding(activation=spec.activation, **size)(images)
    return layers.PatchEmbedding(**size)(images)


def check_activations(spec, classifier_activation):
    """Returns the head's activation; a ValueError says which of the two names is unknown."""
    for key, value in (
        ("activation", spec.activation),
        ("classifier_activation", classifier_activation),
    ):
        try:
            activation = keras.activations.get(value)
        except ValueError:
            raise ValueError(
                f"`{key}` must be a Keras activation such as 'gelu' or 'softmax', got {value!r}"
            ) from None
    if classifier_activation is not None and not spec.num_classes:
        raise ValueError(
            f"`classifier_activation={classifier_activation!r}` needs a head, and `num_classes=0` "
            "has none: leave one of the two out"
        )
    return activation


def load_weights(model, path):
    """Loads a `.weights.h5` file that a model of the same shape saved.

    Raises:
        ValueError: the path has another ending, is no file, or its weights are another model's.
    """
    path = Path(path)
    if not path.name.endswith(".weights.h5"):
        raise ValueError(f"`weights` must be a path that ends in .weights.h5, got {str(path)!r}")
    if not path.is_file():
        raise ValueError(f"no weights at {str(path)!r}: there is no such file")
    try:
        with warnings.catch_warnings():
            # Keras only warns where layers find no weights in the file.
            warnings.simplefilter("error", UserWarning)
            model.load_weights(path)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise ValueError(
            f"the weights in {str(path)!r} do not fit {model.name}: build the model with the variant "
            f"and the options that saved them ({' '.join(str(error).split())[:300]})"
        ) from error
