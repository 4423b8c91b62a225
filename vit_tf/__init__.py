"""Vision Transformers for Keras 3.

Importing this package imports neither Keras nor a backend: each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from wrapt import when_imported

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.classifier import load as load
    from vit_tf.explain import attention_distance as attention_distance
    from vit_tf.explain import attention_maps as attention_maps
    from vit_tf.explain import attention_rollout as attention_rollout
    from vit_tf.explain import class_relevance as class_relevance
    from vit_tf.explain import features_to_rgb as features_to_rgb
    from vit_tf.explain import forward_features as forward_features
    from vit_tf.explain import grad_cam as grad_cam
    from vit_tf.explain import linear_cka as linear_cka
    from vit_tf.explain import patch_filters as patch_filters
    from vit_tf.explain import position_similarity as position_similarity
    from vit_tf.flops import count_flops as count_flops
    from vit_tf.flops import get_flops as get_flops
    from vit_tf.labels import imagenet_classes as imagenet_classes
    from vit_tf.models import build_vit as build_vit
    from vit_tf.predictions import decode_predictions as decode_predictions
    from vit_tf.preprocessing import get_preprocessing as get_preprocessing
    from vit_tf.variants import list_models as list_models
    from vit_tf.weights import load_weights as load_weights
    from vit_tf.weights import resize_model as resize_model
    from vit_tf.weights import save_weights as save_weights

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "classifier": ["load"],
        "explain": [
            "attention_distance",
            "attention_maps",
            "attention_rollout",
            "class_relevance",
            "features_to_rgb",
            "forward_features",
            "grad_cam",
            "linear_cka",
            "patch_filters",
            "position_similarity",
        ],
        "flops": ["count_flops", "get_flops"],
        "labels": ["imagenet_classes"],
        "models": ["build_vit"],
        "predictions": ["decode_predictions"],
        "preprocessing": ["get_preprocessing"],
        "variants": ["list_models"],
        "weights": ["load_weights", "resize_model", "save_weights"],
    },
    submodules=(
        *("data", "explain", "flops", "hub", "layers"),
        *("plots", "preprocessing", "training", "variants", "weights"),
    ),
)
__all__ += ["layers"]


@when_imported("keras")
def register_layers(keras):
    """Imports the layers that `keras.saving.load_model` must find by name.

    A module of `vit_tf` may be the first to import Keras. So these modules must not need those above them.
    """
    for name in ("layers", "preprocessing.transform"):
        import_module(f"vit_tf.{name}")
