"""What is seen inside a model, against timm's own record, closed forms and NumPy."""

import json
import sys

import keras
import numpy as np
import pytest
from conftest import randomize
from support.cases import INSIDE, build, random_images, timm_case, write_weights
from support.paths import FIXTURES, ROOT

import vit_tf
from vit_tf import build_vit, data
from vit_tf.explain import maps as attention
from vit_tf.explain import relevance
from vit_tf.layers.hooks import active_hooks, call_with_hooks
from vit_tf.structure import ViTStructure

sys.path.append(str(ROOT / "benchmarks"))
import perturbation  # noqa: E402

pytestmark = pytest.mark.every_backend

RECORDED = json.loads((FIXTURES / "inside.json").read_text())
SHAPES = {case["id"]: case for case in json.loads((FIXTURES / "logits.json").read_text())}
SMALL = dict(
    image_size=(8, 12), patch_size=4, num_layers=2, hidden_dim=16, num_heads=2, mlp_dim=32, num_classes=3
)


not_on_jax = pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="JAX compiles each operation apart, and others show the same there",
)


def small(**overrides):
    return randomize(build_vit("vit_b16", **{**SMALL, **overrides}), 0.3)


def adding(change):
    """Returns a hook that adds an array to a tensor."""
    return lambda x: x + keras.ops.convert_to_tensor(change)


def some_images(model, count=2):
    return np.random.default_rng(3).normal(size=(count, *model.input_shape[1:])).astype("float32")


# ---------------------------------------------------------------------------------------------------
# Attention
# ---------------------------------------------------------------------------------------------------
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
        assert expected.std() > 1e-4
        # Gradients of float32 through two blocks; where patches are averaged, most of a map is one value
        np.testing.assert_allclose(found[0], expected, atol=1e-5 * expected.max())


def test_every_kind_is_recorded():
    assert tuple(record["id"] for record in RECORDED) == INSIDE
    assert {timm_case(name)["id"] for name in INSIDE} <= SHAPES.keys()


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
    n = 6 + ViTStructure(model).encoder.num_prefix_tokens
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


def test_few_queries_at_a_time_give_the_same(monkeypatch):
    model = small()
    images = some_images(model)
    whole, distance = vit_tf.attention_maps(model, images), vit_tf.attention_distance(model, images)
    monkeypatch.setattr(attention, "BLOCK_BYTES", 2 * 2 * 7 * 4 * 3)  # three queries
    blocks = vit_tf.attention_maps(model, images)
    for name in whole:
        np.testing.assert_allclose(blocks[name], whole[name], atol=1e-6)
    np.testing.assert_allclose(vit_tf.attention_distance(model, images), distance, rtol=1e-5)


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


# ---------------------------------------------------------------------------------------------------
# Distance
# ---------------------------------------------------------------------------------------------------
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


# ---------------------------------------------------------------------------------------------------
# Rollout, relevance, Grad-CAM
# ---------------------------------------------------------------------------------------------------
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


@not_on_jax
def test_relevance_of_one_block_against_finite_differences():
    model = small(num_layers=1)
    images, step = some_images(model, 1), 1e-2
    heads = model.get_layer("block_0").attentions()[0]
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


@not_on_jax
@pytest.mark.parametrize("kind", READS)
def test_what_the_pooling_reads_is_asked_for(kind):
    overrides, expected = READS[kind]
    model = small(**overrides, num_layers=1)
    images = some_images(model)
    anatomy = ViTStructure(model)
    np.testing.assert_allclose(anatomy.pooled_rows(), expected, rtol=1e-6)
    (matrix,), _ = relevance.weighted_by_gradient(anatomy, images, 1)
    assert (matrix.max(axis=(0, 2)) > 0).tolist() == (np.array(expected) > 0).tolist()
    found = np.einsum("q,bqk->bk", expected, matrix + np.eye(8))[:, 2:].reshape(2, 2, 3)
    np.testing.assert_allclose(vit_tf.class_relevance(model, images, 1), found, rtol=1e-4, atol=1e-7)


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


def test_rollout_of_differential_attention_is_of_shares():
    model = small(attention="differential")
    images = some_images(model)
    assert vit_tf.attention_maps(model, images)["block_0"].min() < 0
    found = vit_tf.attention_rollout(model, images)
    assert found.min() >= 0 and found.sum(axis=(1, 2)).max() < 1


@not_on_jax
def test_the_true_maps_are_faithful():
    """The package's model, without the fifth of the patches that relevance puts first, or last."""
    sample = data.load_cifar10("sample")
    model = build_vit("vit_cifar10", weights="cifar10")
    x = vit_tf.get_preprocessing("vit_cifar10")(sample.x_test[:100])
    labels, maps = sample.y_test[:100], vit_tf.class_relevance(model, x)
    correct = [
        perturbation.correct(model, perturbation.without(x, maps, 0.2, first), labels)
        for first in (True, False)
    ]
    assert correct[0] < correct[1] - 20  # measured: 55 and 90 of 100


@not_on_jax
def test_the_likeliest_class_is_asked_for():
    model = small(distillation_token=True)
    images = some_images(model)
    likeliest = keras.ops.convert_to_numpy(model(images)).argmax(-1)
    for function in (vit_tf.class_relevance, vit_tf.grad_cam):
        np.testing.assert_array_equal(function(model, images), function(model, images, likeliest))
    both = build_vit("vit_b16", **SMALL, distillation_token=True, separate_heads=True)
    both.set_weights(model.get_weights())
    np.testing.assert_allclose(  # the sum of the logits, twice their mean, has twice the gradient
        vit_tf.grad_cam(both, images), 2 * vit_tf.grad_cam(model, images), rtol=1e-4, atol=1e-7
    )


def test_grad_cam_in_closed_form():
    model = small(pooling="avg", class_token=False, final_norm="none", num_layers=1)
    block = model.get_layer("block_0")
    kernels = {variable.path.split("block_0/")[1]: variable for variable in block.trainable_variables}
    qkv = keras.ops.convert_to_numpy(kernels["attention/qkv/kernel"]).copy()
    qkv[:, :16] = 0
    kernels["attention/qkv/kernel"].assign(qkv)
    kernels["attention/qkv/bias"].assign(0 * kernels["attention/qkv/bias"])
    kernels["mlp/fc2/kernel"].assign(0 * kernels["mlp/fc2/kernel"])
    # Without queries all attend to all alike, and the MLP gives nothing: the logit is linear in the tokens.
    projection, head = (
        keras.ops.convert_to_numpy(x)
        for x in (kernels["attention/projection/kernel"], model.get_layer("head").kernel)
    )
    images = some_images(model)
    tokens = block.attention_norm(keras.Model(model.input, block.input)(images))
    slopes = qkv[:, 32:] @ projection @ head[:, 1] / 6  # of each token
    expected = np.maximum(0, keras.ops.convert_to_numpy(tokens) @ slopes)
    assert 0 < (expected > 0).mean() < 1
    np.testing.assert_allclose(vit_tf.grad_cam(model, images, 1), expected.reshape(2, 2, 3), atol=1e-5)


@not_on_jax
@pytest.mark.parametrize("block", ["encoder", "res_post", "parallel_things", "parallel_scaling"])
def test_grad_cam_against_finite_differences(block):
    model = small(block=block, num_layers=1)
    images, step = some_images(model, 1), 1e-2
    readers = model.get_layer("block_0").attention_layers()
    many = np.repeat(images, 32, axis=0)  # a channel up or down in each
    change = np.zeros((2, 16, 7, 16), "float32")
    for channel in range(16):
        change[:, channel, 1:, channel] = [[step], [-step]]
    cam = 0
    for reader in readers:
        seen = []

        def hook(x, seen=seen):
            seen.append(keras.ops.convert_to_numpy(x))
            return x + keras.ops.convert_to_tensor(change.reshape(32, 7, 16))

        logits = keras.ops.convert_to_numpy(call_with_hooks({(reader, "tokens"): hook}, model, many))
        above, below = logits[:, 2].reshape(2, 16)
        cam = cam + seen[0][0, 1:] @ ((above - below) / (2 * step * 6))
    found = vit_tf.grad_cam(model, images, class_index=2)[0]
    expected = np.maximum(0, cam).reshape(2, 3)
    assert len(readers) == (2 if block == "parallel_things" else 1) and expected.max() > 1e-3
    # The second difference of a smooth function: 1e-4 of the largest, and float32's 1e-7 over the step
    np.testing.assert_allclose(found, expected, atol=2e-3 * max(1, expected.max()))


# ---------------------------------------------------------------------------------------------------
# Features
# ---------------------------------------------------------------------------------------------------
def test_features_of_chosen_blocks():
    model = small(num_registers=1)
    images = some_images(model)
    maps = vit_tf.forward_features(model, images)
    tokens = vit_tf.forward_features(model, images, reshape=False)
    raw = vit_tf.forward_features(model, images, layers=["block_0"], norm=False, reshape=False)
    assert [x.shape for x in maps.values()] == 2 * [(2, 2, 3, 16)]
    assert [x.shape for x in tokens.values()] == 2 * [(2, 8, 16)]
    np.testing.assert_array_equal(maps["block_1"].reshape(2, 6, 16), tokens["block_1"][:, 2:])
    block = keras.Model(model.input, model.get_layer("block_0").output)(images)
    np.testing.assert_allclose(raw["block_0"], keras.ops.convert_to_numpy(block), atol=1e-6)
    assert np.abs(raw["block_0"] - tokens["block_0"]).max() > 0.1


def test_colours_tell_what_is_alike():
    rng = np.random.default_rng(0)
    features = np.zeros((2, 6, 8, 10))
    features[..., 0] = -5
    features[:, 2:4, 2:6] = rng.normal(size=(10,)) * 3  # an object in the middle of each
    features += rng.normal(size=features.shape) * 0.1
    colours = vit_tf.features_to_rgb(features)
    assert colours.shape == (2, 6, 8, 3) and colours.min() >= 0 and colours.max() <= 1
    inside = np.zeros((6, 8), bool)
    inside[2:4, 2:6] = True
    for image in colours:  # the first component separates the two
        assert abs(image[inside, 0].mean() - image[~inside, 0].mean()) > 0.8
    black = vit_tf.features_to_rgb(features, foreground=True)
    np.testing.assert_array_equal((black.sum(-1) > 0)[:, inside].mean() > 0.9, True)
    assert not black[:, ~inside].any()
    turned = vit_tf.features_to_rgb(features @ np.linalg.qr(rng.normal(size=(10, 10)))[0])
    np.testing.assert_allclose(turned[..., 0], colours[..., 0], atol=1e-3)


def test_cka():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(40, 5)), rng.normal(size=(40, 2, 3))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert vit_tf.linear_cka(x, 3 * x @ rotation + 7) == pytest.approx(1)
    y = noise.reshape(40, 6) - noise.reshape(40, 6).mean(0)
    c = x - x.mean(0)
    expected = np.sum((y.T @ c) ** 2) / np.linalg.norm(c.T @ c) / np.linalg.norm(y.T @ y)
    assert vit_tf.linear_cka(x, noise) == pytest.approx(expected) and expected < 0.5
    matrix = vit_tf.linear_cka({"a": x, "b": noise}, {"c": noise})
    np.testing.assert_allclose(matrix, [[expected], [1]])
    assert vit_tf.linear_cka(x, np.ones((40, 3))) == 0
    wide = rng.normal(size=(40, 50))  # more features than images: by their inner products
    found = vit_tf.linear_cka({"x": x, "wide": wide}, {"x": x, "noise": noise})
    np.testing.assert_allclose(found[0], [1, expected])
    c = wide - wide.mean(0)
    assert found[1, 1] == pytest.approx(
        np.sum((y.T @ c) ** 2) / np.linalg.norm(c.T @ c) / np.linalg.norm(y.T @ y)
    )
    both = {"x": x, "wide": wide}
    np.testing.assert_allclose(vit_tf.linear_cka(both, both), vit_tf.linear_cka(both, dict(both)))


def test_position_similarity():
    model = small(num_registers=2)
    found = vit_tf.position_similarity(model)
    assert found.shape == (2, 3, 2, 3)
    table = keras.ops.convert_to_numpy(model.get_layer("patch_encoder").position_embedding)[0, 3:]
    a, b = table[1], table[5]  # row 0, column 1; row 1, column 2
    np.testing.assert_allclose(found[0, 1, 1, 2], a @ b / np.linalg.norm(a) / np.linalg.norm(b), rtol=1e-4)
    np.testing.assert_allclose(np.einsum("ijij->ij", found), 1, rtol=1e-5)


@pytest.mark.parametrize("stem", ["conv", "patches", "overlap", "whitened"])
def test_patch_filters(stem):
    model = small(patch_stem=stem)
    if stem == "whitened":  # random filters are no principal components; those of data are orthogonal
        whitening = model.get_layer("patch_embedding").whitening
        whitening.assign(np.linalg.qr(np.random.default_rng(0).normal(size=(27, 27)))[0].reshape(3, 3, 3, 27))
    found = vit_tf.patch_filters(model, 5)
    side = 3 if stem in ("overlap", "whitened") else 4
    assert found.shape == (5, side, side, 3)
    flat = found.reshape(5, -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(5), atol=1e-5)
    if stem == "conv":  # one direction, more or less of it in each filter
        direction = np.random.default_rng(1).normal(size=(4, 4, 3))
        kernel = direction[..., None] * np.linspace(-1, 2, 16)
        model.get_layer("patch_embedding").projection.kernel.assign(kernel)
        (first,) = vit_tf.patch_filters(model)  # there is no second component
        assert abs(np.sum(first * direction)) == pytest.approx(np.linalg.norm(direction), rel=1e-5)


# ---------------------------------------------------------------------------------------------------
# Bad input
# ---------------------------------------------------------------------------------------------------
@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, x: vit_tf.attention_maps(keras.Sequential([m]), x), "give the ViT inside"),
        (lambda m, x: vit_tf.attention_maps("vit", x), "expected a model of `vit_tf.build_vit`"),
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
            "without image patches at its entrance",
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
        (lambda m, x: vit_tf.attention_rollout(m, x, discard_ratio=1), r"must be in \[0, 1\), got 1"),
        (lambda m, x: vit_tf.class_relevance(m, x, 3), "an int from 0 to 2"),
        (lambda m, x: vit_tf.class_relevance(m, x, [0, 1, 2]), "one for each of 2 images"),
        (lambda m, x: vit_tf.class_relevance(m, x, 0.5), "an int from 0 to 2"),
        (lambda m, x: vit_tf.class_relevance(small(num_classes=0), x), "has no head"),
        (lambda m, x: vit_tf.grad_cam(m, x, layer=[0, 1]), "must be one block"),
        (lambda m, x: vit_tf.patch_filters(m, 0), "must be a positive int"),
        (lambda m, x: vit_tf.patch_filters(m, "3"), "must be a positive int, got '3'"),
        (lambda m, x: vit_tf.position_similarity(keras.Sequential()), "expected a model"),
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
def test_bad_input(call, message):
    model = small()
    with pytest.raises(ValueError, match=message):
        call(model, some_images(model))
