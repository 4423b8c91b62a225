"""Layers made of layers: what is frozen or quantised inside stays so in files, clones and other sizes."""

import warnings

import keras
import numpy as np
import pytest
from conftest import randomize
from keras.src.testing import TestCase
from support.layer_cases import FAST, LAYERS, TOKENS, each_layer, random
from support.marks import mostly_slow

import vit_tf
from vit_tf.layers import EncoderBlock
from vit_tf.layers.composite import CompositeLayer
from vit_tf.training.freezing import freeze
from vit_tf.training.lora import add_lora
from vit_tf.training.resolution import with_image_size

pytestmark = pytest.mark.every_backend


def trainable(layer):
    return [v.trainable for v in layer.weights]


def wrap(layer, shape):
    inputs = keras.Input(shape[1:])
    return keras.Model(inputs, layer(inputs))


def in_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def cloned(model, tmp_path):
    return keras.models.clone_model(model)


@each_layer
def test_frozen_layers_stay_frozen(make, shape):
    layer = make()
    wrap(layer, shape)
    layer.trainable = False
    again = type(layer).from_config(layer.get_config())
    model = wrap(again, shape)
    assert not model.trainable_variables
    again.trainable = True
    layer.trainable = True
    assert trainable(again) == trainable(layer)  # the whitening stays as it is


@pytest.mark.fast_cases(2)
@each_layer
def test_each_frozen_part_stays_frozen(make, shape):
    """Every second variable, then the first and the last sublayer, of the layer."""
    layer = make()
    wrap(layer, shape)
    for variable in layer.trainable_variables[::2]:
        variable.trainable = False
    sublayers = [x for x in layer._flatten_layers(recursive=False, include_self=False) if x.weights]
    for sublayer in [None, *sublayers[:: max(1, len(sublayers) - 1)]]:
        if sublayer is not None:
            layer.trainable = True
            sublayer.trainable = False
        if not isinstance(layer, CompositeLayer):
            continue  # Keras's own, and those of one variable
        again = type(layer).from_config(layer.get_config())
        assert again.get_config().get("parts") == layer.get_config().get("parts")  # before it is built
        wrap(again, shape)
        assert trainable(again) == trainable(layer)


def tiny_vit(**overrides):
    small = dict(image_size=8, patch_size=4, hidden_dim=8, num_layers=2, num_heads=2, mlp_dim=16)
    return vit_tf.build_vit("vit_cifar10", **{**small, "num_classes": 3, **overrides})


def freeze_layers(model):
    for layer in model.layers[:-1]:
        layer.trainable = False


def freeze_parts(model):
    model.get_layer("block_0").attention.trainable = False
    model.get_layer("block_1").trainable = False
    model.get_layer("block_1").mlp.fc1.trainable = True
    model.get_layer("block_0").mlp.fc2.bias.trainable = False


FREEZERS = {
    "layers": freeze_layers,
    "parts": freeze_parts,
    "backbone": lambda model: freeze(model, "backbone"),
    "attention": lambda model: freeze(model, "all-but-attention"),
}


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("freezer", FREEZERS.values(), ids=FREEZERS)
def test_frozen_models(freezer, tmp_path):
    model = tiny_vit()
    freezer(model)
    expected = trainable(model)
    assert not all(expected)
    assert trainable(in_file(model, tmp_path)) == expected
    assert trainable(cloned(model, tmp_path)) == expected
    assert trainable(vit_tf.resize_model(model, 16)) == expected
    with_image_size(model, (16, 16))
    assert trainable(model) == expected
    if freezer is freeze_parts:
        outer = keras.Sequential([keras.Input((8, 8, 3)), model, keras.layers.Dense(2)])
        assert trainable(in_file(outer, tmp_path)) == expected + [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("make_again", [in_file, cloned])
def test_adapters_stay(make_again, tmp_path):
    model = tiny_vit()
    add_lora(model, rank=2)
    expected = [v.path for v in model.trainable_variables]
    assert any("lora_kernel_a" in path for path in expected)
    randomize(model, 0.3)
    again = make_again(model, tmp_path)
    assert [v.path for v in again.trainable_variables] == expected
    if make_again is in_file:  # the adapters are merged into the kernels, as Keras does
        images = random((2, 8, 8, 3))
        np.testing.assert_allclose(again(images), model(images), atol=1e-4)


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_optimizer_is_kept_in_files(tmp_path):
    model = tiny_vit()
    freeze_layers(model)
    model.compile("adam", "mse")
    model.train_on_batch(random((2, 8, 8, 3)), random((2, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # Keras drops the state with one
        again = in_file(model, tmp_path)
    assert again.optimizer.iterations == 1
    for new, old in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(new, old)


GATED = dict(mlp="swiglu_split", activation="silu", attention="differential")
THINGS = dict(block="parallel_things", drop_path_rate=0.1, layer_scale_init=0.1)


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "overrides, count, mode",
    [
        ({}, 8, "int8"),
        ({}, 8, "int4"),
        ({}, 8, "float8"),
        (GATED, 10, "int8"),
        (THINGS, 16, "int8"),
        (dict(block="parallel_scaling"), 6, "int8"),
        (dict(pooling="map"), 8, "int8"),
    ],
)
def test_quantized_models(overrides, count, mode, tmp_path):
    model = randomize(tiny_vit(num_classes=None, **overrides), 0.1)
    images = random((2, 8, 8, 3))
    before = np.array(model(images))
    dense = [x for x in model._flatten_layers() if isinstance(x, keras.layers.Dense)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of each layer without kernels
        model.quantize(mode)
    assert {layer.quantization_mode for layer in dense} == {mode}
    assert len([x for x in dense if "block" in x.path]) == count
    after = np.array(model(images))
    size = np.abs(before).max()
    assert 0 < np.abs(after - before).max() < {"int8": 0.05, "int4": 0.6, "float8": 0.15}[mode] * size
    again = in_file(model, tmp_path)
    np.testing.assert_allclose(again(images), after, rtol=0, atol=1e-5 * size)
    same = vit_tf.resize_model(vit_tf.resize_model(model, 16), 16)  # another size, and a copy of it
    assert {x.quantization_mode for x in same._flatten_layers() if isinstance(x, keras.layers.Dense)} == {
        mode
    }
    kernels = [[w for w in m.weights if "block" in w.path] for m in (model, same)]
    for old, new in zip(*(sorted(side, key=lambda w: w.path) for side in kernels)):
        np.testing.assert_array_equal(new, old)


@pytest.mark.tensorflow_only
def test_what_needs_floats_refuses_quantized_models():
    model = tiny_vit(patch_stem="patches")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.quantize("int8")
    with pytest.raises(ValueError, match="resize first, then quantize"):
        vit_tf.resize_model(model, patch_size=2)
    with pytest.raises(ValueError, match="save it as .keras"):
        vit_tf.save_weights(model, "model.safetensors")


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("mode", ["gptq", "awq"])
def test_bad_quantization(mode):
    from vit_tf.layers.token_dense import TokenDense

    layer = TokenDense(3)
    layer.build((None, 4))
    config = {"gptq": keras.quantizers.GPTQConfig, "awq": keras.quantizers.AWQConfig}[mode](
        dataset=["x"], tokenizer=lambda x: x
    )
    with pytest.raises(ValueError, match='choose "int8", "int4" or "float8"'):
        layer.quantize(mode, config=config)


CHUNKS = {"chunks": (lambda: EncoderBlock(2, 16, query_chunk_size=2), TOKENS)}


@pytest.mark.fast_cases(6)
@pytest.mark.parametrize("make, shape", mostly_slow({**LAYERS, **CHUNKS}, [*FAST, *CHUNKS]))
def test_empty_batch(make, shape):
    layer = make()
    layer.build(shape)
    empty = np.zeros((0, *shape[1:]), "float32")
    assert tuple(layer(empty).shape) == layer.compute_output_shape((0, *shape[1:]))


@pytest.mark.fast_cases(6)
@each_layer
def test_keras_layer_harness(make, shape):
    layer = make()
    config = {k: v for k, v in layer.get_config().items() if k not in ("name", "trainable", "dtype")}
    TestCase().run_layer_test(
        type(layer), config, shape, run_training_check=False, supports_masking=layer.supports_masking
    )


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("policy", ["bfloat16", "float16"])
@each_layer
def test_half_precision(make, shape, policy):
    keras.config.set_dtype_policy(policy)
    layer = make()
    assert keras.backend.standardize_dtype(layer(random(shape)).dtype) == policy
