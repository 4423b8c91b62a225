"""Hooks belong to the thread and the trace that set them, and threads give what one thread gives."""

import threading
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from conftest import randomize

import vit_tf
from vit_tf import build_vit
from vit_tf.layers.hooks import active_hooks, call_with_hooks

pytestmark = pytest.mark.every_backend

SMALL = dict(image_size=8, patch_size=4, num_layers=2, hidden_dim=16, num_heads=2, mlp_dim=32, num_classes=3)
EXPLAIN = {
    "attention_maps": lambda m, x: np.stack(list(vit_tf.attention_maps(m, x).values())),
    "attention_distance": vit_tf.attention_distance,
    "attention_rollout": vit_tf.attention_rollout,
    "class_relevance": vit_tf.class_relevance,
    "grad_cam": vit_tf.grad_cam,
    "forward_features": lambda m, x: np.stack(list(vit_tf.forward_features(m, x).values())),
    "patch_filters": lambda m, x: vit_tf.patch_filters(m),
    "position_similarity": lambda m, x: vit_tf.position_similarity(m),
}


def small(**overrides):
    return randomize(build_vit("vit_b16", **{**SMALL, **overrides}), 0.3)


def some_images(count=2, seed=3):
    return np.random.default_rng(seed).normal(size=(count, 8, 8, 3)).astype("float32")


def predict(model, images):
    return model.predict(images, verbose=0)


def call(model, images):
    return keras.ops.convert_to_numpy(model(images))


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="Keras's `predict` on JAX takes the model's variables away: nothing can call the model meanwhile",
)
def test_threads_give_the_single_threads_numbers():
    """Each function in a thread of its own, beside `predict` and calls, all on images of their own."""
    model = small(pooling="map", class_token=False, query_chunk_size=2)
    calls = {**EXPLAIN, "predict": predict, "call": call}
    images = {name: some_images(seed=i) for i, name in enumerate(calls)}
    expected = {name: function(model, images[name]) for name, function in calls.items()}
    model.predict_function = None  # traced again, beside the others
    together = threading.Barrier(len(calls))

    def repeat(name):
        together.wait()
        return [calls[name](model, images[name]) for _ in range(3)]

    with ThreadPoolExecutor(len(calls)) as pool:
        found = dict(zip(calls, pool.map(repeat, calls)))
    for name, values in found.items():
        for value in values:
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.mark.fast_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention_maps", "class_relevance", "grad_cam"])
def test_eight_threads_of_one_function(name):
    model = small()
    images = [some_images(2, seed) for seed in range(8)]
    expected = [EXPLAIN[name](model, x) for x in images]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda x: EXPLAIN[name](model, x), images))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "name, error", [("attention_maps", KeyboardInterrupt), ("class_relevance", ZeroDivisionError)]
)
def test_nothing_is_left_behind(monkeypatch, name, error):
    model, images = small(), some_images()
    before = predict(model, images)

    def fail(self, *args, **options):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(vit_tf.layers.DotProductAttention, "softmax_scores", fail)
        with pytest.raises(error):
            EXPLAIN[name](model, images)
    assert not active_hooks()
    np.testing.assert_array_equal(predict(model, images), before)
    np.testing.assert_allclose(call(model, images), before, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="`predict` compiles nothing there")
def test_functions_that_are_compiled_meanwhile_are_without_hooks():
    model, images = small(), some_images()
    before = predict(model, images)
    model.predict_function = None
    heads = model.get_layer("block_0").attention_layers()[0].core_attention
    hooks = {(heads, "scores"): lambda x: 0 * x}
    within = call_with_hooks(hooks, predict, model, images)
    np.testing.assert_array_equal(within, before)
    np.testing.assert_array_equal(predict(model, images), before)
    assert np.abs(call_with_hooks(hooks, call, model, images) - before).max() > 1e-3


def test_hooks_within_hooks():
    model, images = small(), some_images()
    first, second = (model.get_layer(f"block_{i}").attention_layers()[0].core_attention for i in range(2))
    seen = []

    def inner():
        return call_with_hooks({(second, "qkv"): lambda x: seen.append("second")}, call, model, images)

    found = call_with_hooks({(first, "qkv"): lambda x: seen.append("first")}, inner)
    assert seen == ["first", "second"]
    np.testing.assert_array_equal(found, call(model, images))
