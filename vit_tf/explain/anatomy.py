"""Where a built model has its parts: blocks, prefix tokens, patch grid."""

from numbers import Integral

import keras
import numpy as np

from vit_tf import layers
from vit_tf.hyperparameters import suggestion
from vit_tf.layers.blocks import Block

PATCHES = "patches"
PREFIX = ("class_token", "distillation_token", "register_tokens")


class Anatomy:
    """A model of `build_vit`, seen by its parts.

    Args:
        model: a model of `build_vit`, or one that was saved and loaded.

    Raises:
        ValueError: it is another model.
    """

    def __init__(self, model):
        inside = [x for x in getattr(model, "layers", []) if isinstance(x, keras.Model)]
        if not isinstance(model, keras.Model) or not any(isinstance(x, Block) for x in model.layers):
            hint = ": give the ViT inside, `model.get_layer(NAME)`" if inside else ""
            hint = ": give its `model`" if hasattr(model, "preprocessing") else hint
            raise ValueError(
                "expected a model of `vit_tf.build_vit`, got "
                f"{getattr(model, 'name', type(model).__name__)!r}, which has no encoder blocks{hint}"
            )
        self.model = model
        self.blocks = {layer.name: layer for layer in model.layers if isinstance(layer, Block)}
        self.encoder = next(x for x in model.layers if isinstance(x, layers.PatchEncoder))

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
        stems = (layers.Patches, layers.PatchEmbedding, layers.OverlapPatchEmbedding)
        return next(x.patch_size for x in self.model.layers if isinstance(x, stems))

    @property
    def pooling(self):
        """The layer that reduces the tokens to features."""
        kinds = (layers.TokenPooling, layers.AttentionPooling)
        return next(x for x in self.model.layers if isinstance(x, kinds))

    @property
    def all_tokens(self):
        return slice(0, self.tokens(PATCHES).stop)

    def tokens(self, name):
        """Returns which tokens have a name, as a slice.

        Raises:
            ValueError: there are none of that name; it says which there are.
        """
        encoder, places, start = self.encoder, {}, 0
        counts = (int(encoder.class_token), int(encoder.distillation_token), encoder.num_registers)
        for key, count in zip(PREFIX, counts):
            places[key] = slice(start, start + count)
            start += count
        places[PATCHES] = slice(start, start + encoder.grid_size[0] * encoder.grid_size[1])
        there = [key for key, place in places.items() if place.start < place.stop]
        if name not in there:
            raise ValueError(
                f"{self.model.name!r} has no tokens {name!r}: choose {' or '.join(map(repr, there))}"
                f"{suggestion(name, there)}"
            )
        return places[name]

    def choose(self, chosen):
        """Returns the names of blocks, in their order, that are given by number or name; None is all.

        Raises:
            ValueError: there is no such block.
        """
        names = list(self.blocks)
        if chosen is None:
            return names
        if isinstance(chosen, (str, Integral)):
            chosen = [chosen]
        found = set()
        for key in chosen:
            if isinstance(key, Integral) and -len(names) <= key < len(names):
                key = names[key]
            if key not in names:
                raise ValueError(
                    f"{self.model.name!r} has no block {key!r}: choose from {names[0]!r} to {names[-1]!r}, "
                    f"by name or by number from {-len(names)} to {len(names) - 1}"
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
        images = np.asarray(images)
        expected = tuple(self.model.input_shape[1:])
        if images.shape[1:] != expected or images.ndim != 4 or not len(images):
            hint = "resize them, or the model with `vit_tf.resize`"
            if images.shape == expected:
                hint = "a single image goes in as images[None]"
            raise ValueError(
                f"{self.model.name!r} takes images of the shape {('b', *expected)}, got {images.shape}: "
                f"{hint}"
            )
        if images.dtype.kind not in "fiu":
            raise ValueError(f"images must be numbers, got an array of {images.dtype}")
        return images

    def to_grid(self, values):
        """Returns `(..., n)` values of the patches as `(..., rows, columns)`."""
        return values.reshape(*values.shape[:-1], *self.grid_size)
