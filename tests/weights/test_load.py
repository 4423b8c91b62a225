import json
import zipfile

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from safetensors.numpy import load_file, save_file
from support.cases import build, random_images, random_weights, timm_case, write_weights

import vit_tf
from vit_tf import build_vit, load_weights, resize_model, save_weights
from vit_tf.weights import resample

pytestmark = pytest.mark.every_backend

SMALL = dict(
    image_size=(32, 48), patch_size=16, hidden_dim=24, num_layers=2, num_heads=3, mlp_dim=32, num_classes=5
)


AS_TIMM = "bicubic with antialias, as timm does"


def small_vit(**overrides):
    return randomize(build_vit("vit_b16", **{**SMALL, **overrides}))


def values(model):
    return [ops.convert_to_numpy(v) for v in model.weights]


def images(model, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *model.input_shape[1:])).astype("float32")


@pytest.fixture
def saved(tmp_path):
    """A model, its file in timm's names, and the file's arrays."""
    model = small_vit()
    path = save_weights(model, tmp_path / "model.safetensors")
    return model, path, load_file(path)


def assert_refused(model, source, *messages, **options):
    """The source is refused with all the messages, and the model stays as it was."""
    before = values(model)
    with pytest.raises(ValueError) as caught:
        load_weights(model, source, **options)
    for message in messages:
        assert message in str(caught.value), str(caught.value)
    for old, new in zip(before, values(model)):
        np.testing.assert_array_equal(old, new)


# ---------------------------------------------------------------------------------------------------
# What the report says
# ---------------------------------------------------------------------------------------------------
def test_a_full_fit(saved):
    model, path, arrays = saved
    other = small_vit()
    for v in other.weights:
        v.assign(np.zeros(v.shape, v.dtype))
    report = load_weights(other, path)
    assert sorted(report.loaded) == sorted(arrays) and report.format == "timm" and not report.faults
    assert str(report) == f"{len(arrays)} tensors from {path} (timm)"
    for old, new in zip(values(model), values(other)):
        np.testing.assert_array_equal(old, new)


def test_missing_unexpected_and_misshapen_are_listed_and_nothing_is_loaded(saved, tmp_path):
    model, _, arrays = saved
    arrays["norm.gain"] = arrays.pop("norm.weight")
    arrays["blocks.1.mlp.fc1.bias"] = arrays["blocks.1.mlp.fc1.bias"][:-1]
    save_file(arrays, tmp_path / "broken.safetensors")
    other = small_vit(hidden_dim=24)
    messages = (
        "1 missing: norm.weight",
        "1 unexpected: norm.gain",
        "fc1.bias: (31,) in the source, (32,) here",
    )
    assert_refused(other, tmp_path / "broken.safetensors", *messages, "strict=False")
    report = load_weights(other, tmp_path / "broken.safetensors", strict=False)
    assert (report.missing, report.unexpected) == (["norm.weight"], ["norm.gain"])
    assert len(report.shape_mismatches) == 1 and "norm.gain" in str(report)
    assert set(report.loaded) == set(arrays) - {"norm.gain", "blocks.1.mlp.fc1.bias"}
    ours = {v.path: ops.convert_to_numpy(v) for v in other.weights}
    np.testing.assert_array_equal(ours["block_0/attention/qkv/kernel"], arrays["blocks.0.attn.qkv.weight"].T)


def test_wrong_architecture(saved):
    _, path, _ = saved
    for overrides, message in (
        (dict(num_layers=3), "12 missing: blocks.2.norm1.weight"),
        (dict(num_layers=1), "12 unexpected: blocks.1."),
        (dict(hidden_dim=48), "cls_token: (1, 1, 24) in the source, (1, 1, 48) here"),
        (dict(qkv_bias=False), "2 unexpected: blocks.0.attn.qkv.bias"),
        (dict(layer_scale_init=1.0), "missing: blocks.0.ls1.gamma"),
        (dict(class_token=False, pooling="avg"), "1 unexpected: cls_token"),
        (dict(num_registers=2), "missing: reg_token"),
        (dict(block="parallel_scaling"), "in_norm"),
    ):
        assert_refused(small_vit(**overrides), path, message)


def test_long_lists_are_cut(saved):
    _, path, _ = saved
    assert_refused(small_vit(num_layers=4), path, "24 missing", "and 19 more")


def test_another_number_of_classes_starts_a_new_head(saved):
    model, path, arrays = saved
    other = small_vit(num_classes=7)
    head = ops.convert_to_numpy(other.get_layer("head").kernel)
    report = load_weights(other, path)
    assert report.new_head and not report.faults and "the head is new" in str(report)
    np.testing.assert_array_equal(head, other.get_layer("head").kernel)
    np.testing.assert_array_equal(model.get_layer("norm").gamma, other.get_layer("norm").gamma)
    features = small_vit(num_classes=0)
    assert set(load_weights(features, path).unused) == {"head.weight", "head.bias"}
    bare = save_weights(features, path.with_name("bare.safetensors"))
    assert load_weights(other, bare).new_head


def test_build_vit_takes_the_head_of_the_weights(saved):
    model, path, _ = saved
    options = {key: value for key, value in SMALL.items() if key != "num_classes"}
    again = build_vit("vit_b16", weights=path, **options)
    assert again.output_shape == (None, 5)
    np.testing.assert_allclose(again(images(model)), model(images(model)), atol=1e-6)
    assert build_vit("vit_b16", weights=path, num_classes=3, **options).output_shape == (None, 3)
    assert build_vit("vit_b16", weights=path, num_classes=0, **options).output_shape == (None, 24)


def test_nan_is_a_warning_that_names_the_tensor(saved, tmp_path):
    model, _, arrays = saved
    arrays["blocks.0.norm1.bias"][3] = np.nan
    arrays["cls_token"][0, 0, 1] = np.inf
    save_file(arrays, tmp_path / "nan.safetensors")
    with pytest.warns(UserWarning, match="cls_token, blocks.0.norm1.bias"):
        report = load_weights(model, tmp_path / "nan.safetensors")
    assert report.not_finite == ["cls_token", "blocks.0.norm1.bias"]


def test_large_values_are_no_warning(saved, tmp_path):
    model, _, arrays = saved
    arrays["norm.bias"][:] = 3e38  # their sum overflows
    save_file(arrays, tmp_path / "large.safetensors")
    assert load_weights(model, tmp_path / "large.safetensors").not_finite == []


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_float_types_are_read_as_float32(saved, tmp_path, dtype):
    model, _, arrays = saved
    save_file({name: x.astype(dtype) for name, x in arrays.items()}, tmp_path / "half.safetensors")
    other = small_vit()
    load_weights(other, tmp_path / "half.safetensors")
    for old, new in zip(values(model), values(other)):
        assert new.dtype == "float32"
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4)


def test_a_pooling_of_another_kind_leaves_the_attention_pooling_out(tmp_path):
    model = small_vit(pooling="map")
    path = save_weights(model, tmp_path / "map.safetensors")
    report = load_weights(small_vit(pooling="avg"), path)
    assert not report.faults and "attn_pool.latent" in report.unused and "attn_pool.latent" in str(report)


@pytest.mark.parametrize("name", ["vit_cifar10", "vit_cifar10_tutorial", "vit_pytorch"])
def test_our_own_architectures_come_back_too(name, tmp_path):
    model = randomize(build_vit(name, hidden_dim=48, num_layers=1))
    path = save_weights(model, tmp_path / "model.safetensors")
    again = build_vit(name, hidden_dim=48, num_layers=1, weights=path)
    for old, new in zip(values(model), values(again)):
        np.testing.assert_array_equal(old, new)
    if name == "vit_cifar10":
        assert_refused(small_vit(), path, "patch_embed.stages.0.weight")
        assert_refused(
            model,
            save_weights(small_vit(), tmp_path / "b.safetensors"),
            "missing: patch_embed.",
        )


def test_first_deit_3_names(saved, tmp_path):
    model = small_vit(layer_scale_init=0.1)
    arrays = load_file(save_weights(model, tmp_path / "new.safetensors"))
    arrays = {
        name.replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2"): x
        for name, x in arrays.items()
    }
    assert "blocks.1.gamma_2" in arrays
    save_file(arrays, tmp_path / "old.safetensors")
    assert not load_weights(model, tmp_path / "old.safetensors").faults
    arrays["blocks.1.ls2.gamma"] = arrays["blocks.1.gamma_2"].copy()
    save_file(arrays, tmp_path / "both.safetensors")
    assert_refused(model, tmp_path / "both.safetensors", "under both of its names")


def test_loading_holds_one_tensor_at_a_time(tmp_path):
    import tracemalloc

    model = build_vit("vit_b16", **{**SMALL, "hidden_dim": 96, "mlp_dim": 3072, "num_layers": 8})
    path = save_weights(model, tmp_path / "model.safetensors")
    largest = max(4 * np.prod(v.shape) for v in model.weights)
    assert path.stat().st_size > 15 * largest
    tracemalloc.start()
    try:
        load_weights(model, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * largest  # a tensor, its transpose, the backend's copy, and small change


# ---------------------------------------------------------------------------------------------------
# Other sizes
# ---------------------------------------------------------------------------------------------------
def positions(model):
    return ops.convert_to_numpy(model.get_layer("patch_encoder").position_embedding)


def test_another_image_size_resamples_the_positions(tmp_path):
    model = small_vit(image_size=64, num_registers=2)
    path = save_weights(model, tmp_path / "model.safetensors")
    other = small_vit(image_size=(48, 96), num_registers=2)
    report = load_weights(other, path)
    assert report.resampled == [f"pos_embed: (4, 4) to (3, 6), {AS_TIMM}"]
    expected = resample.resample_positions(positions(model), (4, 4), (3, 6), num_prefix=3)
    np.testing.assert_array_equal(positions(other), expected)
    load_weights(other, path, method="bilinear", antialias=False)
    expected = resample.resample_positions(positions(model), (4, 4), (3, 6), 3, "bilinear", False)
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
    expected = resample.resample_positions(positions(model), (2, 3), (4, 4), 1)
    np.testing.assert_array_equal(positions(other), expected)


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


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        dict(patch_stem="patches", num_registers=2, prefix_positions=False),
        dict(pooling="map"),
        dict(distillation_token=True, attention="differential", hidden_dim=48),
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


def test_resize_to_the_same_size_changes_nothing():
    model = small_vit(include_preprocessing=True)
    x = 100 + 30 * images(model)
    np.testing.assert_array_equal(resize_model(model)(x), model(x))
    bigger = resize_model(model, image_size=64, method="bilinear", antialias=False)
    again = resize_model(bigger, image_size=(32, 48))
    assert again.input_shape == model.input_shape and again.get_layer("normalization") is not None


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
        (lambda: small_vit(patch_stem="overlap"), dict(patch_size=8), "overlapping stem"),
        (lambda: small_vit(patch_stem="patches", patch_norm=True), dict(patch_size=8), "norm of the cut"),
        (
            lambda: keras.Sequential([keras.layers.Dense(2)]),
            dict(image_size=64),
            "not a model of `build_vit`",
        ),
    ],
)
def test_bad_sizes(make, options, message):
    with pytest.raises(ValueError, match=message):
        resize_model(make(), **options)


# ---------------------------------------------------------------------------------------------------
# Sources: folders, wrong and hostile files
# ---------------------------------------------------------------------------------------------------
def hub_folder(tmp_path, **config):
    case = timm_case("test_vit")
    model = randomize(build_vit("test_vit", image_size=64, num_classes=5))
    save_weights(model, tmp_path / "model.safetensors")
    content = dict(architecture="test_vit", num_classes=5, **config)
    (tmp_path / "config.json").write_text(json.dumps(content))
    return model, case


def test_a_folder_tells_variant_size_and_classes(tmp_path):
    model, _ = hub_folder(
        tmp_path, pretrained_cfg=dict(input_size=[3, 64, 64], mean=[0.2, 0.3, 0.4], std=[0.5] * 3)
    )
    again = build_vit(weights=tmp_path)
    assert (again.name, again.input_shape, again.output_shape) == ("test_vit", (None, 64, 64, 3), (None, 5))
    np.testing.assert_allclose(again(images(model)), model(images(model)), atol=1e-6)
    whole = build_vit(weights=str(tmp_path), include_preprocessing=True)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype("uint8")
    scaled = (pixels / 255 - [0.2, 0.3, 0.4]) / 0.5
    np.testing.assert_allclose(whole(pixels), model(scaled.astype("float32")), atol=1e-4)
    assert build_vit("test_vit", weights=tmp_path).input_shape == (None, 160, 160, 3)  # the variant's own


def test_a_folder_with_model_arguments(tmp_path):
    model, _ = hub_folder(tmp_path, model_args=dict(img_size=64, global_pool="token"))
    assert build_vit(weights=tmp_path).input_shape == (None, 64, 64, 3)
    hub_folder(tmp_path, model_args=dict(img_size=64, rope=True))
    with pytest.raises(ValueError, match="rope, which are not known"):
        build_vit(weights=tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "resnet50"}')
    with pytest.raises(ValueError, match="unknown variant 'resnet50'"):
        build_vit(weights=tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="model_type 'bert'"):
        build_vit(weights=tmp_path)


@pytest.mark.tensorflow_only
def test_broken_files_change_nothing(saved, tmp_path):
    model, path, arrays = saved
    content = path.read_bytes()
    for name, broken in (
        ("truncated", content[: len(content) // 2]),
        ("lies", (2**40).to_bytes(8, "little") + content[8:]),
        ("text", b"<!DOCTYPE html> not found"),
        ("empty", b""),
    ):
        (tmp_path / f"{name}.safetensors").write_bytes(broken)
        assert_refused(model, tmp_path / f"{name}.safetensors", f"{name}.safetensors")
    np.savez(tmp_path / "objects.npz", **{"embedding/kernel": np.array([{"a": 1}], dtype=object)})
    assert_refused(model, tmp_path / "objects.npz", "objects.npz")
    np.savez(tmp_path / "good.npz", **{name: x for name, x in arrays.items()})
    damaged = bytearray((tmp_path / "good.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "good.npz") as file:
        offset = file.getinfo("head.weight.npy").header_offset
    damaged[offset + 300] ^= 255
    (tmp_path / "damaged.npz").write_bytes(damaged)
    assert_refused(model, tmp_path / "damaged.npz", "damaged.npz")
    assert_refused(model, tmp_path / "nothing.safetensors", "no file or folder")
    assert_refused(model, "hf:nobody", "hf:owner/name")
    (tmp_path / "folder").mkdir()
    assert_refused(model, tmp_path / "folder", "config.json")
    save_file({"a": arrays["norm.weight"]}, tmp_path / "other.safetensors")
    assert_refused(model, tmp_path / "other.safetensors", "no ViT of a known format", "names begin with a")


def test_shapes_that_a_format_does_not_have(saved, tmp_path):
    model, _, _ = saved
    names = ["Transformer/encoderblock/LayerNorm_0/scale", "Transformer/encoderblock/LayerNorm_0/bias"]
    for arrays in (
        {"embedding/kernel": np.ones((3, 2))},
        {"embedding/kernel": np.ones((2, 2, 3, 4)), names[0]: np.float32(1), names[1]: np.ones(2)},
        {"embedding/kernel": np.ones((2, 2, 3, 4)), names[0]: np.ones((2, 4)), names[1]: np.ones((1, 4))},
        {"embedding/kernel": np.ones((2, 2, 3, 4)), names[0]: np.ones((2, 4)), names[1]: np.ones((3, 4))},
    ):
        np.savez(tmp_path / "odd.npz", **arrays)
        assert_refused(model, tmp_path / "odd.npz", "odd.npz", "shapes that a google file has not")


def test_models_that_are_not_ours(saved):
    _, path, _ = saved
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    assert_refused(model, path, "not a plain model of `build_vit`", "dense/kernel")
    with pytest.raises(ValueError, match="not a plain model"):
        save_weights(model, path)


def test_save_weights_refuses_what_it_cannot_write(saved, tmp_path):
    model, _, _ = saved
    for target, options, message in (
        ("a.npz", {}, "must end in .safetensors"),
        ("nowhere/a.safetensors", {}, "no folder"),
        ("a.safetensors", dict(format="keras"), 'must be "timm"'),
    ):
        with pytest.raises(ValueError, match=message):
            save_weights(model, tmp_path / target, **options)
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.tensorflow_only
def test_bad_methods(saved):
    model, path, _ = saved
    assert_refused(model, path, "bilinear", method="area")


def test_pth_loads_and_hostile_pth_does_not_run(saved, tmp_path):
    torch = pytest.importorskip("torch")
    model, _, arrays = saved
    torch.save({"state_dict": {k: torch.tensor(x) for k, x in arrays.items()}}, tmp_path / "good.pth")
    other = small_vit()
    load_weights(other, tmp_path / "good.pth")
    np.testing.assert_array_equal(values(other)[0], values(model)[0])

    class Hostile:
        def __reduce__(self):
            return open, (str(tmp_path / "was here"), "w")

    torch.save({"cls_token": Hostile()}, tmp_path / "hostile.pth")
    assert_refused(model, tmp_path / "hostile.pth", "hostile.pth")
    assert not (tmp_path / "was here").exists()


# ---------------------------------------------------------------------------------------------------
# Distilled models
# ---------------------------------------------------------------------------------------------------
def test_distilled_heads_are_averaged_and_can_be_had_apart(tmp_path):
    model = small_vit(distillation_token=True)
    path = save_weights(model, tmp_path / "model.safetensors")
    options = dict(**SMALL, distillation_token=True, weights=path)
    both = build_vit("vit_b16", separate_heads=True, **options)
    x = images(model)
    first, second = (ops.convert_to_numpy(y) for y in both(x))
    assert np.abs(first - second).max() > 1e-2
    np.testing.assert_allclose(model(x), (first + second) / 2, atol=1e-6)
    softmax = build_vit("vit_b16", classifier_activation="softmax", **options)
    np.testing.assert_allclose(softmax(x), ops.softmax(model(x)), atol=1e-6)


def test_formats_are_recognised_by_the_names_inside(tmp_path):
    case = timm_case("vit_tiny_patch16_224")
    model = build(case, None)
    entries = vit_tf.weights.formats.timm.weight_mappings(model)
    case["shapes"] = {name: entry.shape for name, entry in entries.items()}
    np.savez(tmp_path / "timm.npz", **random_weights(case["shapes"]))  # timm's names in NumPy's container
    report = load_weights(model, tmp_path / "timm.npz")
    assert report.format == "timm" and not report.faults
    again = build(case, write_weights(case, tmp_path))
    np.testing.assert_array_equal(again(random_images(case)), model(random_images(case)))


# ---------------------------------------------------------------------------------------------------
# Files of other makers
# ---------------------------------------------------------------------------------------------------
@pytest.mark.tensorflow_only
def test_keras_files_fit_whole_or_not_at_all(tmp_path):
    model = small_vit()
    for name, overrides in (
        ("deeper", dict(num_layers=3)),
        ("wider", dict(num_classes=7)),
        ("bare", dict(num_classes=0)),
    ):
        small_vit(**overrides).save_weights(tmp_path / f"{name}.weights.h5")
        assert_refused(model, tmp_path / f"{name}.weights.h5", "do not fit", "of shape")
    model.save_weights(tmp_path / "good.weights.h5")
    assert_refused(model, tmp_path / "good.weights.h5", "without other options", strict=False)
    assert load_weights(model, tmp_path / "good.weights.h5").format == "keras"


@pytest.mark.parametrize("dtype", ["int8", "bool", "uint64"])
def test_values_that_are_no_floats(saved, tmp_path, dtype):
    model, _, arrays = saved
    arrays["blocks.0.attn.qkv.weight"] = arrays["blocks.0.attn.qkv.weight"].astype(dtype)
    save_file(arrays, tmp_path / "integers.safetensors")
    np.savez(tmp_path / "integers.npz", **arrays)
    for name in ("integers.safetensors", "integers.npz"):
        assert_refused(model, tmp_path / name, "qkv.weight: values of NumPy's kind")


@pytest.mark.parametrize("shape", [(2, 7, 24), (0, 7, 24), (1, 0, 24), (7, 24), ()])
def test_position_tables_of_odd_shapes(saved, tmp_path, shape):
    model, _, arrays = saved
    arrays["pos_embed"] = np.ones(shape, "float32")
    save_file(arrays, tmp_path / "odd.safetensors")
    assert_refused(model, tmp_path / "odd.safetensors", "pos_embed")


@pytest.mark.parametrize("shape", [(24, 3, 0, 0), (24, 3, 16), (24, 1, 16, 16), (24, 77), ()])
def test_patch_kernels_of_odd_shapes(saved, tmp_path, shape):
    model, _, arrays = saved
    arrays["patch_embed.proj.weight"] = np.ones(shape, "float32")
    save_file(arrays, tmp_path / "odd.safetensors")
    assert_refused(model, tmp_path / "odd.safetensors", "patch_embed.proj.weight")


@pytest.mark.parametrize("shape", [(), (5,), (100_000_000, 0)])
def test_heads_of_odd_shapes(saved, tmp_path, shape):
    _, _, arrays = saved
    arrays["head.weight"] = np.ones(shape, "float32")
    save_file(arrays, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="head"):
        build_vit("vit_b16", weights=tmp_path / "odd.safetensors", **SMALL)


@pytest.mark.tensorflow_only
def test_flat_patch_kernels_of_the_first_timm_files(saved, tmp_path):
    model, _, arrays = saved
    kernel = arrays["patch_embed.proj.weight"]
    save_file({**arrays, "patch_embed.proj.weight": kernel.reshape(24, -1)}, tmp_path / "old.safetensors")
    other = small_vit()
    load_weights(other, tmp_path / "old.safetensors")
    np.testing.assert_array_equal(values(other)[0], values(model)[0])


@pytest.mark.parametrize(
    "overrides",
    [
        dict(patch_size=(8, 32), image_size=(16, 64)),
        dict(patch_size=(8, 16), image_size=32),
        dict(patch_size=8, in_channels=12, image_size=16),
        dict(patch_size=32, in_channels=1, image_size=64),
    ],
)
def test_vit_pytorch_patches_of_all_sides(overrides, tmp_path):
    sizes = dict(hidden_dim=24, num_layers=1, num_heads=2, mlp_dim=16, head_dim=8, num_classes=3)
    model = randomize(build_vit("vit_pytorch", **sizes, **overrides))
    ours = {v.path: ops.convert_to_numpy(v) for v in model.weights}
    names = {
        "patch_norm": "to_patch_embedding.1",
        "patch_embedding": "to_patch_embedding.2",
        "embedding_norm": "to_patch_embedding.3",
        "block_0/attention_norm": "transformer.layers.0.0.norm",
        "block_0/attention/qkv": "transformer.layers.0.0.to_qkv",
        "block_0/attention/projection": "transformer.layers.0.0.to_out.0",
        "block_0/mlp_norm": "transformer.layers.0.1.net.0",
        "block_0/mlp/fc1": "transformer.layers.0.1.net.1",
        "block_0/mlp/fc2": "transformer.layers.0.1.net.4",
        "norm": "transformer.norm",
        "head": "mlp_head",
    }
    endings = {"kernel": "weight", "gamma": "weight", "beta": "bias", "bias": "bias"}
    arrays = {
        "cls_token": ours.pop("patch_encoder/class_token")[0],
        "pos_embedding": ours.pop("patch_encoder/position_embedding")[0],
    }
    for path, array in ours.items():
        module, _, ending = path.rpartition("/")
        arrays[f"{names[module]}.{endings[ending]}"] = np.ascontiguousarray(array.T)
    save_file(arrays, tmp_path / "lucidrains.safetensors")
    again = build_vit("vit_pytorch", weights=tmp_path / "lucidrains.safetensors", **sizes, **overrides)
    np.testing.assert_allclose(again(images(model)), model(images(model)), atol=1e-6)


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
    expected = resample.resample_positions(positions(model), (4, 4), (5, 5), 0, "bilinear", False)
    np.testing.assert_array_equal(positions(plain), expected)
    path = save_weights(small_vit(image_size=64), tmp_path / "plain.safetensors")
    radiology = build_vit("vit_b16", weights=path, name="radiology", **sizes)
    expected = resample.resample_positions(load_file(path)["pos_embed"], (4, 4), (5, 5), 1)
    np.testing.assert_array_equal(positions(radiology), expected)


def test_averaged_weights_are_taken_first_and_wrappers_names_left_out(saved, tmp_path):
    torch = pytest.importorskip("torch")
    model, _, arrays = saved
    raw = {f"module._orig_mod.{k}": torch.tensor(x + 1) for k, x in arrays.items()}
    averaged = {f"_orig_mod.{k}": torch.tensor(x) for k, x in arrays.items()}
    for raw_key, key in (("state_dict", "state_dict_ema"), ("model", "model_ema")):
        torch.save({raw_key: raw, key: averaged, "epoch": 3}, tmp_path / "training.pth")
        other = small_vit()
        load_weights(other, tmp_path / "training.pth")
        np.testing.assert_array_equal(values(other)[0], values(model)[0])
    torch.save({"state_dict": raw}, tmp_path / "training.pth")
    load_weights(other, tmp_path / "training.pth")
    np.testing.assert_allclose(values(other)[0], values(model)[0] + 1)


# ---------------------------------------------------------------------------------------------------
# config.json
# ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name, arguments, expected",
    [
        ("vit_base_patch16_224", dict(num_classes=3, in_chans=3, global_pool="token", drop_rate=0.1), {}),
        (
            "vit_base_patch16_224",
            dict(global_pool="avg"),
            dict(pooling="avg", class_token=True, final_norm="pooled"),
        ),
        (
            "vit_base_patch16_224",
            dict(global_pool="avg", fc_norm=False),
            dict(pooling="avg", final_norm="tokens"),
        ),
        (
            "vit_base_patch16_224",
            dict(global_pool="map"),
            dict(pooling="map", class_token=True, final_norm="tokens"),
        ),
        ("vit_base_patch16_siglip_224", dict(global_pool="avg"), dict(pooling="avg", final_norm="pooled")),
        (
            "vit_base_patch16_siglip_gap_224",
            dict(global_pool="max"),
            dict(pooling="max", final_norm="tokens"),
        ),
        ("vit_small_patch16_224", dict(embed_dim=192), dict(hidden_dim=192, mlp_dim=768)),
        ("vit_small_patch16_224", dict(mlp_ratio=2, depth=None), dict(mlp_dim=768, num_layers=12)),
        ("vit_giant_patch14_dinov2", dict(embed_dim=96, mlp_ratio=4.0), dict(mlp_dim=192)),
        (
            "vit_small_patch16_224",
            dict(pre_norm=True, act_layer="quick_gelu"),
            dict(pre_norm=True, patch_bias=False),
        ),
        ("vit_small_patch16_224", dict(no_embed_class=True, reg_tokens=2), dict(prefix_positions=False)),
        ("vit_small_patch16_224", dict(final_norm=False, dynamic_img_size=True), dict(final_norm="none")),
    ],
)
def test_timm_model_arguments(name, arguments, expected):
    config = dict(architecture=f"{name}.a_tag", model_args=arguments)
    variant, fields = vit_tf.weights.formats.timm.variant_from_config(config)
    assert variant == name
    spec = vit_tf.variants.get_variant(variant, **fields)
    for key, value in expected.items():
        assert getattr(spec, key) == value, key


@pytest.mark.tensorflow_only
@pytest.mark.parametrize(
    "config",
    [
        dict(architecture=["test_vit"]),
        dict(architecture="test_vit", pretrained_cfg="a"),
        dict(architecture="test_vit", pretrained_cfg=dict(input_size=160)),
        dict(architecture="test_vit", pretrained_cfg=dict(input_size=[3, "160", 160])),
        dict(architecture="test_vit", model_args="img_size"),
        dict(architecture="test_vit", model_args=dict(img_size="64")),
        dict(architecture="test_vit", model_args=dict(global_pool="")),
        dict(architecture="test_vit", model_args=dict(mlp_ratio="4")),
        dict(model_type=3),
        dict(model_type="vit", hidden_size="768"),
        dict(model_type="vit", hidden_act=["gelu"]),
        dict(model_type="vit", hidden_act="swoosh"),
        dict(model_type="vit", architectures=5),
        dict(model_type="dinov2", mlp_ratio="4"),
        dict(model_type="vit", num_hidden_layers=True),
    ],
)
def test_configs_of_another_kind(config, saved, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config.json|must be|unknown variant"):
        build_vit(weights=tmp_path)


@pytest.mark.tensorflow_only
def test_nulls_in_a_config_are_absent(tmp_path):
    hub_folder(tmp_path, pretrained_cfg=dict(input_size=[3, 64, 64]), model_args=None)
    assert build_vit(weights=tmp_path).input_shape == (None, 64, 64, 3)


@pytest.mark.parametrize("name", [["a"], 3, "vit_base_patch16_224.augreg_in21k"])
def test_names_of_another_kind(name):
    with pytest.raises(ValueError, match="unknown variant"):
        build_vit(name)


def test_load_weights_into_something_else(saved):
    with pytest.raises(ValueError, match="must be a model of `build_vit`, got 'vit_b16'"):
        load_weights("vit_b16", saved[1])


def test_save_weights_on_a_full_disk(saved, tmp_path, monkeypatch):
    import safetensors
    import safetensors.numpy

    def full(*args, **kwargs):
        raise safetensors.SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    before = set(tmp_path.iterdir())
    with pytest.raises(OSError, match="No space left"):
        save_weights(saved[0], tmp_path / "new.safetensors")
    assert set(tmp_path.iterdir()) == before
