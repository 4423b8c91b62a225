import json

import keras
import numpy as np
import pytest

from vit_tf import build_vit, count_flops, get_flops, layers
from vit_tf.flops import COMPONENTS, flops_by_operation, inference_graph

pytestmark = pytest.mark.every_backend

profiled = pytest.mark.tensorflow_only("TensorFlow's profiler does the counting")
SMALL = dict(
    image_size=(16, 24), patch_size=8, hidden_dim=12, num_layers=2, num_heads=3, mlp_dim=20, num_classes=5
)
FAMILIES = {
    "conv": {},
    "patches": dict(patch_stem="patches"),
    "overlap": dict(patch_stem="overlap"),
    "whitened": dict(patch_stem="whitened"),
    "avg": dict(pooling="avg"),
    "head_dim": dict(head_dim=7, qkv_bias=False),
    "layer_scale": dict(layer_scale_init=0.1),
    "features": dict(num_classes=0),
    "preprocessing": dict(include_preprocessing=True, in_channels=1),
    "map": dict(pooling="map", num_registers=2),
    "swiglu": dict(mlp="swiglu", sub_norm=True, qk_norm=True),
    "swiglu_split": dict(mlp="swiglu_split", norm="rms", embedding_norm=True, projection_bias=False),
    "differential": dict(attention="differential", hidden_dim=24, layer_scale_init=0.1),
    "parallel_things": dict(block="parallel_things", pre_norm=True, patch_bias=False),
    "parallel_scaling": dict(block="parallel_scaling", qkv_bias=False, head_dim=6, layer_scale_init=0.1),
    "fused": dict(block="parallel_scaling", attention="differential", hidden_dim=24, projection_bias=False),
    "res_post": dict(block="res_post", pooling="avg", final_norm="pooled"),
    "distilled": dict(distillation_token=True),
    "remainder": dict(image_size=(20, 29), allow_remainder=True),
}
each_family = pytest.mark.parametrize("overrides", FAMILIES.values(), ids=FAMILIES)


def small_vit(**overrides):
    return build_vit("vit_b16", **{**SMALL, **overrides})


def matrix_products(counts):
    return sum(counts.get(kind, 0) for kind in ("MatMul", "BatchMatMulV2", "Conv2D"))


@pytest.fixture(scope="module")
def vit_b16():
    with keras.StatelessScope(initialize_variables=False):
        return build_vit("vit_b16")


def test_vit_b16_has_the_published_numbers(vit_b16):
    table = count_flops(vit_b16)
    assert table.totals.parameters == 86_567_656
    assert table.totals.flops == 35_127_656_448
    assert table.totals.macs == 17_563_828_224
    rows = {row.component: row for row in table.rows}
    assert list(rows) == list(COMPONENTS)
    # by hand: 197 tokens, 12 layers of width 768
    assert rows["patch embedding"].macs == 196 * 768 * 768
    assert rows["QKV"].macs == 12 * 197 * 768 * 3 * 768
    assert rows["attention scores"].macs == rows["attention values"].macs == 12 * 197 * 197 * 768
    assert rows["projection"].macs == 12 * 197 * 768 * 768
    assert rows["MLP"].macs == 12 * 197 * 2 * 768 * 3072
    assert rows["head"].macs == 768 * 1000
    assert rows["class token and positions"].parameters == 198 * 768
    assert rows["norms"].parameters == 25 * 2 * 768
    assert rows["attention scores"].activation_bytes == 12 * 2 * 12 * 197 * 197 * 4
    assert table.attention_share == pytest.approx(2 * 12 * 197 * 197 * 768 / 17_563_828_224)


@profiled
def test_vit_b16_agrees_with_the_profiler(vit_b16):
    counts = flops_by_operation(vit_b16, 8)
    assert matrix_products(counts) == count_flops(vit_b16, 8).totals.flops == 281_021_251_584
    assert get_flops(vit_b16, 8) == sum(counts.values()) > 281_021_251_584


@profiled
@each_family
def test_matrix_products_agree_with_the_profiler(overrides):
    model = small_vit(**overrides)
    for batch_size in (1, 3):
        table = count_flops(model, batch_size)
        assert matrix_products(flops_by_operation(model, batch_size)) == table.totals.flops > 0
        assert table.totals.parameters == model.count_params()


@profiled
@pytest.mark.parametrize("overrides", [{}, dict(patch_stem="overlap", layer_scale_init=0.1)])
def test_get_flops_is_the_profilers_own_total(overrides):
    from tensorflow.compat.v1 import profiler

    model = small_vit(**overrides)
    builder = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    options = builder.with_empty_output().build()
    profile = profiler.profile(inference_graph(model, 3), cmd="op", options=options)
    assert get_flops(model, 3) == profile.total_float_ops > 0


@each_family
def test_a_batch_costs_its_images(overrides):
    with keras.StatelessScope(initialize_variables=False):  # shapes are enough
        model = small_vit(**overrides)
    one, five = (count_flops(model, n).totals for n in (1, 5))
    width = 12 if overrides.get("pooling") == "map" else 0  # its query is the same for all images
    assert five.flops == 5 * one.flops - 4 * 2 * width * width
    assert five.activation_bytes == 5 * one.activation_bytes - 4 * 4 * width
    assert five.parameters == one.parameters


def test_attention_in_blocks_keeps_no_scores():
    whole, blocked = (
        {row.component: row for row in count_flops(small_vit(query_chunk_size=size)).rows} for size in (0, 2)
    )
    assert blocked["attention scores"].activation_bytes == 0 < whole["attention scores"].activation_bytes
    assert blocked["attention scores"].macs == whole["attention scores"].macs


def test_half_precision_halves_the_activations_of_the_blocks():
    full = {row.component: row for row in count_flops(small_vit()).rows}
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = {row.component: row for row in count_flops(small_vit()).rows}
    assert 2 * half["MLP"].activation_bytes == full["MLP"].activation_bytes > 0
    assert half["MLP"].flops == full["MLP"].flops


def test_a_model_around_a_vit_counts_the_same():
    vit = small_vit()
    wrapped = keras.Sequential([keras.Input((16, 24, 3)), keras.layers.RandomFlip(), vit])
    assert count_flops(wrapped).rows == count_flops(vit).rows


def test_table_as_dict_and_markdown():
    table = count_flops(small_vit(), 2)
    content = json.loads(json.dumps(table.to_dict()))
    assert content["batch_size"] == 2
    assert [row["flops"] for row in content["components"]] == [row.flops for row in table.rows]
    assert content["totals"]["flops"] == table.totals.flops
    lines = [line.strip("| ").split(" | ") for line in table.to_markdown().splitlines()[2:]]
    assert [line[0] for line in lines] == [*COMPONENTS, "total"]
    assert int(lines[-1][3].replace(",", "")) == table.totals.flops
    assert 0 < table.attention_share < table.attention_layer_share < 1


def dense_and_conv():
    inputs = keras.Input((6, 8, 3))
    x = keras.layers.Conv2D(5, 3, use_bias=False)(inputs)  # 4 x 6 x 5 outputs of 27 products
    return keras.Model(inputs, keras.layers.Dense(7, use_bias=False)(keras.layers.Flatten()(x)))


@profiled
def test_get_flops_by_hand():
    by_hand = 2 * (4 * 6 * 5 * 27 + 120 * 7)
    assert get_flops(dense_and_conv()) == by_hand
    assert get_flops(dense_and_conv(), 4) == 4 * by_hand


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, use_bias=False)

    def call(self, x):
        return self.dense(x)


@profiled
def test_get_flops_of_any_kind_of_model(capfd):
    sequential = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, use_bias=False)])
    subclass = Subclass()
    subclass(np.zeros((2, 4)))
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    product = keras.layers.Dense(3, use_bias=False)(a) * keras.layers.Dense(3, use_bias=False)(b)
    for model, expected in [
        (sequential, 24),
        (subclass, 24),
        (keras.Model([a, b], product), 51),
        (keras.Model({"a": a, "b": b}, product), 51),
    ]:
        assert get_flops(model) == expected
    assert capfd.readouterr().out == ""


@profiled
def test_get_flops_warns_of_what_the_profiler_cannot_count():
    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(2, 4)(inputs, inputs))
    with pytest.warns(UserWarning, match="Einsum"):
        assert get_flops(model) > 0


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("count", [count_flops, get_flops])
@pytest.mark.parametrize(
    "make, batch_size, message",
    [
        (lambda: "vit_b16", 1, "must be a `keras.Model`, got str"),
        (Subclass, 1, "is not built"),
        (small_vit, 0, "positive int, got 0"),
        (small_vit, 2.5, "positive int, got 2.5"),
    ],
)
def test_bad_arguments(count, make, batch_size, message):
    with pytest.raises(ValueError, match=message):
        count(make(), batch_size)


def test_count_flops_names_a_layer_that_it_does_not_know():
    inputs = keras.Input((4, 3))
    model = keras.Model(inputs, keras.layers.LSTM(2, name="memory")(inputs))
    with pytest.raises(ValueError, match=r"'memory' \(LSTM\).*get_flops"):
        count_flops(model)


def test_count_flops_refuses_a_shared_layer():
    block, inputs = layers.EncoderBlock(2, 8), keras.Input((6, 4))
    with pytest.raises(ValueError, match="more than once"):
        count_flops(keras.Model(inputs, block(block(inputs))))


@profiled
def test_get_flops_needs_a_known_image_size():
    inputs = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="all dimensions but the first must be known"):
        get_flops(keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs)))


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow can do it")
def test_get_flops_needs_tensorflow():
    with pytest.raises(ValueError, match="use `count_flops`"):
        get_flops(small_vit())
