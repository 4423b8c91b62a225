"""Published weights: one module a source, all translated to timm's names, then into a model."""

from vit_tf.weights.load import LoadReport, Weights, load_weights, open_weights, save_weights
from vit_tf.weights.resize import resize

__all__ = ["LoadReport", "Weights", "load_weights", "open_weights", "resize", "save_weights"]
