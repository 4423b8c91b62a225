"""Hugging Face transformers' image encoders of CLIP, SigLIP, SigLIP 2 and AIMv2, alone or in a whole model.

Reference: https://github.com/huggingface/transformers, `models/clip`, `siglip`, `siglip2` and `aimv2`. Names
may begin with `vision_model.`. Beside the encoder stand a projection or a classifier, which become the head,
and the text tower, which is not used.
"""

from vit_tf.hub.unwrap import TOWERS
from vit_tf.weights.formats.renaming import rename, translate
from vit_tf.weights.formats.vit_pytorch import FLAT
from vit_tf.weights.formats.zeros import head_without_bias

START, ENDING = "vision_model.", r"\.(weight|bias)"
BLOCK, ATTENTION = r"encoder\.layers\.(\d+)\.", r"encoder\.layers\.(\d+)\.(?:self_attn|attention)"
NAMES = {
    r"embeddings\.class_embedding": "cls_token",
    r"embeddings\.position_embedding\.weight": "pos_embed",
    rf"embeddings\.(?:patch_embedding|patch_embed){ENDING}": r"patch_embed.proj.\1",
    r"embeddings\.rms_norm\.weight": "patch_embed.norm.weight",
    rf"pre_layrnorm{ENDING}": r"norm_pre.\1",  # sic
    rf"{ATTENTION}\.q_proj{ENDING}": r"blocks.\1.attn.qkv.\2:0/3",
    rf"{ATTENTION}\.k_proj{ENDING}": r"blocks.\1.attn.qkv.\2:1/3",
    rf"{ATTENTION}\.v_proj{ENDING}": r"blocks.\1.attn.qkv.\2:2/3",
    rf"{ATTENTION}\.out_proj{ENDING}": r"blocks.\1.attn.proj.\2",
    rf"{BLOCK}(?:layer_norm|rms_norm)([12]){ENDING}": r"blocks.\1.norm\2.\3",
    rf"{BLOCK}mlp\.(fc[12]){ENDING}": r"blocks.\1.mlp.\2.\3",
    rf"{BLOCK}ffn\.gate_proj{ENDING}": r"blocks.\1.mlp.fc1_g.\2",
    rf"{BLOCK}ffn\.up_proj{ENDING}": r"blocks.\1.mlp.fc1_x.\2",
    rf"{BLOCK}ffn\.down_proj{ENDING}": r"blocks.\1.mlp.fc2.\2",
    rf"(?:post_layernorm|rms_norm){ENDING}": r"norm.\1",
    # SigLIP's pooling
    r"head\.probe": "attn_pool.latent",
    r"head\.attention\.in_proj_(weight|bias)": r"attn_pool.qkv.\1",
    rf"head\.attention\.out_proj{ENDING}": r"attn_pool.proj.\1",
    rf"head\.layernorm{ENDING}": r"attn_pool.norm.\1",
    rf"head\.mlp\.(fc[12]){ENDING}": r"attn_pool.mlp.\1.\2",
}
AIMV2_POOLING = "head.cls_token"  # no model here pools like AIMv2's head
CLIP_TOKEN = "embeddings.class_embedding"
CLASSIFIER, PROJECTION = ("classifier.weight", "classifier.bias"), "visual_projection.weight"


def matches(names):
    return patch_kernel(names) is not None


def matches_siglip2(tensors):
    """Whether tensors are those of a SigLIP 2 of any image size, whose patch kernel is flat."""
    name = patch_kernel(tensors)
    return name is not None and len(tensors[name].shape) == 2


def patch_kernel(names):
    """Returns the name of the patch kernel, None if there is none."""
    known = (start + tower for start in (START, "") for tower in TOWERS)
    return next((name for name in known if name in names), None)


def from_towers(tensors):
    """Returns (tensors, unused): the tensors under timm's names, and the unused names."""
    start = START if any(name.startswith(START) for name in tensors) else ""
    passed_over = ()
    if start + AIMV2_POOLING in tensors:
        passed_over = ("head.", PROJECTION)
    elif start + CLIP_TOKEN in tensors and CLASSIFIER[0] in tensors:
        passed_over = ("post_layernorm.",)  # CLIP's classifier reads the tokens before the last norm
    beside, unused, tower = {}, [], {}
    for name, tensor in tensors.items():
        inside = name.removeprefix(start)
        if inside.startswith(passed_over) or inside.endswith("position_ids"):
            unused.append(name)
        elif name in CLASSIFIER:
            beside[f"head.{name.rpartition('.')[2]}"] = tensor
        elif name == PROJECTION:
            beside |= head_without_bias(tensor)
        elif name.startswith(start):
            tower[inside] = tensor
        else:
            unused.append(name)
    result = rename(tower, lambda name: translate(name, NAMES) or name)
    return with_axes(split_pooling(result)) | beside, unused


def split_pooling(tensors):
    """Returns the tensors with the pooling's query apart from its keys and values."""
    result = dict(tensors)
    for ending in ("weight", "bias"):
        joined = result.pop(f"attn_pool.qkv.{ending}", None)
        if joined is not None:
            width = joined.shape[0] // 3
            result[f"attn_pool.q.{ending}"] = joined[:width]
            result[f"attn_pool.kv.{ending}"] = joined[width:]
    return result


def with_axes(tensors):
    """Returns the tensors with the axes of timm's tokens and positions, `(1, n, d)`."""
    result = dict(tensors)
    for name in ("cls_token", "pos_embed"):
        if name in result:
            result[name] = result[name].reshape(1, -1, result[name].shape[-1])
    kernel = result.get("patch_embed.proj.weight")
    if kernel is not None and len(kernel.shape) == 2:  # SigLIP 2 of any size: rows, columns, channels
        result[FLAT] = result.pop("patch_embed.proj.weight")
    return result
