"""Attention maps and distances against the layers' own scores and by hand."""

import keras
import numpy as np
import pytest
from support.explained import SMALL, small, some_images

import vit_tf
from vit_tf import build_vit
from vit_tf.explain import maps as attention
from vit_tf.structure import ViTStructure

pytestmark = pytest.mark.every_backend


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        dict(distillation_token=True, num_registers=3),
        dict(class_token=False, pooling="avg"),
        dict(query_chunk_size=2),
        dict(block="parallel_things"),
        dict(block="parallel_scaling", attention="differential"),
    ],
    ids=lambda overrides: "-".join(overrides) or "plain",
)
def test_rows_of_chosen_layers_and_tokens(overrides):
    model = small(**overrides)
    images = some_images(model)
    maps = vit_tf.attention_maps(model, images)
    n = 6 + ViTStructure(model).patch_encoder.num_prefix_tokens
    assert {name: x.shape for name, x in maps.items()} == {f"block_{i}": (2, 2, n, n) for i in range(2)}
    for i, name in enumerate(maps):
        _, expected = model.get_layer(name)(
            keras.Model(model.input, model.get_layer(name).input)(images), return_attention_scores=True
        )
        np.testing.assert_allclose(maps[name], keras.ops.convert_to_numpy(expected), atol=1e-6)
        if overrides.get("attention") != "differential":
            np.testing.assert_allclose(maps[name].sum(-1), 1, atol=1e-5)
        for chosen in (i, i - 2, name):
            assert list(vit_tf.attention_maps(model, images, layers=[chosen])) == [name]
    places = {"class_token": slice(0, 1), "patches": slice(n - 6, n)}
    if "num_registers" in overrides:
        places |= {"distillation_token": slice(1, 2), "register_tokens": slice(2, 5)}
    if "class_token" in overrides:
        del places["class_token"]
    for name, place in places.items():
        some = vit_tf.attention_maps(model, images, layers=-1, queries=name)["block_1"]
        np.testing.assert_allclose(some, maps["block_1"][:, :, place], atol=1e-6)
    for reduce in ("mean", "max", "min"):
        fused = vit_tf.attention_maps(model, images, reduce=reduce)["block_0"]
        np.testing.assert_allclose(fused, getattr(np, reduce)(maps["block_0"], axis=1), atol=1e-6)


@pytest.mark.slow
def test_few_queries_at_a_time_give_the_same(monkeypatch):
    model = small()
    images = some_images(model)
    whole, distance = vit_tf.attention_maps(model, images), vit_tf.attention_distance(model, images)
    monkeypatch.setattr(attention, "CHUNK_BYTES", 2 * 2 * 7 * 4 * 3)  # three queries
    blocks = vit_tf.attention_maps(model, images)
    for name in whole:
        np.testing.assert_allclose(blocks[name], whole[name], atol=1e-6)
    np.testing.assert_allclose(vit_tf.attention_distance(model, images), distance, rtol=1e-5)


@pytest.mark.slow
def test_attention_of_the_pooling():
    model = small(pooling="map", class_token=False)
    maps = vit_tf.attention_maps(model, some_images(model), layers="pooling")
    assert list(maps) == ["pooling"] and maps["pooling"].shape == (2, 2, 1, 6)
    np.testing.assert_allclose(maps["pooling"].sum(-1), 1, atol=1e-5)
    mean = vit_tf.attention_maps(model, some_images(model), layers=["pooling"], reduce="mean")["pooling"]
    np.testing.assert_allclose(mean, maps["pooling"].mean(1), atol=1e-6)
    both = vit_tf.attention_maps(model, some_images(model), layers=(-1, "pooling"))
    assert list(both) == ["block_1", "pooling"]
    np.testing.assert_array_equal(both["pooling"], maps["pooling"])
    with pytest.raises(ValueError, match="does not pool by attention"):
        vit_tf.attention_maps(small(), some_images(small()), layers="pooling")


def test_distance_of_uniform_attention():
    model = build_vit("vit_b16", **{**SMALL, "image_size": (8, 12), "patch_size": (2, 4)})
    for block in ViTStructure(model).blocks.values():
        block.attention.qkv.kernel.assign(0 * block.attention.qkv.kernel)
    places = [(2 * row, 4 * column) for row in range(4) for column in range(3)]
    expected = np.mean([np.hypot(a[0] - b[0], a[1] - b[1]) for a in places for b in places])
    found = vit_tf.attention_distance(model, some_images(model))
    assert found.shape == (2, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("shift, expected", [(0, 0), (1, 4)])
def test_distance_of_diagonal_attention(monkeypatch, shift, expected):
    model = small(image_size=(4, 24))  # one row of six patches
    matrix = np.roll(np.eye(7, dtype="float32"), shift, axis=1)
    matrix[-1] = (
        matrix[-2] if shift else matrix[-1]
    )  # the last patch has no right neighbour: itself a left one

    def scores(heads, qkv, queries):
        return keras.ops.convert_to_tensor(np.broadcast_to(matrix[queries], (2, 2, *matrix[queries].shape)))

    monkeypatch.setattr(vit_tf.layers.DotProductAttention, "scores", scores)
    found = vit_tf.attention_distance(model, some_images(model), layers=[0])
    last = 0 if shift else expected  # patch 5 looks at itself, as patch 4 does at patch 5
    np.testing.assert_allclose(found, (5 * expected + last) / 6, atol=1e-6)


def test_queries_that_attend_to_no_patch_are_left_out(monkeypatch):
    model = small(image_size=(4, 24))
    matrix = np.roll(np.eye(7, dtype="float32"), 1, axis=1)
    matrix[-1] = 0
    matrix[-1, 0] = 1  # the last patch attends to the class token alone

    def scores(heads, qkv, queries):
        return keras.ops.convert_to_tensor(np.broadcast_to(matrix[queries], (2, 2, *matrix[queries].shape)))

    monkeypatch.setattr(vit_tf.layers.DotProductAttention, "scores", scores)
    np.testing.assert_allclose(vit_tf.attention_distance(model, some_images(model)), 4, atol=1e-6)
