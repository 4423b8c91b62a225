import json
from dataclasses import fields

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.layer_cases import TOKENS, random

from vit_tf import layers
from vit_tf.config import AttentionConfig, RotaryConfig

pytestmark = pytest.mark.every_backend


def test_attention_scores_on_request():
    layer = layers.MultiHeadSelfAttention(2, attention_dropout_rate=0.5)
    layer.build(TOKENS)
    randomize(layer)
    x = random(TOKENS)
    output, scores = layer(x, return_attention_scores=True)
    assert scores.shape == (2, 2, 6, 6)
    np.testing.assert_allclose(ops.sum(scores, -1), np.ones((2, 2, 6)), atol=1e-6)
    assert np.ptp(ops.convert_to_numpy(scores)) > 0.01  # not uniform: the test can see something
    np.testing.assert_allclose(layer(x), output, atol=1e-6)
    # What was returned is what was applied: the output follows from the scores and the values.
    qkv, bias, projection, projection_bias = layer.get_weights()
    value = (x @ qkv + bias)[..., 16:].reshape(2, 6, 2, 4).transpose(0, 2, 1, 3)
    mixed = (ops.convert_to_numpy(scores) @ value).transpose(0, 2, 1, 3).reshape(2, 6, 8)
    np.testing.assert_allclose(output, mixed @ projection + projection_bias, atol=1e-5)


OTHER = dict(  # another value than the default for each option of attention
    head_dim=6,
    num_kv_heads=1,
    attention="softmax",
    block_index=2,
    qkv_bias="qv",
    separate_qkv=True,
    projection_bias=False,
    qk_norm=True,
    sub_norm="attention",
    rotary=RotaryConfig(half_rotation=True, reference_grid=(2, 3)),
    relative_positions=True,
    grid_size=(3, 5),
    num_prefix_tokens=2,
    norm="rms",
    norm_epsilon=1e-4,
    dropout_rate=0.1,
    attention_dropout_rate=0.2,
    query_chunk_size=3,
)


def test_every_option_is_handed_down():
    assert {f.name for f in fields(AttentionConfig)} == {"num_heads", *OTHER}
    expected = AttentionConfig(num_heads=2, **OTHER)
    usual = [f.name for f in fields(AttentionConfig) if getattr(expected, f.name) == f.default]
    assert usual == ["attention"]  # "differential" does not go with `num_kv_heads`
    attention = layers.EncoderBlock(2, 16, **OTHER).attention
    assert attention.config == attention.core_attention.config == expected
    saved = json.loads(json.dumps(keras.saving.serialize_keras_object(attention)))
    again = keras.saving.deserialize_keras_object(saved)
    assert again.config == expected and again.get_config() == attention.get_config()
