import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from support.gradients import gradients
from support.marks import mostly_slow
from support.numpy_vit import forward

import vit_tf
from vit_tf import build_vit, save_weights

pytestmark = pytest.mark.every_backend

# A constant added to all keys adds the same to all scores of a query, which a softmax does not see.
SOFTMAX_IGNORES = "key_norm/beta"

SMALL = dict(
    image_size=(16, 24), patch_size=8, hidden_dim=12, num_layers=2, num_heads=3, mlp_dim=20, num_classes=5
)

FAMILIES = {
    "token": dict(),
    "avg": dict(pooling="avg"),
    "patches": dict(patch_stem="patches"),
    "overlap": dict(patch_stem="overlap"),
    "whitened": dict(patch_stem="whitened", activation="relu"),
    "pooled": dict(patch_stem="pooled", activation="relu", stem_width=8, stem_blocks=(1, 3, 1)),
    "resnet_d": dict(patch_stem="resnet_d", stem_width=8, stem_blocks=(1, 1), image_size=(15, 21)),
    "relative": dict(
        relative_positions=True, qkv_bias="qv", position_table=False, class_token=True, pooling="avg"
    ),
    "no_bias": dict(qkv_bias=False),
    "head_dim": dict(head_dim=7),
    "layer_scale": dict(layer_scale_init=0.4),
    "regularised": dict(
        dropout_rate=0.1, attention_dropout_rate=0.1, position_dropout_rate=0.1, drop_path_rate=0.3
    ),
    "grey": dict(in_channels=1),
    "dino": dict(
        mlp="swiglu", activation="silu", layer_scale_init=0.5, num_registers=2, prefix_positions=False
    ),
    "aim": dict(mlp="swiglu_split", norm="rms", embedding_norm=True, projection_bias=False, pooling="avg"),
    "beit": dict(sub_norm=True, pooling="avg", class_token=True, final_norm="pooled"),
    "clip": dict(pre_norm=True, patch_bias=False, activation="quick_gelu"),
    "siglip": dict(pooling="map", activation="gelu_tanh"),
    "distilled": dict(distillation_token=True),
    "differential": dict(attention="differential", hidden_dim=24),
    "parallel_scaling": dict(block="parallel_scaling", qk_norm=True, qkv_bias=False),
    "parallel_things": dict(block="parallel_things", final_norm="none"),
    "res_post": dict(block="res_post", pooling="avgmax"),
    "lucidrains": dict(patch_stem="patches", patch_norm=True, embedding_norm=True, pooling="token_avg"),
    "eva": dict(
        rotary=dict(reference_grid=(4, 4)),
        qkv_bias="qv",
        mlp="swiglu_split",
        sub_norm="mlp",
        separate_qkv=True,
    ),
    "dinov3": dict(
        rotary=dict(kind="dinov3", half_rotation=True), position_table=False, qkv_bias="qv", num_registers=2
    ),
    "rope_mixed": dict(rotary=dict(kind="mixed"), prefix_positions=False, layer_scale_init=0.4),
    "sapiens": dict(
        rotary=dict(kind="dinov3", half_rotation=True),
        position_table=False,
        **dict(num_layers=3, num_kv_heads=1, num_full_blocks=1, qk_norm=True, norm="rms"),
        **dict(layer_scale_init=0.4, mlp_layer_scale=False),
    ),
    "perception": dict(
        rotary=dict(offset=1.0, columns_first=True),
        **dict(pooling="map", pool_prefix=True, pool_heads=2, pool_mlp_dim=10, class_token=True),
    ),
    "remainder": dict(image_size=(20, 26), allow_remainder=True, pooling="max"),
}
FAST = (  # one of each kind of layer
    *("token", "overlap", "resnet_d", "regularised", "dino", "aim", "siglip", "differential"),
    *("parallel_scaling", "parallel_things", "res_post", "rope_mixed", "sapiens"),
)
each_family = pytest.mark.parametrize("overrides", mostly_slow(FAMILIES, FAST))


def small_vit(**overrides):
    return randomize(build_vit("vit_b16", **{**SMALL, **overrides}))


def images(model, batch=3, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, *model.input_shape[1:])).astype("float32")


@pytest.mark.parametrize(
    "overrides",
    [{}, dict(pooling="avg"), dict(qkv_bias=False, head_dim=7), dict(layer_scale_init=0.4)],
)
def test_logits_equal_an_independent_numpy_forward(overrides):
    model = small_vit(**overrides)
    x = images(model)
    weights = {v.path: ops.convert_to_numpy(v) for v in model.weights}
    expected = forward(x, weights, 2, 3, overrides.get("pooling", "token"))
    assert np.abs(expected).max() > 0.3  # logits that are all near zero would prove nothing
    # float32 against float64: 1e-5 is some fifty roundings of a number of the order of 1
    np.testing.assert_allclose(model(x), expected, rtol=0, atol=1e-5)


def test_defaults_build_vit_b16():
    with keras.StatelessScope(initialize_variables=False):  # shapes are enough
        model = build_vit()
    assert model.name == "vit_base_patch16_224"
    assert model.input_shape == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)
    assert model.count_params() == 86_567_656
    assert type(model) is keras.Model or type(model).__name__ == "Functional"
    paths = {v.path for v in model.weights}
    assert {"block_11/attention/qkv/kernel", "patch_encoder/class_token", "head/bias"} <= paths
    assert model.get_layer("block_0").attention.qkv.kernel.shape == (768, 2304)


@pytest.mark.fast_cases(2)
@each_family
def test_files_round_trip(overrides, tmp_path):
    model = small_vit(**overrides)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    save_weights(model, tmp_path / "model.safetensors")
    x = images(model)
    logits = model(x)
    files = (tmp_path / name for name in ("model.weights.h5", "model.safetensors"))
    built = [build_vit("vit_b16", weights=file, **{**SMALL, **overrides}) for file in files]
    for again in (keras.models.load_model(tmp_path / "model.keras"), *built):
        np.testing.assert_allclose(again(x), logits, rtol=0, atol=1e-6)


@pytest.mark.fast_cases(2)
@each_family
def test_every_trainable_variable_receives_a_gradient(overrides):
    # DropPath at a high rate may drop a branch for the whole batch: 8 images make that unlikely.
    model = small_vit(**overrides)
    goal = np.random.default_rng(1).normal(size=(8, 5)).astype("float32")
    found = gradients(model, images(model, batch=8), lambda y: ops.sum(ops.multiply(y, goal)))
    assert len(found) == len(model.trainable_variables)
    for path, gradient in found.items():
        assert gradient is not None and (np.abs(gradient).max() > 1e-7 or path.endswith(SOFTMAX_IGNORES)), (
            path
        )


@pytest.mark.tensorflow_only
@pytest.mark.fast_cases(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "variant, overrides",
    [
        ("vit_cifar10", dict(image_size=16, hidden_dim=32, num_heads=2, mlp_dim=64, num_layers=2)),
        ("vit_b16", {**SMALL, "num_classes": 10}),
    ],
)
def test_memorises_32_images(variant, overrides):
    model = build_vit(variant, **overrides)
    x = images(model, batch=32)
    y = np.random.default_rng(2).integers(0, 10, 32)
    model.compile(
        keras.optimizers.AdamW(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    before = model.evaluate(x, y, verbose=0)[1]
    # One epoch of sixty times the same batch: an epoch costs more than a step here.
    model.fit(np.tile(x, (60, 1, 1, 1)), np.tile(y, 60), batch_size=32, shuffle=False, verbose=0)
    assert before < 0.5 and model.evaluate(x, y, verbose=0)[1] == 1.0


def test_conv_and_patches_stems_are_the_same_model():
    conv, patches = small_vit(), small_vit(patch_stem="patches")
    by_name = {v.path.replace("/projection/", "/", 1): v for v in conv.weights if "patch_emb" in v.path}
    by_name |= {v.path: v for v in conv.weights if "patch_emb" not in v.path}
    for v in patches.weights:
        v.assign(ops.reshape(by_name[v.path], v.shape))
    x = images(conv)
    np.testing.assert_allclose(patches(x), conv(x), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_features_and_activation():
    model = small_vit()
    x = images(model)
    features = small_vit(num_classes=0)
    assert features.output_shape == (None, 12)
    features.set_weights(model.get_weights()[:-2])
    kernel, bias = model.get_weights()[-2:]
    np.testing.assert_allclose(ops.add(ops.matmul(features(x), kernel), bias), model(x), atol=1e-5)
    softmax = small_vit(classifier_activation="softmax")
    softmax.set_weights(model.get_weights())
    np.testing.assert_allclose(softmax(x), ops.softmax(model(x)), atol=1e-6)


def test_preprocessing_scales_pixels_to_plus_minus_one():
    plain, whole = small_vit(), small_vit(include_preprocessing=True)
    whole.set_weights(plain.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3)).astype("uint8")
    scaled = pixels.astype("float32") / 127.5 - 1
    np.testing.assert_allclose(whole(pixels), plain(scaled), atol=1e-5)


def test_drop_path_rises_linearly():
    model = build_vit("vit_b16", **{**SMALL, "num_layers": 4}, drop_path_rate=0.3)
    rates = [model.get_layer(f"block_{i}").config.drop_path_rate for i in range(4)]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3])


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("overrides", [{}, dict(distillation_token=True), dict(pooling="map", norm="rms")])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_gives_float32_logits(policy, overrides):
    plain = small_vit(**overrides)
    keras.config.set_dtype_policy(policy)
    model = small_vit(**overrides)
    model.set_weights(plain.get_weights())
    x = images(model)
    logits = model(x)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    np.testing.assert_allclose(logits, plain(x), rtol=0.05, atol=0.1)  # bfloat16: 8 bits


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(variant="vit_bas_patch16_224"), "did you mean 'vit_base_patch16_224'"),
        (dict(variant=16), "unknown variant 16"),
        (dict(num_layer=3), "did you mean 'num_layers'"),
        (dict(image_size=225), "nearest are 224 and 240"),
        (dict(image_size=(224, 100)), "nearest are 96 and 112"),
        (dict(image_size="224"), "image_size"),
        (dict(patch_size=0), "patch_size"),
        (dict(hidden_dim=-1), "`hidden_dim` must be a positive int, got -1"),
        (dict(num_layers=2.5), "num_layers"),
        (dict(num_heads=5), "num_heads=5 does not divide hidden_dim=768"),
        (dict(head_dim=0), "head_dim"),
        (dict(pooling="tokn"), "did you mean 'token'"),
        (dict(patch_stem="convolution"), "'conv', 'patches', 'overlap'"),
        (dict(patch_stem="overlap", patch_size=7), "power of two"),
        (dict(patch_stem="pooled", stem_blocks=(1, 2)), "have 4 stages: .*stem_blocks.*got \\(1, 2\\)"),
        (dict(dropout_rate=1.0), r"`dropout_rate` must be a number in \[0, 1\), got 1.0"),
        (dict(drop_path_rate="0.1"), "drop_path_rate"),
        (dict(qkv_bias=1), "True or False"),
        (dict(layer_scale_init=-1e-5), "layer_scale_init"),
        (dict(norm_epsilon=0), "norm_epsilon"),
        (dict(activation="gleu"), "`activation` must be a Keras activation"),
        (dict(classifier_activation="sofmax"), "`classifier_activation` must be"),
        (dict(classifier_activation="softmax", num_classes=0), "needs a head"),
        (dict(num_classes=-1), "num_classes"),
        (dict(in_channels=0), "in_channels"),
        (dict(weights="imagenet"), r"no file or folder 'imagenet'"),
        (dict(separate_heads=True), "distillation token"),
        (dict(weights="missing.weights.h5", **SMALL), "no such file"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_vit(**{"variant": "vit_b16", **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_weights_of_another_model(tmp_path):
    small_vit().save_weights(tmp_path / "a.weights.h5")
    (tmp_path / "text.weights.h5").write_text("no weights")
    for name, overrides in [("a", dict(hidden_dim=15)), ("a", dict(num_layers=3)), ("text", {})]:
        with pytest.raises(ValueError, match="do not fit vit_base_patch16_224"):
            build_vit("vit_b16", weights=tmp_path / f"{name}.weights.h5", **{**SMALL, **overrides})


LOGITS_IN_ANOTHER_BACKEND = """
import json, sys
import numpy as np
import vit_tf
for folder, overrides in json.loads(sys.argv[1]).items():
    model = vit_tf.build_vit("vit_b16", weights=folder + "/model.weights.h5", **overrides)
    np.save(folder + "/logits.npy", np.asarray(model(np.load(folder + "/images.npy"))))
"""


def run_python(code, *arguments, **environment):
    root = str(Path(vit_tf.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root, **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="it is JAX that is compared")
def test_jax_gives_the_same_logits(tmp_path):
    pytest.importorskip("jax")
    models, overrides = {}, {}
    for family in ("regularised", "overlap"):
        folder = tmp_path / family
        folder.mkdir()
        model = models[folder] = small_vit(**FAMILIES[family])
        model.save_weights(folder / "model.weights.h5")
        np.save(folder / "images.npy", images(model))
        overrides[str(folder)] = {**SMALL, **FAMILIES[family]}
    run_python(LOGITS_IN_ANOTHER_BACKEND, json.dumps(overrides), KERAS_BACKEND="jax")
    for folder, model in models.items():
        np.testing.assert_allclose(np.load(folder / "logits.npy"), model(images(model)), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("backend", ["jax", pytest.param("tensorflow", marks=pytest.mark.exhaustive)])
def test_import_is_light_and_respects_the_backend(backend):
    pytest.importorskip(backend)
    code = (
        "import sys, keras; before = set(sys.modules); import vit_tf; "
        "added = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print([keras.backend.backend(), 'tensorflow' in sys.modules, sorted(added)])"
    )
    heavy = {"matplotlib", "PIL", "jax", "torch", "tensorflow", "rich", "h5py"}
    found, has_tensorflow, added = eval(run_python(code, KERAS_BACKEND=backend))
    assert (found, has_tensorflow) == (backend, backend == "tensorflow")
    assert "vit_tf" in added and not heavy & set(added), added
