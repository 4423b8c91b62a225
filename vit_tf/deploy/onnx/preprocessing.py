"""From pixels to the normalised input of a model."""

from typing import Any

import numpy as np

from vit_tf.deploy.onnx.graph import Graph, Tensor
from vit_tf.deploy.onnx.keras_layers import affine
from vit_tf.preprocessing import Preprocessing
from vit_tf.structure import flat_layers


def emit_pixels(graph: Graph, model: Any, pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Casts uint8 pixels to float32, and normalises them unless the model does so itself."""
    x = graph.cast(pixels, "float32")
    if any(layer.name == "normalization" for layer in flat_layers(model)):
        return x
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    with graph.scope("normalization"):
        return affine(graph, x, 1 / (255 * std), -mean / std)
