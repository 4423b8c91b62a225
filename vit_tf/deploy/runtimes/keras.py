"""Keras itself, on its backend: for models in memory and for .keras files."""

from threading import Lock

import keras
import numpy as np

from vit_tf.deploy.runtimes.interface import Runtime, Signature
from vit_tf.structure import ViTStructure


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
            outputs = self.model.predict_on_batch(images.astype("float32", copy=False))
        return [np.asarray(output, "float32") for output in keras.tree.flatten(outputs)]


class KerasFileRuntime(KerasRuntime):
    """A .keras file, which `vit_tf.deploy.quantize` wrote: see `KerasRuntime`.

    Args:
        path: of model.keras.
        manifest: its `Manifest`.
        threads: ignored: the backend decides.
    """

    def __init__(self, path, manifest, threads):
        super().__init__(keras.models.load_model(path, compile=False))
        self.signature = manifest


def signature_of(model):
    """Returns the `Signature` of a model of `build_vit`, or of a model that extends one."""
    try:
        structure = ViTStructure(model, nested=True)
    except ValueError:  # another kind of model
        takes_pixels, has_head = False, True
    else:
        takes_pixels, has_head = structure.normalization is not None, bool(structure.heads)
    kind = "logits" if has_head else "features"
    return Signature(
        input_kind="uint8" if takes_pixels else "normalized",
        image_size=tuple(model.input_shape[1:3]),
        num_outputs=model.outputs[0].shape[-1],
        output_names=(kind, f"distillation_{kind}")[: len(model.outputs)],
    )
