import json
from dataclasses import fields

import keras
import numpy as np
import pytest
from conftest import randomize
from support.layer_cases import TOKENS, random

from vit_tf import layers
from vit_tf.config import MLPConfig
from vit_tf.layers.mlp import get_activation

pytestmark = pytest.mark.every_backend


def test_gated_mlp_is_the_same_packed_and_split():
    packed, split = layers.GatedMLP(5), layers.GatedMLP(5, packed=False)
    packed.build(TOKENS), split.build(TOKENS)
    randomize(packed)
    kernel, bias, *rest = packed.get_weights()
    split.set_weights([kernel[:, :5], bias[:5], kernel[:, 5:], bias[5:], *rest])
    np.testing.assert_allclose(packed(random(TOKENS)), split(random(TOKENS)), atol=1e-6)


@pytest.mark.parametrize("mlp, kind", [("mlp", layers.MLP), ("swiglu_split", layers.GatedMLP)])
def test_every_option_is_handed_down(mlp, kind):
    options = dict(
        activation="quick_gelu",
        projection_bias=False,
        sub_norm=True,
        norm="rms",
        norm_epsilon=1e-4,
        dropout_rate=0.1,
    )
    assert {f.name for f in fields(MLPConfig)} == {"mlp_dim", *options}
    expected = MLPConfig(mlp_dim=16, **{**options, "activation": get_activation("quick_gelu")})
    assert all(getattr(expected, f.name) != f.default for f in fields(MLPConfig))
    layer = layers.EncoderBlock(2, 16, mlp=mlp, **options).mlp
    assert type(layer) is kind and layer.config == expected
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    assert keras.saving.deserialize_keras_object(saved).config == expected
