"""On TensorFlow XLA compiles every layer, or the layer says that it cannot: Keras uses XLA on a GPU."""

import inspect
from contextlib import nullcontext

import keras
import numpy as np
import pytest

from vit_tf import layers
from vit_tf.data.augment import batch as augment
from vit_tf.preprocessing import Preprocessing
from vit_tf.preprocessing.layer import ChannelRescaling

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.tensorflow_only("other backends have no operations without a kernel")

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 8, 12, 3)).astype("float32")
TOKENS = np.random.default_rng(1).normal(size=(2, 7, 8)).astype("float32")
BLOCK = dict(num_heads=2, mlp_dim=8, layer_scale_init=0.1)
LAYERS = {  # name: (layer, its input)
    "RandomFlip": (augment.RandomFlip, IMAGES),
    "RandomCrop": (lambda: augment.RandomCrop(2), IMAGES),
    "RandomAffine": (lambda: augment.RandomAffine(0.1, 0.1), IMAGES),
    "Resize": (lambda: augment.Resize((6, 16)), IMAGES),
    "RandomColor": (augment.RandomColor, IMAGES),
    "RandomErasing": (augment.RandomErasing, IMAGES),
    "PreprocessImages": (lambda: Preprocessing((6, 6)).layer(), IMAGES),
    "ChannelRescaling": (lambda: ChannelRescaling([1, 2, 3], [4, 5, 6]), IMAGES),
    "Patches": (lambda: layers.Patches(4), IMAGES),
    "PatchEmbedding": (lambda: layers.PatchEmbedding(8, 4), IMAGES),
    "OverlapPatchEmbedding": (lambda: layers.OverlapPatchEmbedding(8, 4), IMAGES),
    "PooledPatchEmbedding": (lambda: layers.PooledPatchEmbedding(8, 4, stem_width=6), IMAGES),
    "WhitenedPatchEmbedding": (lambda: layers.WhitenedPatchEmbedding(8, 4), IMAGES),
    "RelativePositions": (lambda: layers.RelativePositions((2, 3), 1), np.ones((2, 3, 7, 7), "float32")),
    "ResNetEmbedding": (lambda: layers.ResNetEmbedding(8, 4, width=32, blocks=(1,)), IMAGES),
    "MobileCLIPEmbedding": (lambda: layers.MobileCLIPEmbedding(8), np.tile(IMAGES, (1, 2, 4, 1))),
    "PatchEncoder": (lambda: layers.PatchEncoder((1, 7), num_registers=1), TOKENS),
    "PatchGrid": (lambda: layers.PatchGrid(), IMAGES),
    "RotaryPositions": (lambda: layers.RotaryPositions((1, 7), kind="mixed"), TOKENS[:, None]),
    "TokenPooling": (lambda: layers.TokenPooling("avgmax"), TOKENS),
    "AttentionPooling": (lambda: layers.AttentionPooling(2, 8), TOKENS),
    "EncoderBlock": (lambda: layers.EncoderBlock(**BLOCK, drop_path_rate=0.1), TOKENS),
    "ResPostBlock": (lambda: layers.ResPostBlock(**BLOCK, mlp="swiglu"), TOKENS),
    "ParallelThingsBlock": (lambda: layers.ParallelThingsBlock(**BLOCK, query_chunk_size=3), TOKENS),
    "ParallelScalingBlock": (lambda: layers.ParallelScalingBlock(**BLOCK, attention="differential"), TOKENS),
}


@pytest.mark.fast_cases(4)
@pytest.mark.parametrize("name", LAYERS)
def test_xla_compiles_every_layer(name):
    make, x = LAYERS[name]
    layer = make()
    layer.build(x.shape)
    if not layer.supports_jit:
        assert name == "RandomAffine"
        return
    takes_training = "training" in inspect.signature(layer.call).parameters
    options = dict(training=True) if takes_training else {}
    y = tf.function(lambda x: layer(x, **options), jit_compile=True)(x)
    assert np.isfinite(y).all() and y.shape == layer.compute_output_shape(x.shape)
    if not takes_training:
        np.testing.assert_allclose(y, layer(x), rtol=1e-4, atol=1e-2 if name == "PreprocessImages" else 1e-4)


def test_every_layer_is_tried():
    tried = set()
    for make, x in LAYERS.values():
        layer = make()
        layer.build(x.shape)
        tried |= {type(inner) for inner in layer._flatten_layers()}
    registered = {x for x in keras.saving.get_custom_objects().values() if isinstance(x, type)}
    ours = {x for x in registered if issubclass(x, keras.Layer) and x.__module__.startswith("vit_tf.")}
    assert len(ours) > 20 and not ours - tried


def test_keras_compiles_a_model_without_xla_where_a_layer_cannot():
    for layer, expected in ((augment.Resize(4), True), (augment.RandomAffine(0.1), False)):
        model = keras.Sequential([keras.Input(IMAGES.shape[1:]), layer])
        model.compile(loss="mse", jit_compile="auto")
        assert model.jit_compile == (expected and bool(tf.config.list_physical_devices("GPU")))
        with nullcontext() if expected else pytest.warns(UserWarning, match="jit_compile"):
            model.compile(loss="mse", jit_compile=True)
        assert model.jit_compile == expected
