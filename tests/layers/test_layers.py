from dataclasses import fields

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.gradients import gradients
from support.layer_cases import IMAGES, SOFTMAX_IGNORES, TOKENS, each_layer, random

from vit_tf import layers
from vit_tf.layers.configured import ConfiguredLayer

pytestmark = pytest.mark.every_backend


@pytest.mark.tensorflow_only
@each_layer
def test_config_round_trip(make, shape):
    layer = make()
    config = layer.get_config()
    again = type(layer).from_config(config)
    assert again.get_config() == config
    layer.build(shape), again.build(shape)
    assert [v.shape for v in again.variables] == [v.shape for v in layer.variables]


@pytest.mark.tensorflow_only
@each_layer
def test_config_has_every_constructor_argument(make, shape):
    import inspect

    layer = make()
    arguments = set(inspect.signature(type(layer).__init__).parameters) - {"self", "kwargs"}
    if isinstance(layer, ConfiguredLayer):
        arguments |= {field.name for field in fields(layer.config)}
    assert arguments <= set(layer.get_config())


@pytest.mark.fast_cases(6)
@each_layer
def test_keras_file_round_trip(make, shape, tmp_path):
    inputs = keras.Input(shape[1:])
    model = randomize(keras.Model(inputs, make()(inputs)))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = random(shape)
    np.testing.assert_allclose(again(x), model(x), rtol=0, atol=1e-6)


@each_layer
def test_symbolic_shape_equals_eager_shape(make, shape):
    layer = make()
    symbolic = layer(keras.Input(shape[1:]))
    eager = layer(random(shape))
    assert tuple(symbolic.shape) == (None, *eager.shape[1:])
    assert tuple(layer.compute_output_shape(shape)) == tuple(eager.shape)
    assert str(symbolic.dtype) == keras.backend.standardize_dtype(eager.dtype)


@pytest.mark.tensorflow_only
@each_layer
@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_mixed_precision(make, shape, policy):
    x = random(shape)
    plain = make()
    plain.build(shape)
    randomize(plain, 0.1)
    keras.config.set_dtype_policy(policy)
    layer = make()
    layer.build(shape)
    layer.set_weights(plain.get_weights())
    output = layer(x)
    assert keras.backend.standardize_dtype(output.dtype) == policy.removeprefix("mixed_")
    assert all(v.dtype == "float32" for v in layer.trainable_variables)
    # bfloat16 keeps 8 bits of a number; the outputs here are of the order of 1.
    np.testing.assert_allclose(ops.cast(output, "float32"), plain(x), rtol=0.05, atol=0.05)


@pytest.mark.fast_cases(3)
@each_layer
def test_every_trainable_variable_receives_a_gradient(make, shape):
    layer = make()
    layer.build(shape)
    randomize(layer)
    goal = random(layer.compute_output_shape(shape), seed=5)
    for path, gradient in gradients(layer, random(shape), lambda y: ops.sum(ops.multiply(y, goal))).items():
        assert gradient is not None and (np.abs(gradient).max() > 1e-7 or path.endswith(SOFTMAX_IGNORES)), (
            path
        )


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.Patches(5)(random(IMAGES)), "multiple of 5"),
        (lambda: layers.Patches(0), "positive int"),
        (lambda: layers.Patches((2, 2, 2)), "pair"),
        (lambda: layers.Patches("4"), "patch_size"),
        (lambda: layers.PatchEmbedding(8, 3)(random(IMAGES)), "multiple of 3"),
        (lambda: layers.OverlapPatchEmbedding(8, 6), "power of two"),
        (lambda: layers.OverlapPatchEmbedding(8, (4, 2)), "power of two"),
        (lambda: layers.OverlapPatchEmbedding(8, 8)(random(IMAGES)), "multiple of 8"),
        (lambda: layers.ResNetEmbedding(8, 16, "resnet"), "one of 'resnet_v2', 'resnet_d', got 'resnet'"),
        (lambda: layers.ResNetEmbedding(8, 16, blocks=(1, 1, 1, 1)), "4 stages makes one pixel of 32"),
        (lambda: layers.ResNetEmbedding(8, 16, blocks=())(random(IMAGES)), "multiple of 16"),
        (lambda: layers.ResNetEmbedding(8, 16, width=48), "multiple of 32 channels, got 48"),
        (lambda: layers.ConvNorm(8, 3, norm="layer"), "one of 'group', 'batch', got 'layer'"),
        (lambda: layers.MobileCLIPEmbedding(8, 8), "16 pixels, got"),
        (lambda: layers.MobileCLIPEmbedding(8)(random(IMAGES)), "multiple of 16"),
        (lambda: layers.PatchEncoder((2, 2))(random(TOKENS)), "4 patches, got 6"),
        (lambda: layers.MultiHeadSelfAttention(3)(random(TOKENS)), "head_dim"),
        (lambda: layers.DropPath(1.0), r"\[0, 1\)"),
        (lambda: layers.TokenPooling("median"), "avg"),
        (lambda: layers.PatchEmbedding(8, 16, allow_remainder=True)(random(IMAGES)), "multiple of 16"),
        (lambda: layers.EncoderBlock(2, 4, norm="batch"), "one of 'layer', 'rms', got 'batch'"),
        (lambda: layers.EncoderBlock(2, 4, mlp="conv"), "swiglu"),
        (lambda: layers.EncoderBlock(2, 4, attention="linear"), "differential"),
        (lambda: layers.EncoderBlock(2, 4, activation="swoosh"), "swoosh"),
        (lambda: layers.ParallelScalingBlock(2, 4, mlp="swiglu"), "sub_norm"),
        (lambda: layers.ParallelScalingBlock(3, 4)(random(TOKENS)), "head_dim"),
        (lambda: layers.ResPostBlock(2, 4, norm="rms", layer_scale_init=0.1), "layer_scale_init"),
        (
            lambda: layers.MultiHeadSelfAttention(2, head_dim=5, attention="differential")(random(TOKENS)),
            "5 is odd",
        ),
        (lambda: layers.AttentionPooling(3, 4)(random(TOKENS)), "3 heads do not divide"),
        (lambda: layers.AttentionPooling(2, 4, norm="batch"), "'rms', got 'batch'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
