"""Google's npz files: the ViT paper's and its hybrids, AugReg, SAM, FlexiViT and SigLIP, in Flax's names.

Reference: https://github.com/google-research/vision_transformer (`vit_jax/checkpoint.py`) and
https://github.com/google-research/big_vision (`models/vit.py`). Files from before Flax's linen number
all modules of a block in one sequence (LayerNorm_0, MultiHeadDotProductAttention_1, LayerNorm_2, MlpBlock_3).
Later files number each class separately. Scanned models stack the weights of all blocks along a first axis.
"""

import re
from functools import partial

from vit_tf.checks import listing
from vit_tf.weights.formats.backbones import BACKBONE
from vit_tf.weights.formats.renaming import rename, replace_all

MOST_BLOCKS = 1000
PREFIXES = ("opt/target/", "params/img/", "params/", "")
PATCH = "embedding/kernel"
STACKED = "Transformer/encoderblock/"


def stage_and_block(match):
    """Returns timm's name of a block of a residual network, which counts from 0."""
    return f"{BACKBONE}stages.{int(match[1]) - 1}.blocks.{int(match[2]) - 1}."


NAMES = [
    (r"/(kernel|scale)$", "/weight"),
    (r"^conv_root/", f"{BACKBONE}stem.conv."),
    (r"^gn_root/", f"{BACKBONE}stem.norm."),
    (r"^block(\d+)/unit(\d+)/", stage_and_block),
    (r"\.conv_proj/", ".downsample.conv."),
    (r"\.gn_proj/", ".downsample.norm."),
    (r"(\.blocks\.\d+)\.conv(\d)/", r"\1.conv\2."),
    (r"(\.blocks\.\d+)\.gn(\d)/", r"\1.norm\2."),
    (r"^embedding/", "patch_embed.proj."),
    (r"^cls$", "cls_token"),
    (r"^(Transformer/posembed_input/)?pos_embedding$", "pos_embed"),
    (r"^Transformer/encoder_norm/", "norm."),
    (r"^pre_logits/", "pre_logits.fc."),
    (r"^head/", "head."),
    (r"^MAPHead_0/probe$", "attn_pool.latent"),
    (r"^MAPHead_0/LayerNorm_0/", "attn_pool.norm."),
    (r"^MAPHead_0/MultiHeadDotProductAttention_\d/query/", "attn_pool.q."),
    (r"^MAPHead_0/MultiHeadDotProductAttention_\d/key/(\w+)$", r"attn_pool.kv.\1:0/2"),
    (r"^MAPHead_0/MultiHeadDotProductAttention_\d/value/(\w+)$", r"attn_pool.kv.\1:1/2"),
    (r"^MAPHead_0/MultiHeadDotProductAttention_\d/out/", "attn_pool.proj."),
    (r"^MAPHead_0/", "attn_pool."),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"\.LayerNorm_0/", ".norm1."),
    (r"\.LayerNorm_\d/", ".norm2."),
    (r"\.MultiHeadDotProductAttention_\d/query/(\w+)$", r".attn.qkv.\1:0/3"),
    (r"\.MultiHeadDotProductAttention_\d/key/(\w+)$", r".attn.qkv.\1:1/3"),
    (r"\.MultiHeadDotProductAttention_\d/value/(\w+)$", r".attn.qkv.\1:2/3"),
    (r"\.MultiHeadDotProductAttention_\d/out/", ".attn.proj."),
    (r"\.MlpBlock_\d/Dense_0/", ".mlp.fc1."),
    (r"\.MlpBlock_\d/Dense_1/", ".mlp.fc2."),
]


def matches(names):
    return any(prefix + PATCH in names for prefix in PREFIXES)


def from_google(tensors):
    """Returns the tensors under timm's names, and the unused names, such as those of an optimizer."""
    prefix = next(p for p in PREFIXES if p + PATCH in tensors)
    unused = [name for name in tensors if not name.startswith(prefix)]
    tensors = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    tensors = {name: torch_layout(name, tensor) for name, tensor in unstack(tensors).items()}
    has_stages = any(name.startswith("block1/") for name in tensors)
    rules = NAMES if has_stages else [*NAMES, (re.escape(f"{BACKBONE}stem."), BACKBONE)]
    return rename(tensors, partial(replace_all, rules=rules)), unused


def unstack(tensors):
    """Returns the tensors block by block: scanned blocks, which are stacked along a first axis, are split."""
    result = {name: tensor for name, tensor in tensors.items() if not name.startswith(STACKED)}
    stacked = {name.removeprefix(STACKED): t for name, t in tensors.items() if name.startswith(STACKED)}
    lengths = {tensor.shape[0] for tensor in stacked.values()}
    if len(lengths) > 1 or max(lengths, default=0) > MOST_BLOCKS:
        raise ValueError(f"the stacked blocks are {listing(sorted(lengths))} in number")
    for i in range(max(lengths, default=0)):
        result |= {f"Transformer/encoderblock_{i}/{name}": tensor[i] for name, tensor in stacked.items()}
    return result


def torch_layout(name, tensor):
    """Returns a tensor of Flax in PyTorch's layout, without an axis of heads."""
    module, _, ending = name.rpartition("/")
    if name == PATCH or (ending == "kernel" and len(tensor.shape) == 4):
        return tensor.transpose(3, 2, 0, 1)
    if tensor.shape[:-1] == (1, 1, 1) and ending in ("scale", "bias"):  # of a group norm
        return tensor.reshape(-1)
    if module.endswith(("/query", "/key", "/value")):  # (d, heads, k), and a bias (heads, k)
        tensor = tensor.reshape(-1) if ending == "bias" else tensor.reshape(tensor.shape[0], -1)
    elif name.endswith("/out/kernel"):  # (heads, k, d)
        tensor = tensor.reshape(-1, tensor.shape[-1])
    return tensor.transpose(1, 0) if ending == "kernel" and len(tensor.shape) == 2 else tensor
