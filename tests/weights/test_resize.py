"""Models and files of other image and patch sizes."""

import json

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from safetensors.numpy import load_file, save_file
from support.saved_models import AS_TIMM, SMALL, assert_refused, images, positions, small_vit

from vit_tf import build_vit, load_weights, resize_model, save_weights
from vit_tf.weights import resample
from vit_tf.weights.positions import resample_positions

pytestmark = pytest.mark.every_backend


def test_another_image_size_resamples_the_positions(tmp_path):
    model = small_vit(image_size=64, num_registers=2)
    path = save_weights(model, tmp_path / "model.safetensors")
    other = small_vit(image_size=(48, 96), num_registers=2)
    report = load_weights(other, path)
    assert report.resampled == [f"pos_embed: (4, 4) to (3, 6), {AS_TIMM}"]
    expected = resample_positions(positions(model), (4, 4), (3, 6), num_prefix=3)
    np.testing.assert_array_equal(positions(other), expected)
    load_weights(other, path, method="bilinear", antialias=False)
    options = {"method": "bilinear", "antialias": False}
    expected = resample_positions(positions(model), (4, 4), (3, 6), 3, **options)
    np.testing.assert_array_equal(positions(other), expected)


def test_the_source_s_grid(tmp_path):
    model = small_vit()  # a grid of 2 x 3
    path = save_weights(model, tmp_path / "model.safetensors")
    other = small_vit(image_size=64)
    assert_refused(other, path, "does not have the 6 patches", grid_size=(3, 3))
    assert_refused(other, path, "`grid_size` must be a positive int or a pair", grid_size="6")
    save_file(load_file(path), tmp_path / "bare.safetensors")  # without our metadata
    wrong = "pos_embed: (1, 7, 24) in the source, (1, 17, 24) here"
    assert_refused(other, tmp_path / "bare.safetensors", wrong)
    load_weights(other, path, grid_size=(2, 3))
    expected = resample_positions(positions(model), (2, 3), (4, 4), 1)
    np.testing.assert_array_equal(positions(other), expected)


@pytest.mark.slow
def test_who_tells_the_source_s_grid(tmp_path):
    """The user, then the file's metadata, then config.json, then a square, then the model."""
    model = small_vit(image_size=(32, 128))  # 2 x 8
    path = save_weights(model, tmp_path / "model.safetensors")
    other = small_vit(image_size=64)
    assert load_weights(other, path, grid_size=(8, 2)).resampled == [
        f"pos_embed: (8, 2) to (4, 4), {AS_TIMM}"
    ]
    assert load_weights(other, path).resampled == [f"pos_embed: (2, 8) to (4, 4), {AS_TIMM}"]
    save_file(load_file(path), path)  # without metadata
    assert load_weights(other, path).resampled == []
    assert load_weights(model, path).resampled == [f"pos_embed: (4, 4) to (2, 8), {AS_TIMM}"]
    config = dict(architecture="vit_base_patch16_224", pretrained_cfg=dict(input_size=[3, 32, 128]))
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_weights(other, tmp_path).resampled == [f"pos_embed: (2, 8) to (4, 4), {AS_TIMM}"]
    config["model_args"] = dict(img_size=[128, 32])
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_weights(other, tmp_path).resampled == [f"pos_embed: (8, 2) to (4, 4), {AS_TIMM}"]
    (tmp_path / "config.json").unlink()
    model = small_vit(image_size=(32, 48))  # six patches are no square
    save_weights(model, path)
    save_file(load_file(path), path)
    assert load_weights(small_vit(image_size=(48, 32)), path).resampled == []


def test_another_patch_size_resamples_the_kernel(saved):
    model, path, _ = saved
    other = small_vit(patch_size=8, image_size=(16, 24))  # the same grid
    assert load_weights(other, path).resampled == [f"patch_embed.proj.weight: (16, 16) to (8, 8), {AS_TIMM}"]
    kernel = ops.convert_to_numpy(model.get_layer("patch_embedding").projection.kernel)
    np.testing.assert_array_equal(
        other.get_layer("patch_embedding").projection.kernel, resample.resample_patch_kernel(kernel, (8, 8))
    )


@pytest.mark.tensorflow_only
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        dict(patch_stem="patches", num_registers=2, prefix_positions=False),
        dict(pooling="map"),
        dict(distillation_token=True, attention="differential", hidden_dim=48),
        dict(rotary=dict(kind="mixed"), num_registers=2, separate_qkv=True),
        dict(rotary=dict(reference_grid=(2, 3)), position_table=False, qkv_bias="qv", layer_scale_init=0.3),
    ],
)
def test_resize_equals_loading_into_the_other_size(overrides, tmp_path):
    model = small_vit(image_size=64, **overrides)
    path = save_weights(model, tmp_path / "model.safetensors")
    resized = resize_model(model, image_size=(40, 60), patch_size=(8, 12))
    other = small_vit(**{**overrides, "image_size": (40, 60), "patch_size": (8, 12)})
    load_weights(other, path)
    assert resized.name == model.name and resized.input_shape == (None, 40, 60, 3)
    assert [v.path for v in resized.weights] == [v.path for v in other.weights]
    x = images(other)
    np.testing.assert_allclose(resized(x), other(x), rtol=0, atol=1e-5)
    assert model.input_shape == (None, 64, 64, 3)


@pytest.mark.slow
def test_resize_to_the_same_size_changes_nothing():
    model = small_vit(include_preprocessing=True)
    x = 100 + 30 * images(model)
    np.testing.assert_array_equal(resize_model(model)(x), model(x))
    bigger = resize_model(model, image_size=64, method="bilinear", antialias=False)
    again = resize_model(bigger, image_size=(32, 48))
    assert again.input_shape == model.input_shape and again.get_layer("normalization") is not None


@pytest.mark.slow
def test_resized_models_can_be_saved_and_trained(tmp_path):
    model = resize_model(small_vit(), image_size=(48, 32))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images(model)), model(images(model)), atol=1e-6)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = positions(model)
    model.fit(images(model), np.arange(2), verbose=0)
    assert np.abs(positions(model) - before).max() > 0


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "make, options, message",
    [
        (small_vit, dict(image_size=50), "multiple of 16"),
        (small_vit, dict(image_size=0), "positive int"),
        (small_vit, dict(patch_size=(5, 7)), "multiple of 5"),
        (small_vit, dict(method="area"), "bicubic"),
        (lambda: small_vit(patch_stem="overlap"), dict(patch_size=8), "several convolutions"),
        (lambda: small_vit(patch_stem="patches", patch_norm=True), dict(patch_size=8), "norm of the cut"),
        (
            lambda: keras.Sequential([keras.layers.Dense(2)]),
            dict(image_size=64),
            "give a model of `build_vit`",
        ),
    ],
)
def test_bad_sizes(make, options, message):
    with pytest.raises(ValueError, match=message):
        resize_model(make(), **options)


@pytest.mark.slow
def test_the_name_of_a_model_changes_no_weights(tmp_path):
    sizes = {**SMALL, "image_size": 64}
    model = randomize(build_vit("flexivit_small", **sizes))
    path = save_weights(model, tmp_path / "model.safetensors")
    sizes["image_size"] = 80
    plain, named = (
        build_vit("flexivit_small", weights=path, name=name, **sizes) for name in (None, "encoder")
    )
    assert named.name == "encoder"
    np.testing.assert_array_equal(positions(plain), positions(named))
    options = {"method": "bilinear", "antialias": False}
    expected = resample_positions(positions(model), (4, 4), (5, 5), **options)
    np.testing.assert_array_equal(positions(plain), expected)
    path = save_weights(small_vit(image_size=64), tmp_path / "plain.safetensors")
    radiology = build_vit("vit_b16", weights=path, name="radiology", **sizes)
    expected = resample_positions(load_file(path)["pos_embed"], (4, 4), (5, 5), 1)
    np.testing.assert_array_equal(positions(radiology), expected)
