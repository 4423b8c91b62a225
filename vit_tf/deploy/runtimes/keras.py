"""Keras itself, on its backend: for models in memory."""

from threading import Lock

import keras
import numpy as np

from vit_tf.deploy.runtimes.interface import Runtime, Signature


class KerasRuntime(Runtime):
    """A model of `build_vit`, which one thread at a time uses: see `Runtime`.

    Args:
        model: the `keras.Model`. With `include_preprocessing` it takes uint8 images.
    """

    name = "keras"

    def __init__(self, model):
        super().__init__(signature_of(model))
        self.model = model
        self.lock = Lock()

    def compute(self, images):
        with self.lock:
            outputs = self.model.predict_on_batch(images)
        return [np.asarray(output, "float32") for output in keras.tree.flatten(outputs)]


def signature_of(model):
    """Returns the `Signature` of a model of `build_vit`."""
    names = {layer.name for layer in model.layers}
    has_head = "head" in names
    return Signature(
        input_kind="uint8" if "normalization" in names else "normalized",
        image_size=tuple(model.input_shape[1:3]),
        num_outputs=model.outputs[0].shape[-1],
        output_names=("logits" if has_head else "features", "distillation_logits")[: len(model.outputs)],
    )
