"""Vision Transformers for Keras 3."""

from importlib import import_module

from vit_tf import layers
from vit_tf.classifier import load
from vit_tf.explain import (
    attention_distance,
    attention_maps,
    attention_rollout,
    class_relevance,
    features_to_rgb,
    forward_features,
    grad_cam,
    linear_cka,
    patch_filters,
    position_similarity,
)
from vit_tf.flops import count_flops, get_flops
from vit_tf.labels import imagenet_classes
from vit_tf.models import build_vit
from vit_tf.predictions import decode_predictions
from vit_tf.preprocessing import get_preprocessing
from vit_tf.variants import list_models
from vit_tf.weights import load_weights, resize_model, save_weights

__all__ = [
    "attention_distance",
    "attention_maps",
    "attention_rollout",
    "build_vit",
    "class_relevance",
    "count_flops",
    "decode_predictions",
    "features_to_rgb",
    "forward_features",
    "get_flops",
    "grad_cam",
    "imagenet_classes",
    "layers",
    "linear_cka",
    "list_models",
    "load",
    "load_weights",
    "patch_filters",
    "position_similarity",
    "get_preprocessing",
    "resize_model",
    "save_weights",
]
__version__ = "0.2.0"


def __getattr__(name):
    """Imports, when they are asked for, the packages that need more than Keras: matplotlib, grain, Pillow."""
    if name in ("data", "plots", "training"):
        return import_module(f"vit_tf.{name}")
    raise AttributeError(f"module 'vit_tf' has no attribute {name!r}")
