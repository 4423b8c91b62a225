"""`TokenDense` against Keras's layer (training: `test_tensorflow_kernels.py`), and its start at zero."""

import keras
import numpy as np
import pytest

from vit_tf import build_vit
from vit_tf.layers.token_dense import TokenDense, without_initial_values
from vit_tf.weights import save_weights

SMALL = dict(image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=16, num_classes=3)


@pytest.mark.every_backend
@pytest.mark.parametrize("shape", [(2, 5, 6), (0, 5, 6), (3, 6), (2, 3, 4, 6)])
def test_equals_dense(shape):
    ours, expected = (kind(7, "gelu", name="dense") for kind in (TokenDense, keras.layers.Dense))
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    expected.build(shape), ours.build(shape)
    ours.set_weights([np.random.default_rng(1).normal(size=v.shape) for v in ours.weights])
    expected.set_weights(ours.get_weights())
    y = keras.ops.convert_to_numpy(ours(x))
    np.testing.assert_allclose(y, keras.ops.convert_to_numpy(expected(x)), rtol=1e-5, atol=1e-5)
    assert y.shape == ours.compute_output_shape(shape)


def test_starts_at_zero_in_the_scope_alone():
    with without_initial_values():
        inside = TokenDense(4, bias_initializer="ones")
        inside.build((None, 3))
    outside = TokenDense(4, bias_initializer="ones")
    outside.build((None, 3))
    assert [value.any() for value in inside.get_weights()] == [False, True]
    assert [value.any() for value in outside.get_weights()] == [True, True]


def test_a_model_without_its_own_head_in_the_weights_gets_a_random_one(tmp_path):
    path = save_weights(build_vit("vit_cifar10", **SMALL), tmp_path / "model.safetensors")
    model = build_vit("vit_cifar10", **{**SMALL, "num_classes": 5}, weights=path)
    assert model.get_layer("head").kernel.numpy().std() > 0.1
    block = model.get_layer("block_0")
    assert all(v.numpy().any() for v in block.trainable_variables if v.name == "kernel")
