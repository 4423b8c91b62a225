"""The kernels against Keras's own layers, whose gradients TensorFlow derives operation by operation."""

import keras
import numpy as np
import pytest

from vit_tf.layers.mlp import get_activation
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
