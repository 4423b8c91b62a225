"""The kernels against Keras's own layers, whose gradients TensorFlow derives operation by operation."""

import keras
import numpy as np
import pytest

from vit_tf.layers.chunked_attention import softmax
from vit_tf.layers.dropout import Dropout
from vit_tf.layers.mlp import MLP, GatedMLP, get_activation
from vit_tf.layers.norms import BatchNormalization, LayerNormalization
from vit_tf.layers.token_dense import TokenDense

pytestmark = pytest.mark.tensorflow_only("TensorFlow's kernels")

# Largest difference over the largest value: rounding, in sums of up to 24 terms, and XLA's own erf and tanh.
TOLERANCE = {"float64": 1e-8, "float32": 2e-5, "mixed_bfloat16": 0.03}


def values_and_gradients(layer, inputs, weights_of_outputs, **options):
    """Returns output and gradients (inputs, then each weight) in a compiled function, float64 arrays."""
    import tensorflow as tf

    @tf.function
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, **options)
            loss = tf.reduce_sum(tf.cast(y, "float64") * weights_of_outputs)
        return [y, *tape.gradient(loss, [x, *[v.value for v in layer.trainable_variables]])]

    x = tf.cast(inputs, layer.compute_dtype)
    return [np.array(tf.cast(value, "float64")) for value in run(x)]


def assert_same(ours, theirs, shape, seed=0):
    """Asserts that two layers with the same weights agree in training and in inference."""
    rng = np.random.default_rng(seed)
    inputs, weights = 3 * rng.normal(size=shape) + 1, rng.normal(size=(*shape[:-1], 24))
    for layer in (ours, theirs):
        layer.build(shape)
    for variable, other in zip(ours.weights, theirs.weights):
        value = rng.normal(size=variable.shape)
        variable.assign(value), other.assign(value)
    expected = values_and_gradients(theirs, inputs, weights)
    tolerance = TOLERANCE[ours.dtype_policy.name]
    for training in (True, False):
        actual = values_and_gradients(ours, inputs, weights, training=training)
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(3, 5, 24), (2, 3, 2, 24), (7, 24)])
def test_layer_norm(shape, dtype):
    options = dict(epsilon=1e-3, dtype=dtype)  # large enough to be seen
    assert_same(LayerNormalization(**options), keras.layers.LayerNormalization(**options), shape)


@pytest.mark.fast_cases(3)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "quick_gelu", "silu", "relu", None])
def test_token_dense(name, dtype):
    activation = None if name is None else get_activation(name)
    layers = (kind(24, activation, dtype=dtype) for kind in (TokenDense, keras.layers.Dense))
    assert_same(*layers, (3, 5, 10))


@pytest.mark.fast_cases(3)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"])
def test_mlp(name, dtype):
    dense = [keras.layers.Dense(*args, dtype=dtype) for args in ((40, get_activation(name)), (24,))]
    expected = keras.Sequential(dense)
    expected.dtype_policy = dtype
    assert_same(MLP(40, name, dtype=dtype), expected, (3, 5, 24))


@pytest.mark.parametrize(
    "kind, options",
    [
        (MLP, dict(activation="relu")),
        (MLP, dict(projection_bias=False)),
        (MLP, dict(dropout_rate=0.1)),
        (MLP, dict(sub_norm=True)),
        (GatedMLP, {}),
    ],
)
def test_mlps_without_a_kernel(kind, options):
    layer = kind(16, **options)
    layer.build((2, 3, 8))
    assert not layer.use_kernel(True)


def test_an_mlp_with_a_kernel():
    layer = MLP(16)
    layer.build((2, 3, 8))
    assert layer.use_kernel(True) and not layer.use_kernel(False)
    layer.fc1.quantize("int8")
    assert not layer.use_kernel(True)


def test_lora_trains_through_the_kernel_of_the_mlp():
    """The kernel differs from a plain call, which dropout of rate 1e-9 forces, in nothing but rounding."""
    layers = [MLP(16, dropout_rate=rate) for rate in (0.0, 1e-9)]
    rng, shape = np.random.default_rng(0), (2, 3, 24)
    for layer in layers:
        layer.build(shape)
        layer.fc1.enable_lora(2), layer.fc2.enable_lora(2)
    for variable, other in zip(*(layer.trainable_variables for layer in layers), strict=True):
        value = rng.normal(size=variable.shape)
        variable.assign(value), other.assign(value)
    frozen = ([v for v in layer.non_trainable_variables if v.name == "kernel"] for layer in layers)
    for variable, other in zip(*frozen, strict=True):
        other.assign(variable)
    inputs, weights = rng.normal(size=shape), rng.normal(size=shape)
    ours, plain = (values_and_gradients(layer, inputs, weights, training=True) for layer in layers)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_bfloat16"])
def test_batch_norm(dtype):
    options = dict(momentum=0.7, epsilon=1e-2, dtype=dtype)
    ours, theirs = BatchNormalization(**options), keras.layers.BatchNormalization(**options)
    rng, shape = np.random.default_rng(0), (3, 4, 2, 24)
    inputs, weights = 3 * rng.normal(size=shape) + 1, rng.normal(size=shape)
    for layer in (ours, theirs):
        layer.build(shape)
    for variable, other in zip(ours.weights, theirs.weights):
        value = rng.uniform(0.5, 2, variable.shape)
        variable.assign(value), other.assign(value)
    for training in (True, False):
        actual, expected = (
            [*values_and_gradients(layer, inputs, weights, training=training), *layer.get_weights()]
            for layer in (ours, theirs)
        )
        for a, b in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * np.abs(b).max())


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_softmax(dtype):
    import tensorflow as tf

    x = tf.cast(3 * np.random.default_rng(0).normal(size=(2, 3, 5, 7)), dtype)
    weights = np.random.default_rng(1).normal(size=x.shape)

    @tf.function
    def run(training):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = softmax(x, training)
            loss = tf.reduce_sum(tf.cast(y, "float64") * weights)
        return y, tape.gradient(loss, x)

    actual, expected = run(True), run(False)
    assert [value.dtype for value in actual] == [value.dtype for value in expected]
    name = {"bfloat16": "mixed_bfloat16"}.get(dtype, dtype)
    for a, b in zip(actual, expected, strict=True):
        a, b = (np.array(tf.cast(value, "float64")) for value in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[name] * np.abs(b).max())


@pytest.mark.slow
def test_second_derivatives_of_a_kernel():
    import tensorflow as tf

    layer = LayerNormalization(epsilon=1e-3)
    layer.build((2, 24))
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 24)), "float32")
    curvatures = []
    for training in (True, False):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(layer(x, training=training) ** 3)
            slope = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        curvatures.append(outer.gradient(slope, x).numpy())
    np.testing.assert_allclose(*curvatures, rtol=0, atol=1e-4 * np.abs(curvatures[0]).max())


def test_kernels_inside_a_compiled_step():
    import tensorflow as tf

    layer = TokenDense(24, "gelu")
    layer.build((2, 5, 10))
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 10)), "float32")
    whole = tf.function(lambda x: layer(x, training=True), jit_compile=True)(x)
    np.testing.assert_allclose(whole, layer(x), rtol=0, atol=1e-6)


def test_dropout_drops_at_its_rate_and_independently():
    """Means and correlations of 1.3 million draws, within five standard deviations."""
    import tensorflow as tf

    layer, x = Dropout(0.3, seed=1), tf.ones((5, 512, 512))
    masks = [np.array(layer(x, training=True)) != 0 for _ in range(2)]
    masks.append(np.array(Dropout(0.3, seed=2)(x, training=True)) != 0)
    tolerance = 5 / masks[0].size ** 0.5
    for mask in masks:
        assert abs(mask.mean() - 0.7) < 0.46 * tolerance
        for axis in range(3):  # neighbours
            assert abs(np.corrcoef(mask.ravel(), np.roll(mask, 1, axis).ravel())[0, 1]) < tolerance
    for i in range(3):  # calls, and layers
        for j in range(i):
            assert abs(np.corrcoef(masks[i].ravel(), masks[j].ravel())[0, 1]) < tolerance
    counts = masks[0].reshape(-1, 16) @ (1 << np.arange(16))  # patterns of 16 neighbours
    ones = np.array([bin(value).count("1") for value in range(1 << 16)])
    expected = masks[0].size / 16 * 0.7**ones * 0.3 ** (16 - ones)
    found = np.bincount(counts, minlength=1 << 16)
    by_ones = [(found[ones == k].sum(), expected[ones == k].sum()) for k in range(17)]
    assert all(abs(a - b) < 5 * b**0.5 + 5 for a, b in by_ones)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_dropout_passes_the_gradients_of_what_it_keeps(dtype):
    import tensorflow as tf

    layer = Dropout(0.25, seed=3, dtype=dtype)
    x = tf.cast(np.random.default_rng(0).normal(size=(7, 5)) + 9, dtype)

    @tf.function
    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, x, output_gradients=dy)

    y, dx = (np.array(tf.cast(value, "float64")) for value in step(x, 2 * x))
    kept, x = y != 0, np.array(tf.cast(x, "float64"))
    assert 0 < kept.sum() < kept.size
    tolerance = 1e-2 if dtype == "bfloat16" else 1e-6
    np.testing.assert_allclose(y, np.where(kept, x / 0.75, 0), rtol=tolerance)
    np.testing.assert_allclose(dx, np.where(kept, 2 * x / 0.75, 0), rtol=tolerance)
    again = Dropout(0.25, seed=3, dtype=dtype)(tf.cast(x, dtype), training=True)  # the seed alone decides
    assert ((np.array(tf.cast(again, "float64")) != 0) == kept).all()
    assert np.array_equal(tf.cast(layer(x), "float64"), np.array(tf.cast(tf.cast(x, dtype), "float64")))
