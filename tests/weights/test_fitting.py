"""Weights in models of other input channels and sizes: as the library of their format does, and named."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from vit_tf import build_vit, load_weights, save_weights
from vit_tf.variants import VARIANTS
from vit_tf.weights import open_weights, resample
from vit_tf.weights.fitting import adapt_channels
from vit_tf.weights.naming import BASE, name_variant
from vit_tf.weights.positions import resample_positions

SIZES = dict(image_size=32, patch_size=8, hidden_dim=16, num_layers=1, num_heads=2, mlp_dim=24, num_classes=0)
HUGGING_FACE = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
HUGGING_FACE |= dict(image_size=32, patch_size=8)


def timm_file(tmp_path, **overrides):
    return save_weights(build_vit(BASE, **{**SIZES, **overrides}), tmp_path / "timm.safetensors")


def hugging_face_folder(tmp_path, kind, **config):
    """Writes what transformers would of a model, its position table being all that tests look at."""
    names = ["embeddings.patch_embeddings.projection.weight", "embeddings.position_embeddings"]
    rng = np.random.default_rng(0)
    prefix = 2 if kind == "deit" else 1
    shapes = [(16, 3, 8, 8), (1, 16 + prefix, 16)]
    arrays = {n: rng.normal(size=shape).astype("float32") for n, shape in zip(names, shapes)}
    arrays["embeddings.cls_token"] = np.ones((1, 1, 16), "float32")
    arrays["encoder.layer.0.norm1.weight"] = np.ones(16, "float32")
    if kind == "dinov2_with_registers":
        arrays["embeddings.register_tokens"] = np.ones((1, 4, 16), "float32")
    if kind == "deit":
        arrays["embeddings.distillation_token"] = np.ones((1, 1, 16), "float32")
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, **HUGGING_FACE, **config}))
    return arrays["embeddings.position_embeddings"], prefix


@pytest.mark.parametrize("channels", [1, 2, 4, 12])
def test_input_channels(channels, tmp_path):
    path = timm_file(tmp_path)
    model = build_vit(BASE, **SIZES, in_channels=channels)
    report = load_weights(model, path)
    assert report.adapted == [f"patch_embed.proj.weight: 3 input channels to {channels}"]
    assert report.adapted[0] in str(report)
    kernel = load_file(path)["patch_embed.proj.weight"]
    found = load_file(save_weights(model, tmp_path / "a.safetensors"))["patch_embed.proj.weight"]
    expected = np.stack([kernel[:, i % 3] for i in range(channels)], 1) * 3 / channels
    expected = kernel.sum(1, keepdims=True) if channels == 1 else expected
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_input_channels_of_a_flat_kernel_of_another_patch_and_of_no_rgb(tmp_path):
    path = timm_file(tmp_path)
    arrays = load_file(path)
    kernel = arrays["patch_embed.proj.weight"]
    save_file({**arrays, "patch_embed.proj.weight": kernel.reshape(16, -1)}, tmp_path / "flat.safetensors")
    model = build_vit(BASE, **{**SIZES, "image_size": 64, "patch_size": 16}, in_channels=2)
    for source in (path, tmp_path / "flat.safetensors"):
        report = load_weights(model, source)
        assert len(report.adapted) == len(report.resampled) == 1
        found = load_file(save_weights(model, tmp_path / "a.safetensors"))["patch_embed.proj.weight"]
        larger = resample.resample_patch_kernel(adapt_channels(kernel, 2).transpose(2, 3, 1, 0), (16, 16))
        np.testing.assert_allclose(found, larger.transpose(3, 2, 0, 1), rtol=1e-4, atol=1e-6)
    path = timm_file(tmp_path, in_channels=4)
    with pytest.raises(ValueError, match=r"\(16, 4, 8, 8\) in the source, \(16, 3, 8, 8\) here"):
        load_weights(build_vit(BASE, **SIZES), path)


@pytest.mark.parity
@pytest.mark.parametrize("channels", [1, 2, 4, 12])
def test_input_channels_equal_timm(channels):
    manipulate = pytest.importorskip("timm.models._manipulate")
    import torch

    kernel = np.random.default_rng(0).normal(size=(5, 3, 4, 2)).astype("float32")
    expected = manipulate.adapt_input_conv(channels, torch.tensor(kernel)).numpy()
    np.testing.assert_allclose(adapt_channels(kernel, channels), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["vit", "deit", "dinov2", "dinov2_with_registers"])
def test_transformers_tables_are_resampled_as_transformers_does(kind, tmp_path):
    table, prefix = hugging_face_folder(tmp_path, kind)
    weights = open_weights(tmp_path)
    variant, fields = weights.describe()
    model = build_vit(variant, **{**fields, "image_size": (24, 40)})
    options = dict(antialias=kind == "dinov2_with_registers")
    for given in ({}, dict(antialias=True), dict(method="bilinear")):
        report = load_weights(model, weights, strict=False, **given)
        told = "as asked for" if given else "as transformers does"
        assert len(report.resampled) == 1 and report.resampled[0].endswith(told)
        expected = resample_positions(table, (4, 4), (3, 5), prefix, **{**options, **given})
        expected = expected[:, 1:] if kind == "dinov2_with_registers" else expected
        found = model.get_layer("patch_encoder").position_embedding
        np.testing.assert_allclose(found, expected, atol=1e-6)
        options = dict(antialias=True)


MODELS = {
    "vit": ("ViTModel", {}),
    "deit": ("DeiTModel", {}),
    "dinov2": ("Dinov2Model", {}),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {}),
}


@pytest.mark.parity
@pytest.mark.parametrize("size", [(224, 224), (56, 56), (70, 126), (140, 28)])
@pytest.mark.parametrize("kind", MODELS)
def test_transformers_itself_at_other_sizes(kind, size, tmp_path):
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        kind, image_size=518, patch_size=14, hidden_size=48, num_hidden_layers=2, num_attention_heads=3
    )
    reference = getattr(transformers, MODELS[kind][0])(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    reference.save_pretrained(tmp_path)
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    options = dict(interpolate_pos_encoding=True) if kind in ("vit", "deit") else {}
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2)), **options).last_hidden_state[:, 0]
    model = build_vit(weights=tmp_path, image_size=size)
    found, expected = np.asarray(model(images)), expected.numpy()
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("old, new", [(37, 16), (16, 37), (5, 5)])
def test_the_offset_of_dinov2_s_makers(old, new):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(1, old * old, 3)).astype("float32")
    grid = torch.tensor(x.reshape(1, old, old, 3).transpose(0, 3, 1, 2))
    scale = (float((new + 0.1) / old),) * 2
    grid = torch.nn.functional.interpolate(grid, scale_factor=scale, mode="bicubic").numpy()
    if old != new:  # the makers leave a table of the same size as it is
        found = resample_positions(x, (old, old), (new, new), antialias=False, offset=0.1)
        expected = grid.transpose(0, 2, 3, 1).reshape(1, new * new, 3)
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    "kind, fields, expected",
    [
        ("vit", dict(norm_epsilon=1e-12), "vit_base_patch16_224"),
        ("vit", dict(image_size=384), "vit_base_patch16_384"),
        ("vit", dict(patch_size=32, image_size=384), "vit_base_patch32_384"),
        (
            "deit",
            dict(hidden_dim=192, num_heads=3, mlp_dim=768, distillation_token=True),
            "deit_tiny_distilled",
        ),
        ("dinov2", dict(image_size=518, patch_size=14, layer_scale_init=1.0), "vit_base_patch14_dinov2"),
        (
            "dinov2",
            dict(image_size=518, patch_size=14, layer_scale_init=1.0, pooling="token_avg"),
            "vit_base_patch14_dinov2",
        ),
        (
            "dinov2_with_registers",
            dict(
                image_size=224, patch_size=14, layer_scale_init=1.0, num_registers=4, prefix_positions=False
            ),
            "vit_base_patch14_reg4_dinov2",
        ),
    ],
)
def test_models_of_transformers_have_the_names_of_variants(kind, fields, expected):
    variant, other = name_variant(kind, fields)
    assert variant.startswith(expected) and variant in VARIANTS
    assert other.keys() <= {"norm_epsilon", "pooling", "image_size"}


def test_models_of_no_variant_are_called_by_their_sizes(tmp_path):
    hugging_face_folder(tmp_path, "dinov2", image_size=[32, 48])
    weights = open_weights(tmp_path)
    name = weights.model_name(*weights.describe())
    assert name == "dinov2_width16_depth1_patch8_32x48"
