"""A model as it is exported: one flat graph for inference, from normalised images."""

from dataclasses import dataclass

import keras
import numpy as np

from vit_tf.checks import require
from vit_tf.data.augment.batch import RandomLayer
from vit_tf.structure import STEMS, ViTStructure, flat_layers, rgb_size

MIXING = ("AugMix", "CutMix", "MixUp", "RandAugment")
# Keras's augmentation is active without `training=False`, and ours needs operations that no runtime has.
AUGMENTATION = (
    RandomLayer,
    *(
        getattr(keras.layers, name)
        for name in dir(keras.layers)
        if name.startswith("Random") or name in MIXING
    ),
)


@dataclass(frozen=True)
class InferenceModel:
    """A flat functional model without augmentation, and what stood before its stem.

    Args:
        model: from float32 "images" (b, h, w, 3); shares the layers of the given model.
        scale, offset: three floats each, or None: the given model maps its inputs to the images of `model` by
            `x * scale + offset`.
    """

    model: keras.Model
    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None

    @property
    def statistics(self):
        """(mean, std) of the normalisation `(x / 255 - mean) / std` inside the given model."""
        std = 1 / (255 * np.array(self.scale))
        return tuple((-np.array(self.offset) * std).tolist()), tuple(std.tolist())


def make_inference_model(model: keras.Model) -> InferenceModel:
    """Returns the `InferenceModel` of a functional or sequential model, which may have models inside.

    Raises:
        ValueError: the model is subclassed, has no ViT inside, or takes something other than RGB images.
    """
    is_graph = hasattr(model, "_run_through_graph") or hasattr(model, "_functional")
    require(
        is_graph, f"{type(model).__name__} {model.name!r} has no graph of layers: give a functional model"
    )
    stems = [layer for layer in flat_layers(model) if isinstance(layer, STEMS)]
    require(stems, f"{model.name!r} has no layer that cuts images into patches: give a model of `build_vit`")
    size = rgb_size(model)
    walk = Walk(stems[0])
    images = keras.Input((*size, 3), dtype="float32", name="images")
    flat = keras.Model(images, walk.through(model, images), name=model.name)
    if not walk.is_rescaled:
        return InferenceModel(flat)
    return InferenceModel(flat, tuple(walk.scale.tolist()), tuple(walk.offset.tolist()))


def check_positions(model: keras.Model) -> None:
    """Raises a ValueError for a model whose graph cannot take several image sizes."""
    has_relative = any(block.config.relative_positions for block in ViTStructure(model).blocks.values())
    problem = "relative positions do not allow several image sizes in one graph"
    require(not has_relative, f"{problem}: export each size to its own folder")


class Walk:
    """Calls the layers of a model, and of the models inside, on new inputs.

    Augmentation is left out. So are the rescalings before `stem`, whose product is kept in `scale` and
    `offset`.
    """

    def __init__(self, stem):
        self.stem = stem
        self.is_before_stem, self.is_rescaled = True, False
        self.scale, self.offset = np.ones(3), np.zeros(3)

    def through(self, model, inputs):
        graph = getattr(model, "_functional", model)  # of a Sequential
        return graph._run_through_graph(inputs, call_fn=self.call)  # as keras.models.clone_model does

    def call(self, layer, *args, **kwargs):
        self.is_before_stem &= layer is not self.stem
        if isinstance(layer, keras.Model):
            return self.through(layer, args[0])
        if isinstance(layer, AUGMENTATION):
            return args[0]
        if self.is_before_stem and isinstance(layer, keras.layers.Rescaling):
            self.is_rescaled = True
            self.scale, self.offset = self.scale * layer.scale, self.offset * layer.scale + layer.offset
            return args[0]
        return layer(*args, **kwargs)
