"""Prefix tokens, positions and pooling."""

import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.layer_cases import TOKENS, random

from vit_tf import layers

pytestmark = pytest.mark.every_backend


def test_class_token_and_positions_are_tracked_in_place():
    layer = layers.PatchEncoder((2, 3))
    layer.build((None, 6, 8))
    assert [v.path.split("/")[-1] for v in layer.trainable_variables] == [
        "class_token",
        "position_embedding",
    ]
    token, positions = randomize(layer).get_weights()
    x = random(TOKENS)
    expected = np.concatenate([np.repeat(token, 2, 0), x], 1) + positions
    np.testing.assert_allclose(layer(x), expected, atol=1e-6)


def test_prefix_tokens_come_first_and_have_positions_only_if_asked():
    for prefix_positions in (True, False):
        layer = layers.PatchEncoder(
            (2, 3), distillation_token=True, num_registers=2, prefix_positions=prefix_positions
        )
        layer.build(TOKENS)
        randomize(layer)
        x = random(TOKENS)
        output = ops.convert_to_numpy(layer(x))
        named = {v.path.split("/")[-1]: ops.convert_to_numpy(v) for v in layer.weights}
        positions = named.pop("position_embedding")
        prefix = np.concatenate(
            [named[n] for n in ("class_token", "distillation_token", "register_tokens")], 1
        )
        assert positions.shape[1] == (10 if prefix_positions else 6)
        if prefix_positions:
            prefix = prefix + positions[:, :4]
        np.testing.assert_allclose(output[0, :4], prefix[0], atol=1e-6)
        np.testing.assert_allclose(output[:, 4:], x + positions[:, -6:], atol=1e-6)


def test_attention_pooling_ignores_the_prefix_and_the_order():
    layer = layers.AttentionPooling(2, 12, num_prefix_tokens=1)
    layer.build(TOKENS)
    randomize(layer)
    x, other = random(TOKENS), random(TOKENS)
    other[:, 0] += 100
    other[:, 1:] = other[:, :0:-1]
    np.testing.assert_allclose(layer(x), layer(other), atol=1e-5)
    assert np.abs(ops.convert_to_numpy(layer(x) - layer(x[:, ::-1]))).max() > 1e-3
