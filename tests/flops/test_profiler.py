import math

import keras
import numpy as np
import pytest
from support.counted import Subclass, each_family, small_vit

from vit_tf import count_flops, get_flops
from vit_tf.flops import flops_by_operation, inference_graph

pytestmark = pytest.mark.every_backend


profiled = pytest.mark.tensorflow_only("TensorFlow's profiler does the counting")


def matrix_products(counts):
    return sum(counts.get(kind, 0) for kind in ("MatMul", "BatchMatMulV2", "Conv2D"))


@pytest.mark.slow
@profiled
def test_vit_b16_agrees_with_the_profiler(vit_b16):
    counts = flops_by_operation(vit_b16, 8)
    assert matrix_products(counts) == count_flops(vit_b16, 8).totals.flops == 281_021_251_584
    assert get_flops(vit_b16, 8) == sum(counts.values()) > 281_021_251_584


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@profiled
@each_family
def test_matrix_products_agree_with_the_profiler(overrides):
    model = small_vit(**overrides)
    table = count_flops(model, batch_size=3)
    assert matrix_products(flops_by_operation(model, 3)) == table.totals.flops > 0
    statistics = [v for v in model.non_trainable_variables if v.name.startswith("moving_")]
    assert table.totals.parameters == model.count_params() - sum(math.prod(v.shape) for v in statistics)


@pytest.mark.fast_cases(1)
@profiled
@pytest.mark.parametrize("overrides", [{}, dict(patch_stem="overlap", layer_scale_init=0.1)])
def test_get_flops_is_the_profilers_own_total(overrides):
    from tensorflow.compat.v1 import profiler

    model = small_vit(**overrides)
    builder = profiler.ProfileOptionBuilder(profiler.ProfileOptionBuilder.float_operation())
    options = builder.with_empty_output().build()
    profile = profiler.profile(inference_graph(model, 3), cmd="op", options=options)
    assert get_flops(model, 3) == profile.total_float_ops > 0


def dense_and_conv():
    inputs = keras.Input((6, 8, 3))
    x = keras.layers.Conv2D(5, 3, use_bias=False)(inputs)  # 4 x 6 x 5 outputs of 27 products
    return keras.Model(inputs, keras.layers.Dense(7, use_bias=False)(keras.layers.Flatten()(x)))


@profiled
def test_get_flops_by_hand():
    by_hand = 2 * (4 * 6 * 5 * 27 + 120 * 7)
    assert get_flops(dense_and_conv()) == by_hand
    assert get_flops(dense_and_conv(), 4) == 4 * by_hand


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


@profiled
def test_get_flops_needs_a_known_image_size():
    inputs = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match="all dimensions but the first must be known"):
        get_flops(keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs)))


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow can do it")
def test_get_flops_needs_tensorflow():
    with pytest.raises(ValueError, match="use `count_flops`"):
        get_flops(small_vit())
