"""DINOv3 as Hugging Face transformers and as its makers save it.

Reference: https://github.com/huggingface/transformers, `models/dinov3_vit`, whose modules have `model.layer`
since version 5 and whose files have `layer`; https://github.com/facebookresearch/dinov3. The makers' rotary
periods are rounded to bfloat16 in their files, and are computed in float32 here as in timm and transformers.
"""

from vit_tf.weights.formats import eva_names
from vit_tf.weights.formats.renaming import rename, replace_all, translate

ENDING, BLOCK = r"\.(weight|bias)", r"(?:model\.)?layer\.(\d+)\."
HUGGING_FACE = "embeddings.patch_embeddings.weight"
NAMES = {
    r"embeddings\.cls_token": "cls_token",
    r"embeddings\.register_tokens": "reg_token",
    rf"embeddings\.patch_embeddings{ENDING}": r"patch_embed.proj.\1",
    rf"{BLOCK}norm([12]){ENDING}": r"blocks.\1.norm\2.\3",
    rf"{BLOCK}attention\.([qkv])_proj{ENDING}": r"blocks.\1.attn.\2_proj.\3",
    rf"{BLOCK}attention\.o_proj{ENDING}": r"blocks.\1.attn.proj.\2",
    rf"{BLOCK}layer_scale([12])\.lambda1": r"blocks.\1.ls\2.gamma",
    rf"{BLOCK}mlp\.gate_proj{ENDING}": r"blocks.\1.mlp.fc1_g.\2",
    rf"{BLOCK}mlp\.down_proj{ENDING}": r"blocks.\1.mlp.fc2.\2",
}
GATED = {rf"{BLOCK}mlp\.up_proj{ENDING}": r"blocks.\1.mlp.fc1_x.\2"}
PLAIN = {rf"{BLOCK}mlp\.up_proj{ENDING}": r"blocks.\1.mlp.fc1.\2"}
MAKERS = [
    (r"^storage_tokens$", "reg_token"),
    (r"\.mlp\.w1\.", ".mlp.fc1_g."),
    (r"\.mlp\.w2\.", ".mlp.fc1_x."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
]
PERIODS = "rope_embed.periods"
MASK_TOKENS = ("embeddings.mask_token", "mask_token")


def matches_huggingface(names):
    return HUGGING_FACE in names


def from_huggingface(tensors):
    """Returns (tensors, unused): the tensors under timm's names, and the unused names."""
    unused = [name for name, t in tensors.items() if name in MASK_TOKENS or 0 in t.shape]  # no registers
    names = NAMES | (GATED if any(".mlp.gate_proj." in name for name in tensors) else PLAIN)
    used = {name: tensor for name, tensor in tensors.items() if name not in unused}
    result, more = eva_names.from_eva(rename(used, lambda name: translate(name, names) or name))
    return result, [*unused, *more]


def matches_makers(names):
    is_known = "storage_tokens" in names or PERIODS in names  # without register tokens
    return is_known and "patch_embed.proj.weight" in names


def from_makers(tensors):
    """As `from_huggingface`. The bias of the keys, which a mask makes zero, is left out."""
    result, unused = {}, []
    for name, tensor in tensors.items():
        if name in MASK_TOKENS or name.endswith(".bias_mask"):
            unused.append(name)
        elif name.startswith(("rope_embed.", "local_cls_norm.")):
            unused.append(name)
        elif name.endswith(".attn.qkv.bias") and f"{name}_mask" in tensors:
            start, width = name.removesuffix("qkv.bias"), tensor.shape[0] // 3
            result |= {f"{start}q_bias": tensor[:width], f"{start}v_bias": tensor[2 * width :]}
        else:
            result[replace_all(name, MAKERS)] = tensor
    return result, unused
