"""Vision Transformers for Keras 3."""

from vit_tf import augment, layers
from vit_tf.classifier import load
from vit_tf.flops import count_flops, get_flops
from vit_tf.labels import decode_predictions, imagenet_classes
from vit_tf.models import build_vit
from vit_tf.preprocessing import preprocessing
from vit_tf.variants import list_models
from vit_tf.weights import load_weights, resize, save_weights

__all__ = [
    "augment",
    "build_vit",
    "count_flops",
    "decode_predictions",
    "get_flops",
    "imagenet_classes",
    "layers",
    "list_models",
    "load",
    "load_weights",
    "preprocessing",
    "resize",
    "save_weights",
]
__version__ = "0.1.0"
