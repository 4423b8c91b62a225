"""What is read from the tokens of a model: a vector per image, or a map of patch features.

Shapes: b images of a batch, n tokens, d model width.
"""

import keras
from keras import ops

from vit_tf.checks import check_choice, require
from vit_tf.embeddings.poolings import POOLINGS
from vit_tf.structure import PATCHES

CLASS_TOKEN = "class_token"
GEM_POWER, GEM_LEAST = 3.0, 1e-6


class PooledTokens(keras.layers.Layer):
    """Reduces tokens to a vector per image.

    It is a layer so that it may call the norm of a model without a second node in the graph of that model.

    Args:
        pooling: one of `POOLINGS`. "gem" is the generalised mean of the patch tokens: the cube root of the
            mean cube of the values, where values below 1e-6 count as 1e-6.
        class_token: slice of the class token, or None.
        patches: slice of the patch tokens.
        norm: a layer, the model's norm of pooled features, or None. It is applied to each part of "cls+avg".

    Input shape: `(b, n, d)`.
    Output shape: `(b, d)`, or `(b, 2 * d)` for "cls+avg"; float32.

    Reference: Radenović et al., "Fine-tuning CNN Image Retrieval with No Human Annotation"
    (https://arxiv.org/abs/1711.02512), eq. 3, for "gem"; Oquab et al., "DINOv2"
    (https://arxiv.org/abs/2304.07193), for "cls+avg", which its linear probes read.
    """

    def __init__(self, pooling, class_token, patches, norm, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.pooling, self.class_token, self.patches, self.norm = pooling, class_token, patches, norm

    def call(self, tokens):
        parts = []
        if self.pooling in ("token", "cls+avg"):
            parts.append(tokens[:, self.class_token.start])
        if self.pooling in ("avg", "cls+avg"):
            parts.append(ops.mean(tokens[:, self.patches], axis=1))
        if self.pooling == "gem":
            powers = ops.maximum(tokens[:, self.patches], GEM_LEAST) ** GEM_POWER
            parts.append(ops.mean(powers, axis=1) ** (1 / GEM_POWER))
        if self.norm is not None:
            parts = [ops.cast(self.norm(part), "float32") for part in parts]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], input_shape[-1] * (2 if self.pooling == "cls+avg" else 1)


class PatchTokens(keras.layers.Layer):
    """Returns the m patch tokens of tokens `(b, n, d)` as rows, float32 `(b, m * d)`.

    Args:
        patches: slice of the patch tokens.
    """

    def __init__(self, patches, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.patches = patches

    def call(self, tokens):
        return ops.reshape(tokens[:, self.patches], self.compute_output_shape((-1, *tokens.shape[1:])))

    def compute_output_shape(self, input_shape):
        return input_shape[0], (self.patches.stop - self.patches.start) * input_shape[-1]


def final_tokens(structure):
    """Returns the tokens after the last block, and after the final norm if the model has one."""
    last = structure.norms.get("final") or list(structure.blocks.values())[-1]
    return last.output


def vector_model(structure, pooling=None):
    """Returns a `keras.Model` from images to one vector per image.

    Args:
        structure: a `ViTStructure`.
        pooling: one of `POOLINGS`; None for the features that the head of the model reads.

    Raises:
        ValueError: an unknown pooling, or one that reads a class token, which the model does not have.
    """
    check_choice("pooling", pooling, POOLINGS, optional=True)
    name, slices = structure.model.name, structure.token_slices
    if pooling is None:
        return make_model(structure, own_features(structure))
    needs_token = pooling in ("token", "cls+avg")
    problem = f"{name!r} has no class token, which the pooling {pooling!r} reads: choose 'avg' or 'gem'"
    require(not needs_token or CLASS_TOKEN in slices, problem)
    layer = PooledTokens(pooling, slices.get(CLASS_TOKEN), slices[PATCHES], structure.norms.get("pooled"))
    return make_model(structure, layer(final_tokens(structure)))


def patch_model(structure):
    """Returns a `keras.Model` from images to the patch tokens as rows, `(b, rows * columns * d)`."""
    layer = PatchTokens(structure.tokens(PATCHES))
    return make_model(structure, layer(final_tokens(structure)))


def make_model(structure, outputs):
    return keras.Model(structure.model.input, outputs, name=structure.model.name)


def own_features(structure):
    """Returns the tensor that the heads read: the pooled and normalised tokens, of two heads the mean."""
    poolings = structure.poolings
    require(poolings, f"{structure.model.name!r} has no pooling: choose {' or '.join(map(repr, POOLINGS))}")
    if len(poolings) > 1:
        return keras.layers.Average(dtype="float32")([pooling.output for pooling in poolings])
    return (structure.norms.get("pooled") or poolings[0]).output
