"""Explains a built model: attention maps, attribution to patches, features, similarities.

Every function takes a model of `build_vit` and returns NumPy arrays, which `vit_tf.plots` draws.
The functions never change the model: several threads may explain one model at a time, and predict with it
meanwhile. JAX is an exception: `predict`, `predict_on_batch` and `fit` of Keras take the variables away from
a model while they run.
"""

from vit_tf.block_features import forward_features
from vit_tf.explain.maps import attention_distance, attention_maps
from vit_tf.explain.relevance import attention_rollout, class_relevance, grad_cam
from vit_tf.explain.similarity import linear_cka
from vit_tf.explain.visualize import features_to_rgb, patch_filters, position_similarity

__all__ = [
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
]
