"""Loading, resizing and saving weights. Every format is translated to timm's names first."""

from vit_tf.weights.load import TimmWeights, load_weights, open_named, open_weights
from vit_tf.weights.load_report import LoadReport
from vit_tf.weights.resize import resize_model
from vit_tf.weights.save import save_weights

__all__ = [
    "LoadReport",
    "TimmWeights",
    "load_weights",
    "open_named",
    "open_weights",
    "resize_model",
    "save_weights",
]
