"""Models as ONNX files, run by ONNX Runtime and compared with Keras."""

from collections import Counter

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import randomize
from keras import ops
from support.cases import small
from support.marks import mostly_slow

from vit_tf import build_vit, list_models
from vit_tf.deploy.onnx import write_onnx
from vit_tf.preprocessing import Preprocessing

SMALL = dict(
    image_size=(16, 24), patch_size=8, hidden_dim=12, num_layers=2, num_heads=3, mlp_dim=20, num_classes=5
)
FAST = (  # one of each kind of layer
    *("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_small_patch14_reg4_dinov2"),
    *("vit_base_patch16_siglip_224", "vit_small_patch16_18x2_224", "vit_base_patch16_rpn_224", "vit_cifar10"),
    *("vit_giant_patch14_dinov2", "vit_base_patch32_plus_256", "vit_base_patch16_clip_quickgelu_224"),
)


def small_vit(**overrides):
    return randomize(build_vit("vit_b16", **{**SMALL, **overrides}))


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def images(model, count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *model.input_shape[1:])).astype("float32")


def expected(model, x):
    return [ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x))]


def assert_agrees(model, path, tolerance=1e-4, **options):
    """The written file gives the Keras model's outputs at two batch sizes."""
    names = write_onnx(model, path, **options)
    run = session(path).run
    for count in (1, 3):
        x = images(model, count)
        results = run(names, {"images": x})
        for result, reference in zip(results, expected(model, x)):
            assert result.dtype == np.float32 and result.shape == reference.shape
            assert np.abs(result - reference).max() <= tolerance * np.abs(reference).max()


@pytest.mark.parametrize("name", mostly_slow({name: name for name in list_models()}, FAST))
def test_every_variant_agrees_with_keras(name, tmp_path):
    assert_agrees(randomize(build_vit(name, **small(name))), tmp_path / "model.onnx")


def test_the_nodes_of_a_plain_model_are_few(tmp_path):
    write_onnx(small_vit(), tmp_path / "model.onnx")
    nodes = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
    assert nodes == dict(
        Transpose=10, Conv=1, Reshape=9, Pad=1, Add=14, LayerNormalization=5, MatMul=13, Split=2, Mul=2,
        Softmax=2, Gelu=2, Gather=1,
    )  # fmt: skip


def test_pixels_are_normalised_inside(tmp_path):
    model, preprocessing = small_vit(), Preprocessing((16, 24), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    write_onnx(model, tmp_path / "model.onnx", preprocessing=preprocessing)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), "uint8")
    (result,) = session(tmp_path / "model.onnx").run(None, {"images": pixels})
    (reference,) = expected(model, preprocessing(pixels))
    np.testing.assert_allclose(result, reference, atol=1e-4 * np.abs(reference).max())


def test_attention_of_the_last_block(tmp_path):
    model = small_vit()
    names = write_onnx(model, tmp_path / "model.onnx", attention_output=True)
    assert names == ("logits", "attention")
    _, attention = session(tmp_path / "model.onnx").run(None, {"images": images(model, 2)})
    assert attention.shape == (2, 3, 7, 7)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)


def test_an_unknown_layer_is_named(tmp_path):
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    model = small_vit()
    model = keras.Model(model.input, Doubled(name="twice")(model.output))
    with pytest.raises(ValueError, match="does not know the layer 'twice' .Doubled."):
        write_onnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
