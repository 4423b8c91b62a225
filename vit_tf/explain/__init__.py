"""Seeing inside a built model: what attends to what, which patches matter, what the tokens know.

Every function takes a model of `build_vit` as it is, and gives NumPy arrays, which `vit_tf.plots` draws.
The model is never changed: several threads may explain one model at a time, and predict with it meanwhile.
Not so on JAX: Keras's own `predict`, `predict_on_batch` and `fit` take a model's variables while they run.
"""

from vit_tf.explain.features import (
    features_to_rgb,
    forward_features,
    linear_cka,
    patch_filters,
    position_similarity,
)
from vit_tf.explain.maps import attention_distance, attention_maps
from vit_tf.explain.relevance import attention_rollout, class_relevance, grad_cam

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
