"""Grad-CAM in closed form and against finite differences."""

import keras
import numpy as np
import pytest
from support.explained import SMALL, not_on_jax, small, some_images

import vit_tf
from vit_tf import build_vit
from vit_tf.layers.hooks import call_with_hooks

pytestmark = pytest.mark.every_backend


@pytest.mark.slow
@not_on_jax
def test_the_likeliest_class_is_asked_for():
    model = small(distillation_token=True)
    images = some_images(model)
    likeliest = keras.ops.convert_to_numpy(model(images)).argmax(-1)
    for function in (vit_tf.class_relevance, vit_tf.grad_cam):
        np.testing.assert_array_equal(function(model, images), function(model, images, likeliest))
    both = build_vit("vit_b16", **SMALL, distillation_token=True, separate_heads=True)
    both.set_weights(model.get_weights())
    np.testing.assert_allclose(  # the sum of the logits, twice their mean, has twice the gradient
        vit_tf.grad_cam(both, images), 2 * vit_tf.grad_cam(model, images), rtol=1e-4, atol=1e-7
    )


def test_grad_cam_in_closed_form():
    model = small(pooling="avg", class_token=False, final_norm="none", num_layers=1)
    block = model.get_layer("block_0")
    kernels = {variable.path.split("block_0/")[1]: variable for variable in block.trainable_variables}
    qkv = keras.ops.convert_to_numpy(kernels["attention/qkv/kernel"]).copy()
    qkv[:, :16] = 0
    kernels["attention/qkv/kernel"].assign(qkv)
    kernels["attention/qkv/bias"].assign(0 * kernels["attention/qkv/bias"])
    kernels["mlp/fc2/kernel"].assign(0 * kernels["mlp/fc2/kernel"])
    # Without queries all attend to all alike, and the MLP gives nothing: the logit is linear in the tokens.
    projection, head = (
        keras.ops.convert_to_numpy(x)
        for x in (kernels["attention/projection/kernel"], model.get_layer("head").kernel)
    )
    images = some_images(model)
    tokens = block.attention_norm(keras.Model(model.input, block.input)(images))
    slopes = qkv[:, 32:] @ projection @ head[:, 1] / 6  # of each token
    expected = np.maximum(0, keras.ops.convert_to_numpy(tokens) @ slopes)
    assert 0 < (expected > 0).mean() < 1
    np.testing.assert_allclose(vit_tf.grad_cam(model, images, 1), expected.reshape(2, 2, 3), atol=1e-5)


@not_on_jax
@pytest.mark.parametrize("block", ["encoder", "res_post", "parallel_things", "parallel_scaling"])
def test_grad_cam_against_finite_differences(block):
    model = small(block=block, num_layers=1)
    images, step = some_images(model, 1), 1e-2
    readers = model.get_layer("block_0").attention_layers()
    many = np.repeat(images, 32, axis=0)  # a channel up or down in each
    change = np.zeros((2, 16, 7, 16), "float32")
    for channel in range(16):
        change[:, channel, 1:, channel] = [[step], [-step]]
    cam = 0
    for reader in readers:
        seen = []

        def hook(x, seen=seen):
            seen.append(keras.ops.convert_to_numpy(x))
            return x + keras.ops.convert_to_tensor(change.reshape(32, 7, 16))

        logits = keras.ops.convert_to_numpy(call_with_hooks({(reader, "tokens"): hook}, model, many))
        above, below = logits[:, 2].reshape(2, 16)
        cam = cam + seen[0][0, 1:] @ ((above - below) / (2 * step * 6))
    found = vit_tf.grad_cam(model, images, class_index=2)[0]
    expected = np.maximum(0, cam).reshape(2, 3)
    assert len(readers) == (2 if block == "parallel_things" else 1) and expected.max() > 1e-3
    # The second difference of a smooth function: 1e-4 of the largest, and float32's 1e-7 over the step
    np.testing.assert_allclose(found, expected, atol=2e-3 * max(1, expected.max()))
