"""Vision Transformers for Keras 3.

Importing this package imports neither Keras nor a backend: each name is imported when it is first used.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from vit_tf.lazy import AfterImport, lazy_exports

if TYPE_CHECKING:
    from vit_tf import data as data
    from vit_tf import embeddings as embeddings
    from vit_tf import explain as explain
    from vit_tf import flops as flops
    from vit_tf import hub as hub
    from vit_tf import layers as layers
    from vit_tf import plots as plots
    from vit_tf import preprocessing as preprocessing
    from vit_tf import training as training
    from vit_tf import variants as variants
    from vit_tf import weights as weights
    from vit_tf.classifier import load
    from vit_tf.deploy.exporting import export
    from vit_tf.deploy.predictor import Predictor
    from vit_tf.embeddings.extractor import features
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
    "Predictor",
    "attention_distance",
    "attention_maps",
    "attention_rollout",
    "build_vit",
    "class_relevance",
    "count_flops",
    "decode_predictions",
    "export",
    "features",
    "features_to_rgb",
    "forward_features",
    "get_flops",
    "get_preprocessing",
    "grad_cam",
    "imagenet_classes",
    "layers",
    "linear_cka",
    "list_models",
    "load",
    "load_weights",
    "patch_filters",
    "position_similarity",
    "resize_model",
    "save_weights",
]
__version__ = "0.2.0"
__getattr__, __dir__ = lazy_exports(__name__)


def register_layers():
    """Imports the layers that `keras.saving.load_model` must find by name.

    Any module of `vit_tf` may be the first to import Keras. So these modules import only lower layers.
    """
    for name in ("layers", "preprocessing.layer", "data.augment.batch"):
        import_module(f"vit_tf.{name}")


if "keras" in sys.modules:
    register_layers()
else:
    sys.meta_path.insert(0, AfterImport("keras", register_layers))
