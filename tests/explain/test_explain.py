"""What is seen inside a model, against timm's own record, closed forms and NumPy."""

import json

import keras
import numpy as np
import pytest
from support.cases import INSIDE, build, random_images, timm_case, write_weights
from support.explained import not_on_jax, small, some_images
from support.paths import FIXTURES

import vit_tf
from vit_tf.explain import maps as attention
from vit_tf.layers.hooks import active_hooks

pytestmark = pytest.mark.every_backend

RECORDED = json.loads((FIXTURES / "inside.json").read_text())
SHAPES = {case["id"]: case for case in json.loads((FIXTURES / "logits.json").read_text())}


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record["id"])
def test_attention_and_features_are_timms(record, tmp_path):
    case = SHAPES[record["id"]]
    model = build(case, write_weights(case, tmp_path))
    images = random_images(case)
    maps = vit_tf.attention_maps(model, images, layers=[-1])
    assert list(maps) == [f"block_{record['layer']}"]
    (scores,) = maps.values()
    expected = np.array(record["attention"])
    assert scores.dtype == "float32" and expected.std() > 0.01
    np.testing.assert_allclose(scores[0], expected, atol=1e-5)  # probabilities: sums in another order
    (features,) = vit_tf.forward_features(model, images, layers=[-1]).values()
    expected = np.array(record["features"])
    np.testing.assert_allclose(features[0], expected, atol=1e-4 * np.abs(expected).max())


ON_JAX = (
    "vit_tiny_patch16_224",
    "vit_base_patch16_siglip_224",
    "vit_small_patch14_reg4_dinov2",
)


@pytest.mark.fast_cases(2)
@pytest.mark.parametrize("record", RECORDED, ids=lambda record: record["id"])
def test_relevance_is_that_of_timms_gradients(record, tmp_path):
    if keras.backend.backend() == "jax" and record["id"] not in ON_JAX:
        pytest.skip("gradients without compilation are slow on JAX: three kinds are enough there")
    case = SHAPES[record["id"]]
    model, images = build(case, write_weights(case, tmp_path)), random_images(case)[:1]
    query = "patches" if isinstance(model.get_layer("pooling"), vit_tf.layers.AttentionPooling) else None
    for found, name in (
        (vit_tf.class_relevance(model, images, 1, query=query), "relevance"),
        (vit_tf.grad_cam(model, images, 1), "grad_cam"),
    ):
        expected = np.array(record[name])
        # Gradients of float32 through two blocks; where patches are averaged, most of a map is one value
        tolerance = 1e-5 * expected.max()
        assert expected.std() > 10 * tolerance  # else any map would pass
        np.testing.assert_allclose(found[0], expected, atol=tolerance)


def test_every_kind_is_recorded():
    assert tuple(record["id"] for record in RECORDED) == INSIDE
    assert {timm_case(name)["id"] for name in INSIDE} <= SHAPES.keys()


@pytest.mark.slow
@not_on_jax
def test_a_saved_model_in_half_precision_and_its_state_afterwards(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = small()
    images = some_images(model)
    before = keras.ops.convert_to_numpy(model(images))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    maps = vit_tf.attention_maps(loaded, images)
    assert all(x.dtype == "float32" for x in maps.values())
    np.testing.assert_allclose(maps["block_1"].sum(-1), 1, atol=0.02)  # bfloat16 has three digits
    assert vit_tf.class_relevance(loaded, images).dtype == "float32"
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(loaded(images)), before)


def test_an_error_leaves_nothing_behind(monkeypatch):
    model = small()
    monkeypatch.setattr(attention, "to_numpy", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        vit_tf.attention_maps(model, some_images(model))
    assert not active_hooks()


@pytest.mark.slow
@not_on_jax
def test_maps_are_resized_to_the_image():
    model = small()
    images = some_images(model)
    for function in (vit_tf.attention_rollout, vit_tf.class_relevance, vit_tf.grad_cam):
        found, large = function(model, images), function(model, images, upsample=True)
        assert found.shape == (2, 2, 3) and large.shape == (2, 8, 12)
        assert large.max() <= found.max() * 1.0001 and np.ptp(found) > 0
        np.testing.assert_allclose(large.mean(), found.mean(), rtol=0.2)
    model = small(image_size=(10, 15), allow_remainder=True)
    large = vit_tf.attention_rollout(model, some_images(model), upsample=True)
    assert large.shape == (2, 10, 15) and large[:, :8, :12].min() > 0
    assert not large[:, 8:].any() and not large[:, :, 12:].any()  # no patch covers these


@pytest.mark.slow
@not_on_jax
def test_rematerialised_models_show_the_same():
    model = small()
    with keras.RematScope("full"):
        again = small()
    images = some_images(model)
    for function in (vit_tf.class_relevance, vit_tf.grad_cam, vit_tf.attention_rollout):
        found = function(again, images)
        assert found.max() > 0
        np.testing.assert_allclose(found, function(model, images), rtol=1e-4, atol=1e-7)


@pytest.mark.slow
@not_on_jax
def test_heads_of_ones_own_and_activations():
    model = small(num_classes=0)
    images = some_images(model)
    dense = keras.layers.Dense(4)
    logits = dense(model.output)
    mine = keras.Model(model.input, logits)
    softmax = keras.Model(model.input, keras.layers.Softmax()(logits))
    inside = keras.layers.Dense(4, activation="softmax")
    one_layer = keras.Model(model.input, inside(model.output))
    dense.kernel.assign(300 * dense.kernel)  # whose softmax is all but 0 or 1, and has no gradient
    inside.set_weights(dense.get_weights())
    for function in (vit_tf.class_relevance, vit_tf.grad_cam):
        found = function(mine, images, 3)
        assert found.max() > 0
        np.testing.assert_array_equal(function(softmax, images, 3), found)
        np.testing.assert_allclose(function(one_layer, images, 3), found, rtol=1e-4, atol=1e-7)
    two = keras.Model(model.input, [logits, keras.layers.Dense(2)(model.output)])
    with pytest.raises(ValueError, match="outputs of several shapes"):
        vit_tf.class_relevance(two, images)


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, x: vit_tf.attention_maps(keras.Sequential([m]), x), r"here `model.get_layer\(NAME\)`"),
        (lambda m, x: vit_tf.attention_maps("vit", x), "give a model of `build_vit`"),
        (
            lambda m, x: vit_tf.attention_maps(m, x[:, :4]),
            r"takes images of the shape \('b', 8, 12, 3\), got",
        ),
        (lambda m, x: vit_tf.attention_maps(m, x[0]), r"images\[None\]"),
        (lambda m, x: vit_tf.attention_maps(m, x[:0]), "takes images of the shape"),
        (
            lambda m, x: vit_tf.attention_maps(m, x.astype(str)),
            "an array of <U32: `vit_tf.get_preprocessing` reads",
        ),
        (lambda m, x: vit_tf.attention_maps(m, "cat.jpg"), "got 'cat.jpg': `vit_tf.get_preprocessing` reads"),
        (lambda m, x: vit_tf.attention_maps(m, [x[0], x[0, 1:]]), "got several shapes"),
        (lambda m, x: vit_tf.attention_maps(m, x.transpose(0, 3, 1, 2)), "channels come last"),
        (lambda m, x: vit_tf.attention_maps(m, x * np.nan), "must be finite"),
        (lambda m, x: vit_tf.attention_maps(m, x.astype("uint8")), "takes normalised images, got uint8"),
        (lambda m, x: vit_tf.attention_maps(m, x, layers=1.0), "no block 1.0"),
        (lambda m, x: vit_tf.attention_maps(m, x, layers=[True]), "no block True"),
        (lambda m, x: vit_tf.attention_maps(m, x, layers=[-1, "pooling"]), "does not pool by attention"),
        (
            lambda m, x: vit_tf.attention_maps(keras.Model(m.get_layer("block_0").input, m.output), x[:, 0]),
            "no layer that cuts images into patches",
        ),
        (
            lambda m, x: vit_tf.attention_maps(m, x, layers=[2]),
            "no block 2: choose from 'block_0' to 'block_1'",
        ),
        (lambda m, x: vit_tf.attention_maps(m, x, layers=["norm"]), "no block 'norm'"),
        (lambda m, x: vit_tf.attention_maps(m, x, layers=[]), "no block was chosen"),
        (lambda m, x: vit_tf.attention_maps(m, x, reduce="sum"), "'mean', 'max', 'min' or None, got 'sum'"),
        (lambda m, x: vit_tf.attention_maps(m, x, queries="distillation_token"), "choose 'class_token' or"),
        (lambda m, x: vit_tf.attention_rollout(m, x, "sum"), "`head_fusion` must be"),
        (lambda m, x: vit_tf.attention_rollout(m, x, discard_ratio=1), r"a number in \[0, 1\), got 1"),
        (lambda m, x: vit_tf.class_relevance(m, x, 3), "an int from 0 to 2"),
        (lambda m, x: vit_tf.class_relevance(m, x, [0, 1, 2]), "one for each of 2 images"),
        (lambda m, x: vit_tf.class_relevance(m, x, 0.5), "an int from 0 to 2"),
        (lambda m, x: vit_tf.class_relevance(small(num_classes=0), x), "has no head"),
        (lambda m, x: vit_tf.grad_cam(m, x, layer=[0, 1]), "must be one block"),
        (lambda m, x: vit_tf.patch_filters(m, 0), "must be a positive int"),
        (lambda m, x: vit_tf.patch_filters(m, "3"), "must be a positive int, got '3'"),
        (lambda m, x: vit_tf.position_similarity(keras.Sequential()), "no encoder blocks"),
        (lambda m, x: vit_tf.features_to_rgb(x[0]), "must be"),
        (lambda m, x: vit_tf.linear_cka(x, x[:1]), r"of the same images, two or more of them, got \[1, 2\]"),
        (
            lambda m, x: vit_tf.attention_rollout(
                small(pooling="avg", class_token=False), x, query="class_token"
            ),
            "has no tokens 'class_token': choose 'patches'",
        ),
    ],
)
def test_bad_input(call, message, model):
    with pytest.raises(ValueError, match=message):
        call(model, some_images(model))
