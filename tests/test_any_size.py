"""Models for images of any size equal the models of each size, whose position tables are resampled."""

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.marks import mostly_slow

from vit_tf import (
    attention_distance,
    attention_maps,
    attention_rollout,
    build_vit,
    count_flops,
    forward_features,
    resize_model,
    save_weights,
)
from vit_tf.config import override
from vit_tf.explain import class_relevance, grad_cam, position_similarity
from vit_tf.plots import model_diagram
from vit_tf.variants import get_variant

pytestmark = pytest.mark.every_backend

SMALL = dict(patch_size=8, hidden_dim=12, num_layers=1, num_heads=3, mlp_dim=20, num_classes=5)
SIZES = ((24, 40), (56, 16))  # shrinks and grows the table of 4 x 3 patches
KINDS = {
    "token": dict(),
    "registers": dict(num_registers=2),
    "bare prefix": dict(num_registers=2, prefix_positions=False),
    "patches alone": dict(pooling="avg"),
    "map": dict(pooling="map"),
    "distilled": dict(distillation_token=True),
    "pooled prefix": dict(pooling="max", class_token=True, pool_prefix=True, final_norm="pooled"),
    "flat patches": dict(patch_stem="patches", patch_norm=True, embedding_norm=True, pooling="token_avg"),
    "overlap": dict(patch_stem="overlap", pooling="avgmax"),
    "whitened": dict(patch_stem="whitened", activation="relu"),
    "pooled": dict(patch_stem="pooled", stem_width=6),
    "bilinear": dict(position_resampling=dict(method="bilinear", antialias=False)),
    "offset": dict(position_resampling=dict(antialias=False, offset=0.1)),
    "aligned": dict(position_resampling=dict(method="bilinear", align_corners=True)),
    "square": dict(position_resampling=dict(method="bilinear", antialias=False, square=True)),
    "resnet_d": dict(patch_stem="resnet_d", stem_width=8, stem_blocks=(1, 1), pooling="avg"),
    "pre-norm": dict(pre_norm=True, patch_bias=False),
    "rotary": dict(rotary=dict(kind="dinov3", half_rotation=True), position_table=False, num_registers=1),
    "rotary and table": dict(rotary=dict(reference_grid=(5, 5)), head_dim=8, num_registers=1),
    "mixed": dict(rotary=dict(kind="mixed"), pooling="avg", block="parallel_things"),
    "differential": dict(attention="differential", hidden_dim=24, qk_norm=True),
}
FAST = ("registers", "bare prefix", "map", "offset", "rotary and table")


def any_vit(**overrides):
    options = {**SMALL, "image_size": (None, None), "position_grid": (4, 3), **overrides}
    return randomize(build_vit("vit_b16", **options))


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def relative(x, expected):
    x, expected = (ops.convert_to_numpy(ops.cast(y, "float32")) for y in (x, expected))
    return np.abs(x - expected).max() / np.abs(expected).max()


@pytest.mark.tensorflow_only  # JAX compiles each operation apart
@pytest.mark.parametrize("overrides", mostly_slow(KINDS, FAST))
def test_equals_the_model_of_each_size(overrides):
    model = any_vit(**overrides)
    assert model.input_shape == (None, None, None, 3)
    for size in SIZES:
        fixed, x = resize_model(model, size), random(2, *size, 3)
        assert fixed.get_layer("patch_encoder").position_grid == (size[0] // 8, size[1] // 8)
        assert relative(model(x), fixed(x)) < 1e-5


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_the_packaged_model_takes_any_size():
    model = build_vit(weights="cifar10", image_size=(None, None))
    for size in ((40, 56), (64, 24)):
        fixed, x = build_vit(weights="cifar10", image_size=size), random(2, *size, 3)
        assert relative(model(x), fixed(x)) < 1e-5


def test_compiled_for_sizes_that_are_tensors():
    rotary = dict(reference_grid=(5, 5))
    model = any_vit(position_resampling=dict(antialias=False, offset=0.1), rotary=rotary, head_dim=8)
    for size in (*SIZES, (32, 24)):  # the last is the table's own
        x = random(2, *size, 3)
        assert relative(model.predict(x, verbose=0), resize_model(model, size)(x)) < 1e-5


def test_the_table_keeps_the_size_of_the_variant():
    config = get_variant("vit_base_patch16_384", image_size=(None, 96), patch_size=8)
    assert config.grid_size == (None, 12) and config.table_grid == (48, 48)
    assert config.native_grid == (48, 12) and config.native_size == (384, 96)
    config = override(config, {"image_size": 64})  # one size again
    assert config.table_grid == config.grid_size == (8, 8)
    assert get_variant("vit_b16", image_size=(None, None), position_grid=[2, 3]).table_grid == (2, 3)
    assert get_variant("vit_b16", image_size=(None, None), patch_size=10).table_grid == (22, 22)


@pytest.mark.tensorflow_only
def test_weights_say_the_grid_and_how_it_is_resampled(tmp_path):
    sizes = {**SMALL, "image_size": (32, 24)}
    model = randomize(build_vit("flexivit_small", **sizes))
    path = save_weights(model, tmp_path / "model.safetensors")
    any_size = build_vit("flexivit_small", weights=path, **{**sizes, "image_size": (None, None)})
    encoder = any_size.get_layer("patch_encoder")
    assert encoder.resampling == {"method": "bilinear", "antialias": False, "align_corners": False}
    x = random(1, 56, 48, 3)
    fixed = build_vit("flexivit_small", weights=path, **{**sizes, "image_size": (56, 48)})
    model = build_vit("flexivit_small", weights=path, **sizes)
    assert relative(resize_model(model, (None, None))(x), resize_model(model, (56, 48))(x)) < 1e-5
    assert encoder.position_grid == (30, 30)  # the variant's, to which the table of 4 x 3 was resampled
    assert np.isfinite(ops.convert_to_numpy(fixed(x))).all()


def test_a_saved_model_takes_any_size_again(tmp_path):
    model, x = any_vit(num_registers=1, include_preprocessing=True), 99 + random(2, 40, 16, 3)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), model(x))
    assert again.get_layer("patch_encoder").position_grid == (4, 3)


def test_half_precision_resamples_in_float32():
    keras.config.set_dtype_policy("mixed_float16")
    model = any_vit()
    x = random(2, 40, 16, 3)
    assert relative(model(x), resize_model(model, (40, 16))(x)) < 1e-3


@pytest.mark.slow
def test_fits_several_sizes():
    model = any_vit()
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    table = model.get_layer("patch_encoder").position_embedding
    for size in SIZES:
        before = ops.convert_to_numpy(table)
        model.fit(random(4, *size, 3), np.array([0, 1, 2, 0]), verbose=0)
        assert (np.abs(ops.convert_to_numpy(table) - before).max(axis=-1) > 0).all()


@pytest.mark.tensorflow_only
def test_explanations_have_the_grid_of_the_images():
    model, x = any_vit(num_registers=2), random(2, 24, 40, 3)
    fixed = resize_model(model, (24, 40))
    for function in (attention_rollout, class_relevance, grad_cam, attention_distance):
        np.testing.assert_allclose(function(model, x), function(fixed, x), rtol=1e-4, atol=1e-6)
    assert attention_rollout(model, x, upsample=True).shape == (2, 24, 40)
    maps = attention_maps(model, x, queries="register_tokens")
    assert maps["block_0"].shape == (2, 3, 2, 18)
    assert forward_features(model, x)["block_0"].shape == (2, 3, 5, 12)
    assert position_similarity(model).shape == (4, 3, 4, 3)
    with pytest.raises(ValueError, match="takes images of the shape"):
        attention_rollout(model, x[..., :2])


def test_the_cost_is_that_of_a_size():
    with keras.StatelessScope(initialize_variables=False):
        model = build_vit("vit_b16", image_size=(None, None), **SMALL)
        fixed = build_vit("vit_b16", image_size=(24, 40), position_grid=(28, 28), **SMALL)
        assert count_flops(model, 2, image_size=(24, 40)).rows == count_flops(fixed, 2).rows
        wrapped = keras.Sequential([keras.Input((24, 40, 3)), model])
        assert count_flops(wrapped, 2).rows == count_flops(fixed, 2).rows
    for function in (count_flops, model_diagram):
        with pytest.raises(ValueError, match="give `image_size`"):
            function(model)
    with pytest.raises(ValueError, match="resize the model"):
        count_flops(fixed, image_size=32)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "options, message",
    [
        (dict(image_size=(None, 50)), "multiple of 16"),
        (dict(image_size=(None, "x")), "None for any"),
        (dict(image_size=(None, None), position_grid=0), "`position_grid` must be a positive int"),
        (dict(image_size=(None, None), position_resampling={"kind": 1}), "a dict of method, antialias"),
    ],
)
def test_bad_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        get_variant("vit_b16", **options)


@pytest.mark.tensorflow_only
def test_patches_must_divide_the_images():
    model = any_vit()
    for size in ((24, 20), (24, 4)):
        with pytest.raises(ValueError, match="does not divide"):
            model(random(1, *size, 3))
        model.predict(random(1, *SIZES[0], 3), verbose=0)
        model.predict(random(1, *SIZES[1], 3), verbose=0)  # sizes are tensors from here on
        with pytest.raises(Exception, match="does not divide"):
            model.predict(random(1, *size, 3), verbose=0)
    remainder = any_vit(allow_remainder=True)
    x = random(1, 30, 20, 3)
    np.testing.assert_allclose(remainder(x), remainder(x[:, :24, :16]), atol=1e-6)
