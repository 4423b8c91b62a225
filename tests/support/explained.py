"""Small models and images for the tests of explanations."""

import keras
import numpy as np
import pytest
from conftest import randomize

from vit_tf import build_vit

SMALL = dict(
    image_size=(8, 12), patch_size=4, num_layers=2, hidden_dim=16, num_heads=2, mlp_dim=32, num_classes=3
)


not_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="JAX compiles each operation apart, and others show the same there",
)


def small(**overrides):
    return randomize(build_vit("vit_b16", **{**SMALL, **overrides}), 0.3)


def adding(change):
    """Returns a hook that adds an array to a tensor."""
    return lambda x: x + keras.ops.convert_to_tensor(change)


def some_images(model, count=2):
    return np.random.default_rng(3).normal(size=(count, *model.input_shape[1:])).astype("float32")
