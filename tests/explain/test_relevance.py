"""Rollout and class relevance by hand and against finite differences."""

import keras
import numpy as np
import pytest
from support.explained import adding, not_on_jax, small, some_images
from support.scripts import load_script

import vit_tf
from vit_tf import build_vit, data
from vit_tf.explain import relevance
from vit_tf.layers.hooks import call_with_hooks
from vit_tf.structure import ViTStructure

pytestmark = pytest.mark.every_backend
perturbation = load_script("perturbation", "benchmarks")


def test_rollout_by_hand(monkeypatch):
    model = small(image_size=(4, 8))  # a class token and two patches
    first = np.array([[0.5, 0.25, 0.25], [0, 1, 0], [0.5, 0, 0.5]])
    second = np.array([[0, 0.5, 0.5], [0.25, 0.5, 0.25], [0, 0, 1]])
    maps = {"block_0": first[None].astype("float32"), "block_1": second[None].astype("float32")}
    monkeypatch.setattr(relevance, "attention_maps", lambda *args, **options: dict(maps))
    found = vit_tf.attention_rollout(model, some_images(model, 1))
    # ([0, .5, .5] + [1, 0, 0]) / 2 = [.5, .25, .25], times
    # [[.75, .125, .125], [0, 1, 0], [.25, 0, .75]] = [.4375, .3125, .25]
    np.testing.assert_array_equal(found, [[[0.3125, 0.25]]])


@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "fusion, ratio, query", [("mean", 0, None), ("max", 0.5, None), ("min", 0.3, "patches")]
)
def test_rollout_is_the_product_of_matrices(fusion, ratio, query):
    model = small(num_layers=3)
    images = some_images(model)
    product = np.eye(7)
    for scores in vit_tf.attention_maps(model, images).values():
        fused = getattr(np, fusion)(scores, axis=1)
        limit = np.sort(fused, axis=-1)[..., int(7 * ratio), None]
        fused = np.where(fused < limit, 0, fused) + np.eye(7)
        product = fused / fused.sum(-1, keepdims=True) @ product
    expected = product[:, 1:].mean(1)[:, 1:] if query else product[:, 0, 1:]
    found = vit_tf.attention_rollout(model, images, fusion, ratio, query=query)
    np.testing.assert_allclose(found, expected.reshape(2, 2, 3), atol=1e-6)


@pytest.mark.slow
@not_on_jax
def test_relevance_of_one_block_against_finite_differences():
    model = small(num_layers=1)
    images, step = some_images(model, 1), 1e-2
    heads = model.get_layer("block_0").attention_layers()[0].core_attention
    scores = vit_tf.attention_maps(model, images)["block_0"][0]  # (2, 7, 7)
    slopes = np.zeros((2, 7))
    for head, key in np.ndindex(2, 7):
        change = np.zeros((1, 2, 7, 7), "float32")
        change[0, head, 0, key] = step
        logits = []
        for sign in (1, -1):
            hooks = {(heads, "scores"): adding(sign * change)}
            logits.append(keras.ops.convert_to_numpy(call_with_hooks(hooks, model, images))[0, 2])
        slopes[head, key] = (logits[0] - logits[1]) / (2 * step)
    expected = np.maximum(0, scores[:, 0] * slopes).mean(0)[1:].reshape(2, 3)
    found = vit_tf.class_relevance(model, images, class_index=2)[0]
    assert found.max() > 1e-3
    np.testing.assert_allclose(found, expected, atol=2e-3 * expected.max())  # the step's own error


@pytest.mark.tensorflow_only
@pytest.mark.slow
def test_relevance_adds_up_over_blocks_and_asks_for_a_class():
    for overrides in (
        {},
        dict(attention="differential"),
        dict(block="parallel_things"),
        dict(query_chunk_size=3),
    ):
        model = small(**overrides)
        images = some_images(model)
        matrices, pooled = relevance.weighted_by_gradient(ViTStructure(model), images, 1)
        assert pooled is None
        total = np.eye(7)
        for matrix in matrices:
            assert matrix.shape == (2, 7, 7) and matrix.max() > 0
            total = total + matrix @ total
        found = vit_tf.class_relevance(model, images, class_index=1)
        np.testing.assert_allclose(found, total[:, 0, 1:].reshape(2, 2, 3), atol=1e-6)
        other = vit_tf.class_relevance(model, images, class_index=0)
        assert np.abs(found - other).max() > 0.05 * found.max()
        both = vit_tf.class_relevance(model, images, class_index=[1, 0])
        np.testing.assert_allclose(both, [found[0], other[1]], atol=1e-6)


READS = {  # weights of a class token, a distillation token or register, and six patches
    "token": (dict(num_registers=1), [1] + 7 * [0]),
    "distilled": (dict(distillation_token=True), [0.5, 0.5] + 6 * [0]),
    "avg": (dict(pooling="avg", class_token=True, num_registers=1), [0, 0] + 6 * [1 / 6]),
    "avg of all": (dict(pooling="avg", class_token=True, num_registers=1, pool_prefix=True), 8 * [1 / 8]),
    "token_avg": (dict(pooling="token_avg", num_registers=1), [0.5, 0] + 6 * [1 / 12]),
    "max": (dict(pooling="max", num_registers=2, class_token=False), [0, 0] + 6 * [1 / 6]),
}


@pytest.mark.fast_cases(2)
@not_on_jax
@pytest.mark.parametrize("kind", READS)
def test_what_the_pooling_reads_is_asked_for(kind):
    overrides, expected = READS[kind]
    model = small(**overrides, num_layers=1)
    images = some_images(model)
    structure = ViTStructure(model)
    np.testing.assert_allclose(relevance.pooling_weights(structure), expected, rtol=1e-6)
    (matrix,), _ = relevance.weighted_by_gradient(structure, images, 1)
    assert (matrix.max(axis=(0, 2)) > 0).tolist() == (np.array(expected) > 0).tolist()
    found = np.einsum("q,bqk->bk", expected, matrix + np.eye(8))[:, 2:].reshape(2, 2, 3)
    np.testing.assert_allclose(vit_tf.class_relevance(model, images, 1), found, rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@not_on_jax
def test_a_learned_query_is_asked_for():
    model = small(pooling="map", class_token=True, num_layers=1)
    images = some_images(model)
    maps = vit_tf.attention_maps(model, images, reduce="mean")["block_0"]
    read = vit_tf.attention_maps(model, images, "pooling", reduce="mean")["pooling"]  # (2, 1, 6)
    rollout = (np.pad(read, ((0, 0), (0, 0), (1, 0))) @ (maps + np.eye(7)) / 2)[:, 0, 1:]
    np.testing.assert_allclose(
        vit_tf.attention_rollout(model, images), rollout.reshape(2, 2, 3), rtol=1e-4, atol=1e-7
    )
    pooling, step = model.get_layer("pooling"), 1e-2
    scores = vit_tf.attention_maps(model, images, "pooling")["pooling"][0, :, 0]  # (2, 6)
    slopes = np.zeros((2, 6))
    for head, key, sign in [(*place, sign) for place in np.ndindex(2, 6) for sign in (1, -1)]:
        change = np.zeros((2, 2, 1, 6), "float32")
        change[0, head, 0, key] = sign * step
        logits = call_with_hooks({(pooling, "scores"): adding(change)}, model, images)
        slopes[head, key] += sign * keras.ops.convert_to_numpy(logits)[0, 2] / (2 * step)
    (matrix,), pooled = relevance.weighted_by_gradient(ViTStructure(model), images, 2)
    expected = np.maximum(0, scores * slopes).mean(0)
    np.testing.assert_allclose(pooled[0], expected, atol=2e-3 * expected.max())
    whole = (np.pad(pooled, ((0, 0), (1, 0)))[:, None] @ (matrix + np.eye(7)))[:, 0, 1:]
    found = vit_tf.class_relevance(model, images, 2)
    np.testing.assert_allclose(found, whole.reshape(2, 2, 3), rtol=1e-5)
    assert found.max() > 0


def test_rollout_of_differential_attention_is_of_shares():
    model = small(attention="differential")
    images = some_images(model)
    assert vit_tf.attention_maps(model, images)["block_0"].min() < 0
    found = vit_tf.attention_rollout(model, images)
    assert found.min() >= 0 and found.sum(axis=(1, 2)).max() < 1


@pytest.mark.slow
@not_on_jax
def test_the_true_maps_are_faithful():
    """The package's model, without the fifth of the patches that relevance puts first, or last."""
    sample = data.load_cifar("sample")
    model = build_vit(weights="cifar10")
    x = vit_tf.get_preprocessing("cifar10")(sample.x_test[:100])
    labels, maps = sample.y_test[:100], vit_tf.class_relevance(model, x)
    correct = [
        perturbation.correct(model, perturbation.without(x, maps, 0.2, first), labels)
        for first in (True, False)
    ]
    assert correct[0] < correct[1] - 20  # measured: 55 and 90 of 100
