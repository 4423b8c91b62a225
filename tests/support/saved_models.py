"""A small model, and what loading a file into one changes."""

import numpy as np
import pytest
from conftest import randomize
from keras import ops

from vit_tf import build_vit, load_weights

SMALL = dict(
    image_size=(32, 48), patch_size=16, hidden_dim=24, num_layers=2, num_heads=3, mlp_dim=32, num_classes=5
)


AS_TIMM = "bicubic with antialias, as timm does"


def small_vit(**overrides):
    return randomize(build_vit("vit_b16", **{**SMALL, **overrides}))


def values(model):
    return [ops.convert_to_numpy(v) for v in model.weights]


def images(model, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *model.input_shape[1:])).astype("float32")


def assert_refused(model, source, *messages, **options):
    """The source is refused with all the messages, and the model stays as it was."""
    before = values(model)
    with pytest.raises(ValueError) as caught:
        load_weights(model, source, **options)
    for message in messages:
        assert message in str(caught.value), str(caught.value)
    for old, new in zip(before, values(model)):
        np.testing.assert_array_equal(old, new)


def positions(model):
    return ops.convert_to_numpy(model.get_layer("patch_encoder").position_embedding)
