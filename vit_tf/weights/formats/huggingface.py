"""Hugging Face transformers' ViT, DeiT, DINOv2, DINOv2 with registers, ViTMAE, ViTMSN and I-JEPA.

Reference: https://github.com/huggingface/transformers, `models/vit`, `deit`, `dinov2`,
`dinov2_with_registers`, `vit_mae`, `vit_msn` and `ijepa`. Both names of the attention's parts are supported:
`attention.attention.query` in files, and `attention.q_proj` in modules since version 5.
"""

import re

from vit_tf.hub.unwrap import MODEL_PREFIXES
from vit_tf.weights.formats.eva_names import from_eva
from vit_tf.weights.formats.renaming import rename, translate

PATCH = "embeddings.patch_embeddings.projection.weight"
PREFIX = re.compile(rf"(?:{'|'.join(MODEL_PREFIXES)})\.")  # of a model with a head
BLOCK, ENDING = r"(?:encoder\.layer|layers)\.(\d+)\.", r"\.(weight|bias)"
ATTENTION = rf"{BLOCK}attention\.(?:attention\.)?"
NAMES = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.distillation_token": "dist_token",
    r"embeddings\.register_tokens": "reg_token",
    r"embeddings\.position_embeddings": "pos_embed",
    rf"embeddings\.patch_embeddings\.projection{ENDING}": r"patch_embed.proj.\1",
    rf"layernorm{ENDING}": r"norm.\1",
    rf"(?:cls_)?classifier{ENDING}": r"head.\1",
    rf"distillation_classifier{ENDING}": r"head_dist.\1",
    rf"{BLOCK}(?:layernorm_before|norm1){ENDING}": r"blocks.\1.norm1.\2",
    rf"{ATTENTION}(?:query|q_proj){ENDING}": r"blocks.\1.attn.qkv.\2:0/3",
    rf"{ATTENTION}(?:key|k_proj){ENDING}": r"blocks.\1.attn.qkv.\2:1/3",
    rf"{ATTENTION}(?:value|v_proj){ENDING}": r"blocks.\1.attn.qkv.\2:2/3",
    rf"{BLOCK}attention\.(?:output\.dense|o_proj){ENDING}": r"blocks.\1.attn.proj.\2",
    rf"{BLOCK}layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
    rf"{BLOCK}(?:layernorm_after|norm2){ENDING}": r"blocks.\1.norm2.\2",
    rf"{BLOCK}(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in){ENDING}": r"blocks.\1.mlp.fc1.\2",
    rf"{BLOCK}mlp\.gate_proj{ENDING}": r"blocks.\1.mlp.fc1.\2:0/2",
    rf"{BLOCK}mlp\.up_proj{ENDING}": r"blocks.\1.mlp.fc1.\2:1/2",
    rf"{BLOCK}(?:output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj){ENDING}": r"blocks.\1.mlp.fc2.\2",
}
# BEiT, whose keys have no bias.
BEIT = {
    rf"{ATTENTION}(?:query|q_proj){ENDING}": r"blocks.\1.attn.q_proj.\2",
    rf"{ATTENTION}(?:key|k_proj){ENDING}": r"blocks.\1.attn.k_proj.\2",
    rf"{ATTENTION}(?:value|v_proj){ENDING}": r"blocks.\1.attn.v_proj.\2",
    rf"{BLOCK}lambda_([12])": r"blocks.\1.ls\2.gamma",
    rf"{BLOCK}(?:attention\.attention\.)?relative_position_bias\.(relative_position_bias_table)": (
        r"blocks.\1.attn.\2"
    ),
    rf"pooler\.layernorm{ENDING}": r"fc_norm.\1",
}
UNUSED = ("embeddings.mask_token", "pooler.dense.weight", "pooler.dense.bias")


def matches(names):
    return any(without_prefix(name) == PATCH for name in names)


def without_prefix(name):
    """Returns a name without the model's prefix, such as "vit."."""
    prefix = PREFIX.match(name)
    return name[prefix.end() :] if prefix else name


def from_huggingface(tensors):
    """Returns (tensors, unused): the tensors under timm's names, and the unused names."""
    unused = [name for name in tensors if without_prefix(name) in UNUSED]
    tensors = {name: tensor for name, tensor in tensors.items() if name not in unused}
    names = NAMES
    if any(name.endswith(".lambda_1") for name in tensors):
        names = {**NAMES, **BEIT}
    tensors = rename(tensors, lambda name: translate(without_prefix(name), names) or name)
    if names is not NAMES:
        tensors, _ = from_eva(tensors)
    return fold_class_position(tensors), unused


def fold_class_position(tensors):
    """Returns DINOv2's tensors; with registers, the position of the class token is added to the token.

    DINOv2 adds positions before it inserts the registers, so the registers have none. The position table is
    then one of patches only.
    """
    if not {"reg_token", "cls_token", "pos_embed"} <= tensors.keys():
        return tensors
    positions = tensors["pos_embed"]
    token = tensors["cls_token"] + positions[:, :1]
    return {**tensors, "cls_token": token, "pos_embed": positions[:, 1:]}
