"""Published weights: one module a source, all translated to timm's names, then into a model."""

from vit_tf.weights.load import Weights, load_weights, open_named, open_weights
from vit_tf.weights.report import LoadReport
from vit_tf.weights.resize import resize
from vit_tf.weights.save import save_weights

__all__ = ["LoadReport", "Weights", "load_weights", "open_named", "open_weights", "resize", "save_weights"]
