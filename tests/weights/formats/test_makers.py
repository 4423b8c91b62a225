"""The layouts of timm's checkpoints: its own, and those of their makers' files, which it converts.

Each layout is written from a small model's random weights and loaded back, name by name and bit by bit.
docs/checkpoints.md says which of timm's checkpoints has which layout.
"""

import re

import numpy as np
import pytest
from conftest import randomize
from safetensors.numpy import load_file, save_file
from support.cases import small
from support.paths import ROOT

from vit_tf import build_vit, list_models, load_weights, save_weights


def renamed(arrays, *rules):
    result = {}
    for name, array in arrays.items():
        for pattern, theirs in rules:
            name = re.sub(pattern, theirs, name)
        result[name] = array
    return result


def plain(arrays):
    return arrays


def without_head(arrays):
    return {name: array for name, array in arrays.items() if not name.startswith("head.")}


def training(arrays):
    return {f"model.{name}": array for name, array in arrays.items()}


def flat_patches(arrays):
    kernel = arrays["patch_embed.proj.weight"]
    return {**arrays, "patch_embed.proj.weight": kernel.reshape(len(kernel), -1)}


def deit3(arrays):
    return training(renamed(arrays, (r"\.ls([12])\.gamma", r".gamma_\1")))


def ijepa(arrays):
    encoder = {f"encoder.module.{name}": array for name, array in without_head(arrays).items()}
    target = {f"target_encoder.module.{n}": a + 1 for n, a in without_head(arrays).items()}
    return {**encoder, **target, "predictor.module.mask_token": np.ones((1, 1, 8), "float32")}


def dinov2(arrays):
    width = arrays["pos_embed"].shape[-1]
    result = {**without_head(arrays), "mask_token": np.ones((1, width), "float32")}
    if (
        "mlp.fc1" in str([n for n in arrays])
        and arrays["blocks.0.mlp.fc1.bias"].size != arrays["blocks.0.mlp.fc2.weight"].shape[1]
    ):
        result = renamed(result, (r"\.mlp\.fc1\.", ".mlp.w12."), (r"\.mlp\.fc2\.", ".mlp.w3."))
    if "reg_token" in result:
        result["register_tokens"] = result.pop("reg_token")
        position = np.random.default_rng(3).normal(size=(1, 1, width)).astype("float32")
        result["cls_token"] = result["cls_token"] - position
        result["pos_embed"] = np.concatenate([position, result["pos_embed"]], axis=1)
    return result


def tipsv2(arrays):
    result = {f"vision_encoder.{name}": array for name, array in dinov2(arrays).items()}
    return {**result, "text_encoder.ln_final.weight": np.ones(3, "float32")}


def clip(arrays):
    result = renamed(
        arrays,
        (r"^patch_embed\.proj\.", "conv1."),
        (r"^norm_pre\.", "ln_pre."),
        (r"^norm\.", "ln_post."),
        (r"^blocks\.", "transformer.resblocks."),
        (r"\.norm([12])\.", r".ln_\1."),
        (r"\.attn\.qkv\.", ".attn.in_proj_"),
        (r"\.attn\.proj\.", ".attn.out_proj."),
        (r"\.mlp\.fc1\.", ".mlp.c_fc."),
        (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    )
    result["class_embedding"] = result.pop("cls_token")[0, 0]
    result["positional_embedding"] = result.pop("pos_embed")[0]
    result["proj"] = np.ascontiguousarray(result.pop("head.weight").T)
    del result["head.bias"]
    beside = {"logit_scale": np.ones((), "float32"), "ln_final.weight": np.ones(3, "float32")}
    return {**{f"visual.{name}": array for name, array in result.items()}, **beside}


def open_clip(arrays):
    result = {f"visual.trunk.{name}": array for name, array in without_head(arrays).items()}
    return {**result, "visual.head.proj.weight": arrays["head.weight"]}


def beit3(arrays):
    result = {}
    for name, array in arrays.items():
        block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(\w+)", name)
        if block:
            inner, ending = block[2], block[3]
            start = f"beit3.encoder.layers.{block[1]}."
            if inner == "attn.qkv":
                for part, value in zip("qkv", np.split(array, 3)):
                    result[f"{start}self_attn.{part}_proj.A.{ending}"] = value
                continue
            theirs = {
                "norm1": "self_attn_layer_norm.A",
                "norm2": "final_layer_norm.A",
                "attn.norm": "self_attn.inner_attn_ln.A",
                "attn.proj": "self_attn.out_proj.A",
                "mlp.fc1": "ffn.A.fc1",
                "mlp.fc2": "ffn.A.fc2",
                "mlp.norm": "ffn.A.ffn_layernorm",
            }
            result[f"{start}{theirs[inner]}.{ending}"] = array
            result[f"{start}{theirs[inner].replace('A', 'B', 1)}.{ending}"] = array + 1
        elif name == "pos_embed":
            padding = np.ones((2, array.shape[-1]), "float32")
            result["beit3.encoder.embed_positions.A.weight"] = np.concatenate([padding, array[0]])
        elif name == "cls_token":
            result["beit3.vision_embed.cls_token"] = array
        elif name.startswith("patch_embed."):
            result[name.replace("patch_embed", "beit3.vision_embed")] = array
        else:
            result[name] = array  # fc_norm and head
    result["beit3.text_embed.weight"] = np.ones((5, 2), "float32")
    return training(result)


def aimv2(arrays):
    result = renamed(
        without_head(arrays),
        (r"^patch_embed\.", "preprocessor.patchifier."),
        (r"^pos_embed$", "preprocessor.pos_embed"),
        (r"^norm\.", "trunk.post_trunk_norm."),
        (r"^blocks\.", "trunk.blocks."),
        (r"\.norm([12])\.", r".norm_\1."),
        (r"\.mlp\.fc1_x\.", ".mlp.fc3."),
        (r"\.mlp\.fc1_g\.", ".mlp.fc1."),
    )
    return result


def radio(arrays):
    result = {n: a for n, a in arrays.items() if n.startswith("blocks.")}
    kernel = arrays["patch_embed.proj.weight"]
    result["patch_generator.embedder.weight"] = kernel.reshape(len(kernel), -1)
    result["patch_generator.pos_embed"] = arrays["pos_embed"]
    tokens = np.concatenate([arrays["cls_token"], arrays["reg_token"]], axis=1)
    result["patch_generator.cls_token.token"] = tokens[0]
    beside = {"radio_model.input_conditioner.norm_mean": np.ones((3, 1, 1), "float32")}
    return {**{f"radio_model.model.{name}": array for name, array in result.items()}, **beside}


def mobileclip(arrays):
    result = renamed(
        arrays,
        (r"^patch_embed\.backbone\.(\d)\.conv\.", r"patch_emb.\1.block.conv."),
        (r"^patch_embed\.backbone\.(\d)\.bn\.", r"patch_emb.\1.block.norm."),
        (r"^pos_embed$", "pos_embed.pos_embed.pos_embed"),
        (r"^norm\.", "post_transformer_norm."),
        (r"^blocks\.", "transformer."),
        (r"\.norm1\.", ".pre_norm_mha.0."),
        (r"\.attn\.qkv\.", ".pre_norm_mha.1.qkv_proj."),
        (r"\.attn\.proj\.", ".pre_norm_mha.1.out_proj."),
        (r"\.norm2\.", ".pre_norm_ffn.0."),
        (r"\.mlp\.fc1\.", ".pre_norm_ffn.1."),
        (r"\.mlp\.fc2\.", ".pre_norm_ffn.4."),
    )
    result["pos_embed.pos_embed.pos_embed"] = result["pos_embed.pos_embed.pos_embed"][None]
    result["classifier.proj"] = np.ascontiguousarray(result.pop("head.weight").T)
    del result["head.bias"]
    result["patch_emb.0.block.norm.num_batches_tracked"] = np.array(3, "int64")
    beside = {"text_encoder.projection_layer": np.ones(3, "float32")}
    return {**{f"image_encoder.model.{name}": array for name, array in result.items()}, **beside}


# The layouts by the names that docs/checkpoints.md gives them, with an architecture each.
LAYOUTS = {
    "timm": (plain, "vit_tiny_patch16_224"),
    "timm, flat patches": (flat_patches, "vit_tiny_patch16_224"),
    "DeiT": (training, "deit_tiny_distilled_patch16_224"),
    "DeiT III": (deit3, "deit3_small_patch16_224"),
    "DINO": (without_head, "vit_small_patch16_224"),
    "MAE": (lambda arrays: training(without_head(arrays)), "vit_base_patch16_224"),
    "I-JEPA": (ijepa, "vit_huge_patch14_gap_224"),
    "DINOv2": (dinov2, "vit_small_patch14_dinov2"),
    "DINOv2 SwiGLU": (dinov2, "vit_giant_patch14_dinov2"),
    "DINOv2 with registers": (dinov2, "vit_small_patch14_reg4_dinov2"),
    "TIPSv2": (tipsv2, "vit_base_patch14_reg1_tipsv2"),
    "CLIP": (clip, "vit_base_patch32_clip_quickgelu_224"),
    "OpenCLIP": (open_clip, "vit_medium_patch16_clip_224"),
    "BEiT-3": (beit3, "beit3_base_patch16_224"),
    "AIMv2": (aimv2, "aimv2_large_patch14_224"),
    "RADIO": (radio, "vit_base_patch16_radio_v3"),
    "MobileCLIP": (mobileclip, "vit_base_mci_224"),
}
WITHOUT_BIAS = ("CLIP", "OpenCLIP", "MobileCLIP")  # in the head


def test_the_layouts_of_all_of_timm_s_files_are_tested_in_files():
    page = (ROOT / "docs" / "checkpoints.md").read_text("utf-8")
    layouts = dict(re.findall(r"^\| ([^|]+) \| (\d+) \|$", page, re.M))
    assert layouts.keys() - {"Google npz"} <= LAYOUTS.keys()  # Google's are in tests/test_parity.py
    rows = re.findall(r"^\| (\w+) \| \S+ \| ([^|]+) \| ([^|]+) \| (yes|-) \|$", page, re.M)
    assert len(rows) == 470 and {name for name, *_ in rows} <= set(list_models())
    counted = [layout for _, hub, makers, _ in rows for layout in {hub, makers} if layout != "-"]
    assert {layout: str(counted.count(layout)) for layout in set(counted)} == layouts
    assert all((hub == makers == "-") == (loads == "-") for _, hub, makers, loads in rows)


def sizes(name):
    found = small(name)
    side = max(found["image_size"])
    return {**found, "image_size": [side, side], "num_layers": 1}


@pytest.mark.fast_cases(4)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, tmp_path):
    write, name = LAYOUTS[layout]
    model = randomize(build_vit(name, **sizes(name)))
    if layout == "RADIO":  # has no bias there
        model.get_layer("patch_embedding").weights[1].assign(np.zeros(model.layers[1].hidden_dim))
    if layout in WITHOUT_BIAS:
        model.get_layer("head").bias.assign(np.zeros(5))
    arrays = load_file(save_weights(model, tmp_path / "timm.safetensors"))
    theirs = write(arrays)
    save_file({n: np.ascontiguousarray(a) for n, a in theirs.items()}, tmp_path / "theirs.safetensors")
    other = build_vit(name, **sizes(name))
    report = load_weights(other, tmp_path / "theirs.safetensors")
    assert not report.errors and not report.resampled
    back = load_file(save_weights(other, tmp_path / "back.safetensors"))
    assert len(back) == len(arrays)
    for key, array in arrays.items():
        if not (report.new_head and key.startswith("head")):
            np.testing.assert_allclose(back[key], array, rtol=1e-6, atol=1e-6, err_msg=key)


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_what_timm_converts(layout, tmp_path):
    """timm's own conversion takes what the tests write for a file of its maker."""
    vision = pytest.importorskip("timm.models.vision_transformer")
    from functools import partial

    import torch

    write, name = LAYOUTS[layout]
    from support.cases import timm_case
    from support.references import reference_model

    case = timm_case(name)
    reference = case["reference"] | dict(depth=1, img_size=sizes(name)["image_size"])
    model = reference_model({**case, "reference": reference})
    arrays = {
        n: np.random.default_rng(i).normal(size=t.shape).astype("float32")
        for i, (n, t) in enumerate(model.state_dict().items())
        if not n.endswith("num_batches_tracked")
    }
    if layout == "RADIO":
        arrays["patch_embed.proj.bias"] *= 0
    if layout in WITHOUT_BIAS:
        arrays["head.bias"] *= 0
    theirs = {n: torch.tensor(a) for n, a in write(arrays).items()}
    if any(n.startswith("model.") for n in theirs):
        theirs = {n.removeprefix("model."): t for n, t in theirs.items()}
    if layout == "I-JEPA":
        start = "encoder."
        theirs = {"encoder": {n.removeprefix(start): t for n, t in theirs.items() if n.startswith(start)}}
    convert = vision.checkpoint_filter_fn
    if layout == "MobileCLIP":
        from timm.models.vision_transformer_hybrid import checkpoint_filter_fn as convert
    if layout == "DeiT III":
        convert = partial(convert, adapt_layer_scale=True)
    converted = convert(theirs, model)
    for key, array in arrays.items():
        if key in converted or not key.startswith("head"):
            np.testing.assert_allclose(converted[key].numpy(), array, rtol=1e-5, atol=1e-5, err_msg=key)
