"""Our logits against those of timm, transformers and vit-pytorch, with random weights and images.

The largest difference is at most 1e-4 of the largest logit: float32 sums in another order differ by
about 1e-6 a layer. The recorded logits (`make_fixtures.py`) need no PyTorch; `pytest -m parity` asks the
libraries themselves, with other weights.
"""

import json

import numpy as np
import pytest
from support.agreement import TOLERANCE, assert_agree
from support.cases import (
    INSIDE,
    TIMM_NAMES,
    all_cases,
    build,
    one_of_each_kind,
    random_images,
    random_weights,
    timm_case,
    write_weights,
)
from support.marks import mostly_slow
from support.paths import FIXTURES

from vit_tf import (
    attention_maps,
    build_vit,
    class_relevance,
    count_flops,
    forward_features,
    grad_cam,
    load_weights,
    save_weights,
)
from vit_tf.deploy.onnx import write_onnx
from vit_tf.layers import AttentionPooling
from vit_tf.variants import VARIANTS

RECORDED = json.loads((FIXTURES / "logits.json").read_text())

# One of each family, at full size.
FULL_SIZE = (
    "vit_base_patch16_224",
    "deit_small_distilled_patch16_224",
    "deit3_medium_patch16_224",
    "vit_base_patch16_clip_quickgelu_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_siglip_gap_224",
    "flexivit_small",
    "beit3_base_patch16_224",
    "vit_base_patch16_xp_224",
    "vit_base_patch16_rpn_224",
    "vit_small_patch16_18x2_224",
    "vit_dlittle_patch16_reg1_gap_256",
    "vit_dpwee_patch16_reg1_gap_256",
    "vit_so150m2_patch16_reg1_gap_256",
    "vit_so150m_patch16_reg4_map_256",
    "aimv2_large_patch14_224",
    "vit_medium_patch16_gap_256",
    "test_vit3",
    "beit_base_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vit_small_r26_s32_224",
    "vit_small_resnet50d_s16_224",
    "vit_base_mci_224",
    "eva02_small_patch14_224",
    "eva02_base_patch16_clip_224",
    "vit_medium_patch16_rope_reg1_gap_256",
    "vit_small_patch16_rope_mixed_ape_224",
    "vit_pe_core_tiny_patch16_384",
    "vit_small_patch16_dinov3",
    "vit_base_patch16_sapiens2",
)


def test_every_architecture_is_recorded():
    recorded = {case["variant"] for case in RECORDED if case["format"] == "timm"}
    assert recorded == set(TIMM_NAMES) and len(recorded) == 265
    assert [case["id"] for case in RECORDED] == [case["id"] for case in all_cases()]
    assert sum(path.stat().st_size for path in (FIXTURES).iterdir()) < 3e6


FAST = [  # one of each kind and of each format
    *INSIDE,
    *("google stacked vit_base_patch16_siglip_224", "huggingface DeiTForImageClassificationWithTeacher"),
    "vit_pytorch mean",
]


KINDS = one_of_each_kind([*INSIDE, *TIMM_NAMES])
ALIKE = set(TIMM_NAMES) - set(KINDS)  # each differs from one of `KINDS` in its sizes alone


@pytest.mark.parametrize("case", mostly_slow({case["id"]: case for case in RECORDED}, FAST, ALIKE))
def test_recorded_logits(case, tmp_path):
    """The logits of each model and of its exports; `save_weights` writes what was loaded."""
    model = build(case, write_weights(case, tmp_path))
    images = random_images(case)
    assert_agree(model(images), case["logits"])
    if case["format"] == "timm":
        check_way_back(model, case, tmp_path)
        check_exports(model, images, case["logits"], tmp_path / "model.onnx")


def test_each_kind_of_architecture_is_in_every_run():
    assert set(INSIDE) < set(KINDS) and len(KINDS) > 40
    assert one_of_each_kind(KINDS) == KINDS and one_of_each_kind([*KINDS, *TIMM_NAMES]) == KINDS


def check_way_back(model, case, folder):
    """What `save_weights` writes is, bit by bit and name by name, what was loaded."""
    from safetensors.numpy import load_file

    saved = load_file(save_weights(model, folder / "back.safetensors"))
    weights = random_weights(case["shapes"])
    assert saved.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(saved[name], array)


def check_exports(model, images, expected, path):
    """The model as an ONNX file, run by ONNX Runtime and by OpenVINO."""
    from support.onnx_files import run_onnx, run_onnx_by_openvino

    write_onnx(model, path)
    for run in (run_onnx, run_onnx_by_openvino):
        (logits,) = run(path, images=images)
        assert_agree(logits, expected)


@pytest.mark.parity
@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case["id"])
def test_live(case, tmp_path):
    pytest.importorskip("timm")
    from support import references

    case = references.complete(case, tmp_path)
    expected = references.reference_logits(case, tmp_path, seed=1)
    model = build(case, write_weights(case, tmp_path, seed=1))
    assert_agree(model(random_images(case, seed=1)), expected)


@pytest.mark.parity
@pytest.mark.parametrize("name", INSIDE)
def test_live_attention_and_features(name, tmp_path):
    pytest.importorskip("timm")
    from support import references

    case = references.complete(timm_case(name), tmp_path)
    attention, features = references.reference_inside(case, tmp_path, seed=1)
    model, images = build(case, write_weights(case, tmp_path, seed=1)), random_images(case, seed=1)
    maps = attention_maps(model, images)
    assert len(maps) == len(attention) == len(features)
    for scores, expected in zip(maps.values(), attention.values()):
        np.testing.assert_allclose(scores, expected, atol=1e-5)
    for found, expected in zip(forward_features(model, images).values(), features.values()):
        np.testing.assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())
    query = "patches" if isinstance(model.get_layer("pooling"), AttentionPooling) else None
    found = class_relevance(model, images, 3, query=query), grad_cam(model, images, 3)
    for maps, expected in zip(found, references.reference_relevance(case, tmp_path, 3, seed=1)):
        np.testing.assert_allclose(maps, expected, atol=TOLERANCE * expected.max())


@pytest.mark.parity
@pytest.mark.parametrize("gated", [False, True])
def test_all_tokens_of_dinov3_of_transformers(gated, tmp_path):
    """At an image size that is not square, where a mistake in the rotary positions would show."""
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    sizes = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=3)
    kind = dict(use_gated_mlp=gated, hidden_act="silu" if gated else "gelu")
    config = transformers.DINOv3ViTConfig(patch_size=16, num_register_tokens=4, **sizes, **kind)
    reference = transformers.DINOv3ViTModel(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    reference.save_pretrained(tmp_path)
    model = build_vit(weights=tmp_path, image_size=(64, 80))
    images = np.random.default_rng(0).normal(size=(2, 64, 80, 3)).astype("float32")
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).last_hidden_state.numpy()
    assert_agree(forward_features(model, images, -1, reshape=False)["block_1"], expected)


@pytest.mark.parity
@pytest.mark.parametrize("name", FULL_SIZE)
def test_live_at_full_size(name, tmp_path):
    timm = pytest.importorskip("timm")
    import torch
    from safetensors.torch import save_file

    spec = VARIANTS[name]
    torch.manual_seed(0)
    reference = timm.create_model(name, num_classes=spec.num_classes).eval()
    with torch.no_grad():
        # timm's start leaves biases and LayerScale at their plain values.
        for key, parameter in reference.named_parameters():
            noise = torch.randn_like(parameter)
            size = (4 / parameter[0].numel()) ** 0.5 if "backbone" in key else 0.03
            parameter.add_(0.2 * noise) if parameter.ndim == 1 else parameter.copy_(size * noise)
        for key, buffer in reference.named_buffers():
            if key.endswith(("running_mean", "running_var")):
                buffer.add_(0.5 * torch.rand_like(buffer))
    save_file(reference.state_dict(), tmp_path / "model.safetensors")
    model = build_vit(name)
    parameters = count_flops(model).totals.parameters  # without moving statistics
    assert parameters == sum(parameter.numel() for parameter in reference.parameters())
    load_weights(model, tmp_path / "model.safetensors")
    images = np.random.default_rng(0).normal(size=(2, *spec.image_size, 3)).astype("float32")
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    assert_agree(model.predict(images, verbose=0), expected)
    # And back: timm takes what we write, strictly.
    path = save_weights(model, tmp_path / "back.safetensors")
    again = timm.create_model(name, num_classes=spec.num_classes, checkpoint_path=str(path))
    for key, value in reference.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parity
@pytest.mark.parametrize(
    "name, options",
    [
        ("test_vit", {}),
        ("test_vit3", dict(num_classes=7)),
        ("vit_tiny_patch16_224", dict(global_pool="avg", depth=2, img_size=96)),
        ("vit_base_patch16_siglip_224", dict(global_pool="avg", depth=2, embed_dim=96, num_classes=4)),
        ("vit_small_patch14_reg4_dinov2", dict(depth=2, img_size=70, num_classes=3)),
        ("deit_tiny_distilled_patch16_224", dict(depth=2)),
        ("vit_tiny_r_s16_p8_224", dict(depth=2, img_size=96)),
        ("beit_base_patch16_224", dict(depth=2, img_size=96)),
        ("vit_base_mci_224", dict(depth=2, embed_dim=768, num_classes=3)),
        ("vit_tiny_patch16_224", dict(depth=2, mlp_ratio=2.0, no_embed_class=True, reg_tokens=3)),
    ],
)
def test_folders_that_timm_writes(name, options, tmp_path):
    timm = pytest.importorskip("timm")
    import torch

    torch.manual_seed(0)
    reference = timm.create_model(name, **options).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    timm.models.save_for_hf(reference, tmp_path, safe_serialization=True)
    model = build_vit(weights=tmp_path)
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    assert_agree(model(images), expected)


@pytest.mark.filterwarnings("ignore::UserWarning:timm.layers.interpolate")  # in timm, for BEiT
@pytest.mark.parity
@pytest.mark.parametrize("image_size, patch_size", [((128, 192), 16), (224, 8), ((96, 144), (12, 24))])
@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "flexivit_small", "vit_little_patch16_reg4_gap_256", "beit_base_patch16_224"],
)
def test_timm_resamples_as_we_do(name, image_size, patch_size, tmp_path):
    timm = pytest.importorskip("timm")
    import torch
    from safetensors.torch import save_file

    small = dict(depth=2, num_classes=5)
    torch.manual_seed(0)
    saved = timm.create_model(name, **small).state_dict()
    save_file({key: x + 0.1 * torch.randn_like(x) for key, x in saved.items()}, tmp_path / "a.safetensors")
    reference = timm.create_model(
        name,
        img_size=image_size,
        patch_size=patch_size,
        pretrained=True,
        pretrained_cfg_overlay=dict(file=str(tmp_path / "a.safetensors"), num_classes=5, custom_load=False),
        **small,
    ).eval()
    model = build_vit(
        name, weights=tmp_path / "a.safetensors", num_layers=2, image_size=image_size, patch_size=patch_size
    )
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    with torch.no_grad():
        expected = reference(torch.tensor(images.transpose(0, 3, 1, 2))).numpy()
    assert_agree(model(images), expected)
