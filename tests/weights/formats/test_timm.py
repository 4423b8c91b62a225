import numpy as np
import pytest
from conftest import randomize
from safetensors.numpy import load_file, save_file
from support.cases import build, random_images, random_weights, timm_case, write_weights
from support.saved_models import assert_refused, small_vit, values

import vit_tf
from vit_tf import load_weights, save_weights

pytestmark = pytest.mark.every_backend


def test_first_deit_3_names(saved, tmp_path):
    model = small_vit(layer_scale_init=0.1)
    arrays = load_file(save_weights(model, tmp_path / "new.safetensors"))
    arrays = {
        name.replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2"): x
        for name, x in arrays.items()
    }
    assert "blocks.1.gamma_2" in arrays
    save_file(arrays, tmp_path / "old.safetensors")
    assert not load_weights(model, tmp_path / "old.safetensors").errors
    arrays["blocks.1.ls2.gamma"] = arrays["blocks.1.gamma_2"].copy()
    save_file(arrays, tmp_path / "both.safetensors")
    assert_refused(model, tmp_path / "both.safetensors", "has both of its names")


@pytest.mark.slow
def test_formats_are_recognised_by_the_names_inside(tmp_path):
    case = timm_case("vit_tiny_patch16_224")
    model = build(case, None)
    entries = vit_tf.weights.formats.timm.weight_mappings(model)
    case["shapes"] = {name: entry.shape for name, entry in entries.items()}
    np.savez(tmp_path / "timm.npz", **random_weights(case["shapes"]))  # timm's names in NumPy's container
    report = load_weights(model, tmp_path / "timm.npz")
    assert report.format == "timm" and not report.errors
    again = build(case, write_weights(case, tmp_path))
    np.testing.assert_array_equal(again(random_images(case)), model(random_images(case)))


@pytest.mark.tensorflow_only
def test_flat_patch_kernels_of_the_first_timm_files(saved, tmp_path):
    model, _, arrays = saved
    kernel = arrays["patch_embed.proj.weight"]
    save_file({**arrays, "patch_embed.proj.weight": kernel.reshape(24, -1)}, tmp_path / "old.safetensors")
    other = small_vit()
    load_weights(other, tmp_path / "old.safetensors")
    np.testing.assert_array_equal(values(other)[0], values(model)[0])


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
        ("eva02_small_patch14_224", dict(mlp_ratio=2.0), dict(mlp_dim=768)),
        ("vit_small_patch16_dinov3", dict(global_pool="token", qkv_bias=True), dict(qkv_bias="qv")),
        ("vit_small_patch16_rope_224", dict(global_pool="avg", use_fc_norm=True), dict(final_norm="pooled")),
        ("vit_pe_core_base_patch16_224", dict(global_pool="avg"), dict(pool_prefix=False, pooling="avg")),
    ],
)
def test_timm_model_arguments(name, arguments, expected):
    config = dict(architecture=f"{name}.a_tag", model_args=arguments)
    variant, fields = vit_tf.weights.formats.timm.variant_from_config(config)
    assert variant == name
    spec = vit_tf.variants.get_variant(variant, **fields)
    for key, value in expected.items():
        assert getattr(spec, key) == value, key


def test_names_of_eva(tmp_path):
    """Separate matrices, biases of queries and values, LayerScales and frequencies come back bit by bit."""
    options = dict(rotary=dict(kind="mixed"), qkv_bias="qv", separate_qkv=True, layer_scale_init=0.1)
    model = small_vit(**options)
    arrays = load_file(save_weights(model, tmp_path / "a.safetensors"))
    block = {name.removeprefix("blocks.1.") for name in arrays if name.startswith("blocks.1.")}
    names = {f"attn.{part}_proj.weight" for part in "qkv"} | {"attn.q_proj.bias", "attn.v_proj.bias"}
    assert {*names, "gamma_1", "gamma_2"} <= block and not any("qkv" in name for name in block)
    assert arrays["rope.freqs"].shape == (2, 2, 3, 4)
    again = small_vit(**options)
    randomize(again, 0.7)
    report = load_weights(again, tmp_path / "a.safetensors")
    assert not report.errors
    for new, old in zip(values(again), values(model)):
        np.testing.assert_array_equal(new, old)
    # Fused matrices, as other files have them, and tables that are computed here.
    kernel = np.concatenate([arrays.pop(f"blocks.0.attn.{part}_proj.weight") for part in "qkv"])
    arrays |= {"blocks.0.attn.qkv.weight": kernel, "rope.bands": np.ones(3, "float32")}
    save_file(arrays, tmp_path / "b.safetensors")
    report = load_weights(again, tmp_path / "b.safetensors")
    assert not report.errors and report.unused == ["rope.bands"]


def test_a_grouped_model_keeps_its_widths(tmp_path):
    options = dict(rotary={}, position_table=False, num_kv_heads=1, num_layers=3, num_full_blocks=1)
    model = small_vit(**options, separate_qkv=True)
    arrays = load_file(save_weights(model, tmp_path / "a.safetensors"))
    widths = [arrays[f"blocks.{i}.attn.k_proj.weight"].shape for i in range(3)]
    assert widths == [(24, 24), (8, 24), (24, 24)] and arrays["blocks.1.attn.v_proj.bias"].shape == (8,)
    other = small_vit(**options)  # the same architecture; its files have fused names
    assert not load_weights(other, tmp_path / "a.safetensors").errors
    assert "blocks.1.attn.qkv.weight" in load_file(save_weights(other, tmp_path / "b.safetensors"))
