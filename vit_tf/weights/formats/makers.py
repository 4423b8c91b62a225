"""Original files of models that timm converts: DINOv2 and TIPSv2, CLIP, OpenCLIP, BEiT-3, AIMv2, RADIO,
MobileCLIP.

Reference: timm 1.0.31, `checkpoint_filter_fn` in `models/vision_transformer.py`.
"""

import math
import re
from functools import partial

from vit_tf.weights.formats.backbones import UNUSED
from vit_tf.weights.formats.huggingface import fold_class_position
from vit_tf.weights.formats.renaming import rename, replace_all
from vit_tf.weights.formats.timm import from_timm
from vit_tf.weights.formats.zeros import head_without_bias, zeros_beside


def has(*expected):
    """Returns a function of the names in a file: whether they include all expected names."""
    return set(expected).issubset


# DINOv2 ------------------------------------------------------------------------------------------
DINOV2 = [
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # in chunks, while training
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"^register_tokens$", "reg_token"),
]


def matches_dinov2(names):
    """Whether names are those of DINOv2's own files, most of which are also timm's names."""
    if "patch_embed.proj.weight" not in names:
        return False
    plain = "mask_token" in names and any(re.match(r"blocks\.0(?:\.0)?\.ls1\.gamma$", n) for n in names)
    return plain or "register_tokens" in names or any(re.search(r"\.mlp\.w(12|3)\.", name) for name in names)


def from_dinov2(tensors):
    """Returns (tensors, unused): the tensors under timm's names, and the unused names."""
    result = {replace_all(name, DINOV2): tensor for name, tensor in tensors.items()}
    unused = [name for name in ("mask_token",) if result.pop(name, None) is not None]
    return fold_class_position(result), unused


# CLIP --------------------------------------------------------------------------------------------
CLIP = [
    (r"^conv1\.", "patch_embed.proj."),
    (r"^positional_embedding$", "pos_embed"),
    (r"^class_embedding$", "cls_token"),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.ls_([12])\.", r".ls\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
]


def from_clip(tensors):
    """As `from_dinov2`. The projection into the joint space becomes a head; the bias of the head is zero."""
    result = {replace_all(name, CLIP): tensor for name, tensor in tensors.items()}
    if "cls_token" in result:
        result["cls_token"] = result["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in result:
        result["pos_embed"] = result["pos_embed"].reshape(1, *result["pos_embed"].shape)
    if "proj" in result:
        result |= head_without_bias(result.pop("proj").transpose(1, 0))
    return result, ()


def from_trunk(tensors):
    """As `from_dinov2`, for OpenCLIP with an image tower of timm."""
    trunk = {n.removeprefix("trunk."): t for n, t in tensors.items() if n.startswith("trunk.")}
    result, unused = from_timm(trunk)
    if "head.proj.weight" in tensors and "head.weight" not in result:
        result |= head_without_bias(tensors["head.proj.weight"])
    used = ("trunk.", "head.proj.weight")
    return result, [*unused, *(name for name in tensors if not name.startswith(used))]


# BEiT-3 ------------------------------------------------------------------------------------------
BEIT3 = [
    (r"^beit3\.", ""),
    (r"^vision_embed\.cls_token$", "cls_token"),
    (r"^vision_embed\.", "patch_embed."),
    (r"^encoder\.", ""),
    (r"^layers\.", "blocks."),
    (r"\.A\.", "."),
    (r"\.ffn\.ffn_layernorm\.", ".mlp.norm."),
    (r"\.ffn\.", ".mlp."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.self_attn\.inner_attn_ln\.", ".attn.norm."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.q_proj\.(\w+)$", r".attn.qkv.\1:0/3"),
    (r"\.self_attn\.k_proj\.(\w+)$", r".attn.qkv.\1:1/3"),
    (r"\.self_attn\.v_proj\.(\w+)$", r".attn.qkv.\1:2/3"),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"^layer_norm\.", "norm."),
    (r"^embed_positions\.weight$", "pos_embed"),
]
BEIT3_UNUSED = ("beit3.text_embed.weight", "beit3.vision_embed.mask_token")


def from_beit3(tensors):
    """As `from_dinov2`. The image experts (A) are used, the text experts (B) are not."""
    used = {name: t for name, t in tensors.items() if ".B." not in name and name not in BEIT3_UNUSED}
    result = rename(used, partial(replace_all, rules=BEIT3))
    if "pos_embed" in result:
        positions = result["pos_embed"][2:]  # without two rows for paddings
        result["pos_embed"] = positions.reshape(1, *positions.shape)
    return result, [name for name in tensors if name not in used]


# AIMv2 -------------------------------------------------------------------------------------------
AIMV2 = [
    (r"^preprocessor\.patchifier\.", "patch_embed."),
    (r"^preprocessor\.pos_embed$", "pos_embed"),
    (r"^trunk\.post_trunk_norm\.", "norm."),
    (r"^trunk\.", ""),
    (r"\.norm_([12])\.", r".norm\1."),
    (r"\.mlp\.fc1\.", ".mlp.fc1_g."),
    (r"\.mlp\.fc3\.", ".mlp.fc1_x."),
]


def from_aimv2(tensors):
    """As `from_dinov2`."""
    return {replace_all(name, AIMV2): tensor for name, tensor in tensors.items()}, ()


# RADIO -------------------------------------------------------------------------------------------


def from_radio(tensors):
    """As `from_dinov2`. The first of the class tokens, one per teacher, is kept; the others are registers."""
    result, unused = {}, []
    for name, tensor in tensors.items():
        if name == "patch_generator.embedder.weight":
            side = math.isqrt(tensor.shape[1] // 3)
            result["patch_embed.proj.weight"] = tensor.reshape(-1, 3, side, side)
            result["patch_embed.proj.bias"] = zeros_beside(tensor)
        elif name == "patch_generator.pos_embed":
            result["pos_embed"] = tensor
        elif name == "patch_generator.cls_token.token":
            tokens = tensor.reshape(1, *tensor.shape)
            result |= {"cls_token": tokens[:, :1], "reg_token": tokens[:, 1:]}
        elif name.startswith("blocks."):
            result[name.replace(".grandma", ".gamma")] = tensor
        else:
            unused.append(name)
    return result, unused


# MobileCLIP --------------------------------------------------------------------------------------
MOBILECLIP = [
    (r"^patch_emb\.(\d)\.block\.conv\.", r"patch_embed.backbone.\1.conv."),
    (r"^patch_emb\.(\d)\.block\.norm\.", r"patch_embed.backbone.\1.bn."),
    (r"^pos_embed\.pos_embed\.pos_embed$", "pos_embed"),
    (r"^post_transformer_norm\.", "norm."),
    (r"^transformer\.", "blocks."),
    (r"\.pre_norm_mha\.0\.", ".norm1."),
    (r"\.pre_norm_mha\.1\.qkv_proj\.", ".attn.qkv."),
    (r"\.pre_norm_mha\.1\.out_proj\.", ".attn.proj."),
    (r"\.pre_norm_ffn\.0\.", ".norm2."),
    (r"\.pre_norm_ffn\.1\.", ".mlp.fc1."),
    (r"\.pre_norm_ffn\.4\.", ".mlp.fc2."),
]


def from_mobileclip(tensors):
    """As `from_clip`. Reference: timm 1.0.31, `models/vision_transformer_hybrid.py`."""
    unused = [name for name in tensors if name.endswith(UNUSED)]
    result = {replace_all(name, MOBILECLIP): t for name, t in tensors.items() if name not in unused}
    if "pos_embed" in result:
        result["pos_embed"] = result["pos_embed"].reshape(*result["pos_embed"].shape[1:])
    if "classifier.proj" in result:
        result |= head_without_bias(result.pop("classifier.proj").transpose(1, 0))
    return result, unused


FORMATS = {
    "mobileclip": (has("patch_emb.0.block.conv.weight"), from_mobileclip),
    "dinov2": (matches_dinov2, from_dinov2),
    "clip": (has("conv1.weight", "class_embedding"), from_clip),
    "open_clip": (has("trunk.patch_embed.proj.weight"), from_trunk),
    "beit3": (has("beit3.vision_embed.proj.weight"), from_beit3),
    "aimv2": (has("preprocessor.patchifier.proj.weight"), from_aimv2),
    "radio": (has("patch_generator.embedder.weight"), from_radio),
}
