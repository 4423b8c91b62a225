"""Where a built model has its parts: blocks, prefix tokens, patch grid, pooling, classes."""

import keras
import numpy as np

from vit_tf import layers as vit_layers
from vit_tf.checks import is_int, shown, suggestion
from vit_tf.layers.blocks import Block

PATCHES = "patches"
PREFIX = ("class_token", "distillation_token", "register_tokens")
STEMS = (vit_layers.Patches, vit_layers.PatchEmbedding, vit_layers.OverlapPatchEmbedding)
POOLINGS = (vit_layers.TokenPooling, vit_layers.AttentionPooling)
ACTIVATIONS = (keras.layers.Activation, keras.layers.Softmax)


class ViTStructure:
    """A model of `build_vit`, seen by its parts.

    Args:
        model: a model of `build_vit`, or one that was saved and loaded.

    Raises:
        ValueError: it is another model, or a part of one.
    """

    def __init__(self, model):
        parts = model.layers if isinstance(model, keras.Model) else []
        self.blocks = {layer.name: layer for layer in parts if isinstance(layer, Block)}
        self.encoder = find(parts, vit_layers.PatchEncoder)
        if not self.blocks or self.encoder is None:
            name = getattr(model, "name", type(model).__name__)
            lacks = "image patches at its entrance" if self.blocks else "encoder blocks"
            raise ValueError(
                f"expected a model of `vit_tf.build_vit`, got {shown(name)}, without {lacks}{hint(model)}"
            )
        self.model = model

    @property
    def grid_size(self):
        """Rows and columns of the patch grid."""
        return self.encoder.grid_size

    @property
    def image_size(self):
        return self.model.input_shape[1:3]

    @property
    def patch_size(self):
        """Height and width of a patch in pixels."""
        return find(self.model.layers, STEMS).patch_size

    @property
    def patched_size(self):
        """Height and width of what the patches cover: the image, but for a remainder right and below."""
        return tuple(count * size for count, size in zip(self.grid_size, self.patch_size))

    @property
    def poolings(self):
        """The layers that reduce tokens to features: two in a distilled model."""
        return [layer for layer in self.model.layers if isinstance(layer, POOLINGS)]

    @property
    def pooling(self):
        """The first of them, or None."""
        return next(iter(self.poolings), None)

    @property
    def pools_by_attention(self):
        """Whether a learned query reads the tokens, `pooling="map"`."""
        return isinstance(self.pooling, vit_layers.AttentionPooling)

    @property
    def has_head(self):
        """Whether a Dense behind the pooling gives classes."""
        after = self.model.layers[self.model.layers.index(self.pooling) :] if self.poolings else []
        return find(after, keras.layers.Dense) is not None

    def logits(self):
        """Returns the symbolic outputs before their activation, a list.

        Raises:
            ValueError: the model has no head.
        """
        if not self.has_head:
            raise ValueError(
                f"{self.model.name!r} has no head, and so no classes: build it with `num_classes`, or put a "
                "Dense behind its features"
            )
        outputs = [before_activations(x) for x in keras.tree.flatten(self.model.output)]
        if len({x.shape for x in outputs}) > 1:
            raise ValueError(
                f"{self.model.name!r} gives outputs of several shapes, {[x.shape for x in outputs]}: give a "
                "`keras.Model` of the one with the classes"
            )
        return outputs

    @property
    def num_tokens(self):
        return self.tokens(PATCHES).stop

    def tokens(self, name):
        """Returns which tokens have a name, as a slice.

        Raises:
            ValueError: there are none of that name; it says which there are.
        """
        places = self.token_slices()
        if name not in places:
            raise ValueError(
                f"{self.model.name!r} has no tokens {shown(name)}: choose {' or '.join(map(repr, places))}"
                f"{suggestion(name, places)}"
            )
        return places[name]

    def token_slices(self):
        """Returns {name: slice} of the tokens that there are, in their order."""
        encoder, places, start = self.encoder, {}, 0
        counts = (int(encoder.class_token), int(encoder.distillation_token), encoder.num_registers)
        patches = encoder.grid_size[0] * encoder.grid_size[1]
        for name, count in zip((*PREFIX, PATCHES), (*counts, patches)):
            if count:
                places[name] = slice(start, start + count)
            start += count
        return places

    def pooled_rows(self):
        """Returns the share `(n,)` of each token in what the pooling reads; a learned query's are even."""
        rows = np.zeros(self.num_tokens, "float32")
        for pooling in self.poolings:
            kind = getattr(pooling, "pooling", "map")
            of_one_token = {"token": 1, "token_avg": 0.5}.get(kind, 0)
            if of_one_token:
                rows[pooling.token_index] += of_one_token
            rest = rows[pooling.num_prefix_tokens :]
            rest += (1 - of_one_token) / len(rest)
        return rows / max(1, len(self.poolings))

    def pooled_tokens(self):
        """Returns the names of the tokens that the pooling reads."""
        rows = self.pooled_rows()
        return [name for name, place in self.token_slices().items() if rows[place].any()]

    def choose(self, chosen):
        """Returns the names of blocks, in their order, that are given by number or name; None is all.

        Raises:
            ValueError: there is no such block.
        """
        names = list(self.blocks)
        found = set()
        for key in names if chosen is None else as_list(chosen):
            number = is_int(key)
            if number and -len(names) <= key < len(names):
                key = names[key]
            if key not in names:
                raise ValueError(
                    f"{self.model.name!r} has no block {shown(key)}: choose from {names[0]!r} to "
                    f"{names[-1]!r}, by name or by number from {-len(names)} to {len(names) - 1}"
                )
            found.add(key)
        if not found:
            raise ValueError("no block was chosen: give `layers` some, or None for all")
        return [name for name in names if name in found]

    def check_images(self, images):
        """Returns images as an array that the model takes.

        Raises:
            ValueError: they are none.
        """
        name, given, expected = self.model.name, images, tuple(self.model.input_shape[1:])
        takes = f"{name!r} takes images of the shape {('b', *expected)}"
        try:
            images = np.asarray(given)
        except ValueError:
            raise ValueError(f"{takes}, got several shapes: resize them") from None
        if images.dtype.kind not in "fiu" or not images.ndim:
            what = f"an array of {images.dtype}" if images.ndim else shown(given)
            raise ValueError(f"{takes}, got {what}: `vit_tf.get_preprocessing` reads files and pictures")
        if images.shape[1:] != expected or not len(images):
            raise ValueError(f"{takes}, got {images.shape}: {shape_hint(images.shape, expected)}")
        if images.dtype.kind in "iu" and not any(x.name == "normalization" for x in self.model.layers):
            raise ValueError(
                f"{name!r} takes normalised images, got {images.dtype}: use `vit_tf.get_preprocessing`, or "
                "build it with `include_preprocessing=True`; where it learned from pixels, give float32"
            )
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise ValueError("images must be finite, got NaN or infinite values")
        return images

    def to_grid(self, values):
        """Returns `(..., n)` values of the patches as `(..., rows, columns)`."""
        return values.reshape(*values.shape[:-1], *self.grid_size)


def find(parts, kinds):
    """Returns the first layer of a kind, or None."""
    return next((layer for layer in parts if isinstance(layer, kinds)), None)


def producing_layer(tensor):
    """Returns the layer whose output a symbolic tensor is."""
    return tensor._keras_history.operation


def before_activations(tensor):
    """Returns the symbolic tensor that the activations behind a head take, its Dense layer's own included."""
    layer = producing_layer(tensor)
    if isinstance(layer, ACTIVATIONS):
        return before_activations(layer.input)
    if isinstance(layer, keras.layers.Dense) and layer.activation is not keras.activations.linear:
        products = keras.ops.matmul(layer.input, layer.kernel)
        return products if layer.bias is None else products + layer.bias
    return tensor


def as_list(chosen):
    """Returns one or several numbers or names as a list."""
    if isinstance(chosen, (list, tuple, set, range, np.ndarray)):
        return list(chosen)
    return [chosen]


def hint(model):
    """Returns where the model may be that was meant."""
    if hasattr(model, "preprocessing"):
        return ": give its `model`"
    inside = any(isinstance(layer, keras.Model) for layer in getattr(model, "layers", []))
    return ": give the ViT inside, `model.get_layer(NAME)`" if inside else ""


def shape_hint(shape, expected):
    if shape == expected:
        return "a single image goes in as images[None]"
    if len(shape) == 4 and (shape[2], shape[3], shape[1]) == expected:
        return "channels come last, images.transpose(0, 2, 3, 1)"
    return "resize them, or the model with `vit_tf.resize_model`"
