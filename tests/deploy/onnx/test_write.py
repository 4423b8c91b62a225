"""Models as ONNX files, run by ONNX Runtime and compared with Keras."""

from collections import Counter

import keras
import numpy as np
import onnx
import pytest
from conftest import randomize
from keras import ops
from support.cases import OURS, small
from support.onnx_files import run_onnx

from vit_tf import build_vit
from vit_tf.deploy.onnx import emitters, graph, write_onnx
from vit_tf.layers.mlp import quick_gelu
from vit_tf.preprocessing import Preprocessing
from vit_tf.weights import resize_model

SMALL = dict(
    image_size=(16, 24), patch_size=8, hidden_dim=12, num_layers=2, num_heads=3, mlp_dim=20, num_classes=5
)
FEATURES = {  # what no fast variant has
    "patches": dict(patch_stem="patches", patch_norm=True, embedding_norm=True, pooling="token_avg"),
    "overlap": dict(patch_stem="overlap", pooling="avgmax", final_norm="pooled"),
    "remainder": dict(image_size=(20, 26), allow_remainder=True, pooling="max"),
    "distilled": dict(distillation_token=True),
    "differential": dict(attention="differential", hidden_dim=24, qk_norm=True),
    "differential_scaling": dict(attention="differential", hidden_dim=24, block="parallel_scaling"),
    "parallel_scaling": dict(block="parallel_scaling", qk_norm=True, qkv_bias=False, layer_scale_init=0.3),
    "parallel_things": dict(block="parallel_things", final_norm="none", layer_scale_init=0.3),
    "res_post": dict(block="res_post", layer_scale_init=0.4),
    "rms": dict(mlp="swiglu_split", norm="rms", embedding_norm=True, projection_bias=False, qk_norm=True),
    "swiglu": dict(mlp="swiglu", activation="silu", num_registers=2, prefix_positions=False),
    "sub_norm": dict(sub_norm=True, head_dim=7, pool_prefix=True, pooling="avg", class_token=True),
    "rotary": dict(rotary=dict(kind="mixed"), qkv_bias="qv", position_table=False, num_registers=2),
    "grouped": dict(num_kv_heads=1, rotary=dict(kind="dinov3", half_rotation=True), qk_norm=True),
    "rotary_differential": dict(rotary={}, attention="differential", hidden_dim=24, query_chunk_size=3),
    "rotary_alone": dict(rotary={}, position_table=False, pooling="avg", separate_qkv=True),
    "dropout": dict(dropout_rate=0.1, attention_dropout_rate=0.1, drop_path_rate=0.3),
    "features": dict(num_classes=0),
    "chunks": dict(query_chunk_size=3, patch_size=4),
    "chunks_differential": dict(query_chunk_size=3, attention="differential", hidden_dim=24),
    "grey": dict(in_channels=1),
    "relative": dict(
        relative_positions=True, qkv_bias="qv", position_table=False, class_token=True, pooling="avg"
    ),
    "chunks_relative": dict(relative_positions=True, query_chunk_size=3),
    "resnet_v2": dict(patch_stem="resnet_v2", stem_width=32, stem_blocks=(1, 1), image_size=(15, 21)),
    "pooled": dict(patch_stem="pooled", stem_width=8, stem_blocks=(2, 1, 1), activation="relu"),
    "resnet_d": dict(patch_stem="resnet_d", stem_width=8, stem_blocks=(1, 2), image_size=(15, 21)),
    "mobileclip": dict(patch_stem="mobileclip", image_size=(32, 48), patch_size=16),
}
HALF = {  # what has more to lose in half precision
    "rms": dict(norm="rms", layer_scale_init=1e-5, qk_norm=True, mlp="swiglu"),
    "map": dict(pooling="map"),
    "resnet_v2": FEATURES["resnet_v2"],
}


def small_vit(**overrides):
    return randomize(build_vit("vit_b16", **{**SMALL, **overrides}))


def images(model, count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *model.input_shape[1:])).astype("float32")


def outputs(model, x):
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]


def assert_agrees(model, path, tolerance=1e-4, **options):
    """The written file gives the Keras model's outputs at two batch sizes."""
    write_onnx(model, path, **options)
    for count in (1, 3):
        x = images(model, count)
        for result, expected in zip(run_onnx(path, images=x), outputs(model, x), strict=True):
            assert result.dtype == np.float32 and result.shape == expected.shape
            assert np.abs(result - expected).max() <= tolerance * np.abs(expected).max()


def operators(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("name", OURS)
def test_our_variants_agree_with_keras(name, tmp_path):
    """`test_parity.py` compares those of timm."""
    assert_agrees(randomize(build_vit(name, **small(name) | dict(num_layers=1))), tmp_path / "model.onnx")


@pytest.mark.fast_cases(17)
@pytest.mark.parametrize("overrides", FEATURES.values(), ids=FEATURES)
@pytest.mark.parametrize("opset", [20, 23])
def test_every_option_agrees_with_keras(overrides, opset, tmp_path):
    assert_agrees(small_vit(**overrides), tmp_path / "model.onnx", opset=opset)


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("activation", ["relu", "relu6", "tanh", "elu", "mish", "hard_silu", "leaky_relu"])
def test_activations_of_keras(activation, tmp_path):
    assert_agrees(small_vit(num_layers=1, activation=activation), tmp_path / "model.onnx")


def test_the_nodes_of_a_plain_model_are_few(tmp_path):
    write_onnx(small_vit(), tmp_path / "model.onnx")
    assert operators(tmp_path / "model.onnx") == dict(
        **dict(Transpose=10, Conv=1, Reshape=9, Pad=1, Add=14, LayerNormalization=5, MatMul=13, Split=2),
        **dict(Mul=2, Softmax=2, Gelu=2, Gather=1),
    )
    write_onnx(small_vit(), tmp_path / "model.onnx", opset=23)
    assert operators(tmp_path / "model.onnx") == dict(
        **dict(Transpose=2, Conv=1, Reshape=1, Pad=1, Add=14, LayerNormalization=5, MatMul=9, Split=2),
        **dict(Attention=2, Gelu=2, Gather=1),
    )


def test_layer_scale_adds_no_nodes(tmp_path):
    for name, overrides in (("plain", {}), ("scaled", dict(layer_scale_init=0.4))):
        write_onnx(small_vit(**overrides), tmp_path / name)
    assert operators(tmp_path / "plain") == operators(tmp_path / "scaled")


@pytest.mark.slow
@pytest.mark.parametrize("opset", [20, 23])
def test_half_precision(opset, tmp_path):
    for name, overrides in HALF.items():
        path = tmp_path / name
        assert_agrees(small_vit(**overrides), path, 2e-2, precision="float16", opset=opset)
        types = Counter(tensor.data_type for tensor in onnx.load(path).graph.initializer)
        assert types[onnx.TensorProto.FLOAT16] > types[onnx.TensorProto.FLOAT]


def test_half_precision_refuses_weights_that_overflow(tmp_path):
    model = small_vit()
    model.get_layer("block_0").mlp.fc1.kernel.assign(1e5 * ops.ones((12, 20)))
    with pytest.raises(ValueError, match="'block_0/mlp/fc1/kernel' has values above 65,504"):
        write_onnx(model, tmp_path / "model.onnx", precision="float16")


@pytest.mark.slow
def test_pixels_are_normalised_inside(tmp_path):
    colours = dict(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    preprocessing = Preprocessing((16, 24), crop_fraction=1.0, **colours)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), "uint8")
    plain, own = small_vit(), small_vit(include_preprocessing=preprocessing)
    for model, x in ((plain, preprocessing(pixels)), (own, pixels)):
        write_onnx(model, tmp_path / "model.onnx", preprocessing=preprocessing)
        (result,) = run_onnx(tmp_path / "model.onnx", images=pixels)
        (expected,) = outputs(model, x)
        np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("overrides", [{}, FEATURES["differential"], FEATURES["parallel_things"]])
@pytest.mark.parametrize("opset", [20, 23])
def test_attention_of_the_last_block(overrides, opset, tmp_path):
    model = small_vit(**overrides)
    names = write_onnx(model, tmp_path / "model.onnx", opset=opset, attention_output=True)
    assert names == ("logits", "attention")
    x = images(model, 2)
    logits, attention = run_onnx(tmp_path / "model.onnx", images=x)
    np.testing.assert_allclose(logits, outputs(model, x)[0], atol=1e-4)
    block = model.get_layer("block_1")
    _, expected = block(keras.Model(model.input, block.input)(x), return_attention_scores=True)
    np.testing.assert_allclose(attention, ops.convert_to_numpy(expected), atol=1e-5)


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("name", ["patches", "overlap", "remainder", "chunks", "rotary", "rotary_alone"])
def test_several_image_sizes(name, tmp_path):
    model, path = small_vit(**FEATURES[name]), tmp_path / "model.onnx"
    height, width = model.input_shape[1:3]
    sizes = [(height, width), (width + 8, height - 4 if name in ("remainder", "chunks") else height)]
    write_onnx(model, path, image_sizes=sizes)
    for size in sizes:
        resized = resize_model(model, size)
        x = images(resized, 2)
        for result, expected in zip(run_onnx(path, images=x), outputs(resized, x), strict=True):
            np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_names_of_the_outputs(tmp_path):
    path = tmp_path / "model.onnx"
    assert write_onnx(small_vit(num_classes=0), path) == ("features",)
    model = small_vit(distillation_token=True, separate_heads=True)
    assert write_onnx(model, path) == ("logits", "distillation_logits")
    assert_agrees(model, path)
    assert [x.name for x in onnx.load(path).graph.input] == ["images"]


@pytest.mark.slow
def test_a_model_with_more_layers_around(tmp_path):
    backbone = small_vit(num_classes=0)
    x = keras.Input((16, 24, 3))
    y = keras.layers.RandomFlip()(x)
    y = backbone(keras.layers.Rescaling(0.5, offset=-0.1)(y))
    y = keras.layers.Dropout(0.1)(keras.layers.BatchNormalization()(y))
    first = keras.layers.Dense(7, activation="softmax")(keras.layers.LayerNormalization()(y))
    second = keras.layers.Dense(2, activation=quick_gelu)(keras.layers.Dense(4, "relu")(y))
    both = keras.layers.Concatenate()([first, second])
    model = randomize(keras.Model(x, [first, keras.layers.Reshape((3, 3))(both), both]))
    model.layers[4].moving_variance.assign(np.arange(1.0, 13.0))
    assert_agrees(model, tmp_path / "model.onnx")
    sequential = randomize(keras.Sequential([keras.Input((16, 24, 3)), backbone, keras.layers.Dense(3)]))
    assert_agrees(sequential, tmp_path / "model.onnx")


def test_lora_is_merged(tmp_path):
    model = small_vit()
    model.get_layer("block_0").attention.qkv.enable_lora(2)
    model.get_layer("head").enable_lora(2)
    assert_agrees(randomize(model), tmp_path / "model.onnx")


def test_large_weights_go_into_a_second_file(tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "LARGEST_IN_FILE", 1000)
    assert_agrees(small_vit(), tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size > 20 * (tmp_path / "model.onnx").stat().st_size / 100


def test_unsupported_models_are_refused_by_name(tmp_path):
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    def refused(model, *words, **options):
        with pytest.raises(ValueError) as caught:
            write_onnx(model, tmp_path / "model.onnx", **options)
        assert all(word in str(caught.value) for word in words), caught.value
        assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())

    model = small_vit(num_layers=1)
    refused(keras.Model(model.input, Doubled(name="twice")(model.output)), "'twice' (Doubled)")
    refused(keras.Model(model.input, ops.sin(model.output)), "(Sin)")
    refused(small_vit(num_layers=1, activation=lambda x: x), "activation '<lambda>'")
    refused(keras.Model(model.get_layer("block_0").input, model.output), "does not take images")
    refused(model, "`precision` must be one of", precision="bfloat16")
    refused(model, "`opset` must be an int from 20", opset=17)
    refused(model, "needs `preprocessing`", encoded=True)
    model.get_layer("block_0").mlp.fc1.quantize("int8")
    refused(model, "'fc1' is quantized by Keras")


def test_a_layer_of_a_user_can_be_registered(tmp_path, monkeypatch):
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    monkeypatch.setattr(emitters, "EMITTERS", dict(emitters.EMITTERS))
    emitters.emits(Doubled)(lambda graph, layer, x: graph.add("Add", x, x))
    model = small_vit(num_layers=1)
    assert_agrees(keras.Model(model.input, Doubled()(model.output)), tmp_path / "model.onnx")
