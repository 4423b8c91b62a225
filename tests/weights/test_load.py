import json
import zipfile

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from safetensors.numpy import save_file
from support.cases import timm_case
from support.saved_models import SMALL, assert_refused, images, small_vit, values

from vit_tf import build_vit, load_weights, save_weights

pytestmark = pytest.mark.every_backend


@pytest.mark.tensorflow_only
def test_a_full_fit(saved):
    model, path, arrays = saved
    other = small_vit()
    for v in other.weights:
        v.assign(np.zeros(v.shape, v.dtype))
    report = load_weights(other, path)
    assert sorted(report.loaded) == sorted(arrays) and report.format == "timm" and not report.errors
    assert str(report) == f"{len(arrays)} tensors from {path} (timm)"
    for old, new in zip(values(model), values(other)):
        np.testing.assert_array_equal(old, new)


@pytest.mark.tensorflow_only
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


@pytest.mark.slow
@pytest.mark.tensorflow_only
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


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_long_lists_are_cut(saved):
    _, path, _ = saved
    assert_refused(small_vit(num_layers=4), path, "24 missing", "and 19 more")


@pytest.mark.slow
def test_another_number_of_classes_starts_a_new_head(saved):
    model, path, arrays = saved
    other = small_vit(num_classes=7)
    head = ops.convert_to_numpy(other.get_layer("head").kernel)
    report = load_weights(other, path)
    assert report.new_head and not report.errors and "the head is new" in str(report)
    np.testing.assert_array_equal(head, other.get_layer("head").kernel)
    np.testing.assert_array_equal(model.get_layer("norm").gamma, other.get_layer("norm").gamma)
    features = small_vit(num_classes=0)
    assert set(load_weights(features, path).unused) == {"head.weight", "head.bias"}
    bare = save_weights(features, path.with_name("bare.safetensors"))
    assert load_weights(other, bare).new_head


@pytest.mark.slow
def test_build_vit_takes_the_head_of_the_weights(saved):
    model, path, _ = saved
    options = {key: value for key, value in SMALL.items() if key != "num_classes"}
    again = build_vit("vit_b16", weights=path, **options)
    assert again.output_shape == (None, 5)
    np.testing.assert_allclose(again(images(model)), model(images(model)), atol=1e-6)
    assert build_vit("vit_b16", weights=path, num_classes=3, **options).output_shape == (None, 3)
    assert build_vit("vit_b16", weights=path, num_classes=0, **options).output_shape == (None, 24)


@pytest.mark.tensorflow_only
def test_nan_is_a_warning_that_names_the_tensor(saved, tmp_path):
    model, _, arrays = saved
    arrays["blocks.0.norm1.bias"][3] = np.nan
    arrays["cls_token"][0, 0, 1] = np.inf
    save_file(arrays, tmp_path / "nan.safetensors")
    with pytest.warns(UserWarning, match="cls_token, blocks.0.norm1.bias"):
        report = load_weights(model, tmp_path / "nan.safetensors")
    assert report.not_finite == ["cls_token", "blocks.0.norm1.bias"]


@pytest.mark.tensorflow_only
def test_large_values_are_no_warning(saved, tmp_path):
    model, _, arrays = saved
    arrays["norm.bias"][:] = 3e38  # their sum overflows
    save_file(arrays, tmp_path / "large.safetensors")
    assert load_weights(model, tmp_path / "large.safetensors").not_finite == []


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_float_types_are_read_as_float32(saved, tmp_path, dtype):
    model, _, arrays = saved
    save_file({name: x.astype(dtype) for name, x in arrays.items()}, tmp_path / "half.safetensors")
    other = small_vit()
    load_weights(other, tmp_path / "half.safetensors")
    for old, new in zip(values(model), values(other)):
        assert new.dtype == "float32"
        np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_a_pooling_of_another_kind_leaves_the_attention_pooling_out(tmp_path):
    model = small_vit(pooling="map")
    path = save_weights(model, tmp_path / "map.safetensors")
    report = load_weights(small_vit(pooling="avg"), path)
    assert not report.errors and "attn_pool.latent" in report.unused and "attn_pool.latent" in str(report)


@pytest.mark.slow
@pytest.mark.fast_cases(1)
@pytest.mark.parametrize("name", ["vit_cifar10", "vit_cifar10_hybrid", "vit_cifar10_tutorial", "vit_pytorch"])
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


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_loading_holds_one_tensor_at_a_time(tmp_path):
    import tracemalloc

    model = build_vit("vit_b16", **{**SMALL, "hidden_dim": 96, "mlp_dim": 3072, "num_layers": 8})
    path = save_weights(model, tmp_path / "model.safetensors")
    largest = max(4 * np.prod(v.shape) for v in model.weights)
    assert path.stat().st_size > 15 * largest
    load_weights(model, path)  # imports what it needs
    tracemalloc.start()
    try:
        load_weights(model, path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * largest  # a tensor, its transpose, the backend's copy, and small change


def hub_folder(tmp_path, **config):
    case = timm_case("test_vit")
    model = randomize(build_vit("test_vit", image_size=64, num_classes=5))
    save_weights(model, tmp_path / "model.safetensors")
    content = dict(architecture="test_vit", num_classes=5, **config)
    (tmp_path / "config.json").write_text(json.dumps(content))
    return model, case


@pytest.mark.slow
@pytest.mark.tensorflow_only
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


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_a_folder_with_model_arguments(tmp_path):
    model, _ = hub_folder(tmp_path, model_args=dict(img_size=64, global_pool="token"))
    assert build_vit(weights=tmp_path).input_shape == (None, 64, 64, 3)
    hub_folder(tmp_path, model_args=dict(img_size=64, rope=True))
    with pytest.raises(ValueError, match="rope, which are unknown"):
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
    assert_refused(model, tmp_path / "other.safetensors", "not a ViT in a known format", "names begin with a")


@pytest.mark.tensorflow_only
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
        assert_refused(model, tmp_path / "odd.npz", "odd.npz", "tensors that a google file does not have")


@pytest.mark.tensorflow_only
def test_models_that_are_not_ours(saved):
    _, path, _ = saved
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    assert_refused(model, path, "not a plain model of `build_vit`", "dense/kernel")
    with pytest.raises(ValueError, match="not a plain model"):
        save_weights(model, path)


@pytest.mark.tensorflow_only
def test_bad_methods(saved):
    model, path, _ = saved
    assert_refused(model, path, "bilinear", method="area")


@pytest.mark.tensorflow_only
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


@pytest.mark.slow
@pytest.mark.tensorflow_only
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


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("dtype", ["int8", "bool", "uint64"])
def test_values_that_are_no_floats(saved, tmp_path, dtype):
    model, _, arrays = saved
    arrays["blocks.0.attn.qkv.weight"] = arrays["blocks.0.attn.qkv.weight"].astype(dtype)
    save_file(arrays, tmp_path / "integers.safetensors")
    np.savez(tmp_path / "integers.npz", **arrays)
    for name in ("integers.safetensors", "integers.npz"):
        assert_refused(model, tmp_path / name, "qkv.weight: values of NumPy's kind")


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("shape", [(2, 7, 24), (0, 7, 24), (1, 0, 24), (7, 24), ()])
def test_position_tables_of_odd_shapes(saved, tmp_path, shape):
    model, _, arrays = saved
    arrays["pos_embed"] = np.ones(shape, "float32")
    save_file(arrays, tmp_path / "odd.safetensors")
    assert_refused(model, tmp_path / "odd.safetensors", "pos_embed")


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("shape", [(24, 3, 0, 0), (24, 3, 16), (24, 1, 16, 16), (24, 77), ()])
def test_patch_kernels_of_odd_shapes(saved, tmp_path, shape):
    model, _, arrays = saved
    arrays["patch_embed.proj.weight"] = np.ones(shape, "float32")
    save_file(arrays, tmp_path / "odd.safetensors")
    assert_refused(model, tmp_path / "odd.safetensors", "patch_embed.proj.weight")


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("shape", [(), (5,), (100_000_000, 0)])
def test_heads_of_odd_shapes(saved, tmp_path, shape):
    _, _, arrays = saved
    arrays["head.weight"] = np.ones(shape, "float32")
    save_file(arrays, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="head"):
        build_vit("vit_b16", weights=tmp_path / "odd.safetensors", **SMALL)


@pytest.mark.tensorflow_only
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.tensorflow_only
def test_nulls_in_a_config_are_absent(tmp_path):
    hub_folder(tmp_path, pretrained_cfg=dict(input_size=[3, 64, 64]), model_args=None)
    assert build_vit(weights=tmp_path).input_shape == (None, 64, 64, 3)


@pytest.mark.tensorflow_only
@pytest.mark.parametrize("name", [["a"], 3, "vit_base_patch16_224.augreg_in21k"])
def test_names_of_another_kind(name):
    with pytest.raises(ValueError, match="unknown variant"):
        build_vit(name)


@pytest.mark.tensorflow_only
def test_load_weights_into_something_else(saved):
    with pytest.raises(ValueError, match="must be a model of `build_vit`, got 'vit_b16'"):
        load_weights("vit_b16", saved[1])
