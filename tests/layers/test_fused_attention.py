"""The backend's own attention kernel."""

import keras
import numpy as np
import pytest
from support.layer_cases import random

from vit_tf.layers.fused_attention import padded_attention

pytestmark = pytest.mark.every_backend


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="cuDNN's attention is JAX's")
def test_one_more_token_that_is_masked_changes_neither_values_nor_gradients():
    import jax

    query, key, value = (random((2, 7, 3, 8), seed) for seed in range(3))
    weights = random((2, 7, 3, 8), 3)

    def by_hand(query, key, value):
        scores = jax.nn.softmax(0.3 * jax.numpy.einsum("bqhk,bnhk->bhqn", query, key))
        return jax.numpy.einsum("bhqn,bnhk->bqhk", scores, value)

    def padded(query, key, value):
        return padded_attention(query, key, value, 0.3, "xla")

    def value_and_gradients(function):
        def total(*x):
            return jax.numpy.sum(function(*x) * weights)

        return function(query, key, value), jax.grad(total, (0, 1, 2))(query, key, value)

    expected, got = value_and_gradients(by_hand), value_and_gradients(padded)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(got)):
        np.testing.assert_allclose(b, a, atol=1e-5)
