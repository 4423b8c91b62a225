import keras
import pytest
from support.counted import Subclass, each_family, small_vit

from vit_tf import count_flops, get_flops, layers
from vit_tf.flops import COMPONENTS

pytestmark = pytest.mark.every_backend


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


@each_family
def test_a_batch_costs_its_images(overrides):
    with keras.StatelessScope(initialize_variables=False):  # shapes are enough
        model = small_vit(**overrides)
    one, five = (count_flops(model, n).totals for n in (1, 5))
    width = 12 if overrides.get("pooling") == "map" else 0  # its query is the same for all images
    assert five.flops == 5 * one.flops - 4 * 2 * width * width
    assert five.activation_bytes == 5 * one.activation_bytes - 4 * 4 * width
    assert five.parameters == one.parameters


def test_chunked_attention_keeps_no_scores():
    whole, chunked = (
        {row.component: row for row in count_flops(small_vit(query_chunk_size=size)).rows} for size in (0, 2)
    )
    assert chunked["attention scores"].activation_bytes == 0 < whole["attention scores"].activation_bytes
    assert chunked["attention scores"].macs == whole["attention scores"].macs


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
