"""Google's npz files: the ViT paper's, AugReg, SAM, FlexiViT and SigLIP, in Flax's names.

Reference: https://github.com/google-research/vision_transformer (`vit_jax/checkpoint.py`) and
https://github.com/google-research/big_vision (`models/vit.py`). Files from before Flax's linen count
all modules of a block together (LayerNorm_0, MultiHeadDotProductAttention_1, LayerNorm_2, MlpBlock_3),
later ones each class alone; scanned ones stack the blocks' weights along a first axis.
"""

import re

from vit_tf.checks import listing
from vit_tf.hub.lazy_tensor import LazyTensor

MOST_BLOCKS = 1000
PREFIXES = ("opt/target/", "params/img/", "params/", "")
PATCH = "embedding/kernel"
SIMPLE = {
    "embedding/bias": "patch_embed.proj.bias",
    "cls": "cls_token",
    "Transformer/posembed_input/pos_embedding": "pos_embed",
    "pos_embedding": "pos_embed",
    "Transformer/encoder_norm/scale": "norm.weight",
    "Transformer/encoder_norm/bias": "norm.bias",
    "head/bias": "head.bias",
    "MAPHead_0/probe": "attn_pool.latent",
    "MAPHead_0/LayerNorm_0/scale": "attn_pool.norm.weight",
    "MAPHead_0/LayerNorm_0/bias": "attn_pool.norm.bias",
    "pre_logits/bias": "pre_logits.fc.bias",
}
MATRICES = {"head/kernel": "head.weight", "pre_logits/kernel": "pre_logits.fc.weight"}


def matches(names):
    return any(prefix + PATCH in names for prefix in PREFIXES)


def from_google(tensors):
    """Returns the tensors under timm's names, and the unused names, such as those of an optimizer."""
    prefix = next(p for p in PREFIXES if p + PATCH in tensors)
    rest = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    unused = [name for name in tensors if not name.startswith(prefix)]
    result = {}
    blocks = {}  # {index, or None for stacked blocks: {name within the block: tensor}}
    for name, tensor in rest.items():
        block = re.fullmatch(r"Transformer/encoderblock(?:_(\d+))?/(.+)", name)
        if block:
            blocks.setdefault(block[1], {})[block[2]] = tensor
        elif name == PATCH:
            result["patch_embed.proj.weight"] = tensor.transpose(3, 2, 0, 1)
        elif name in MATRICES:
            result[MATRICES[name]] = tensor.transpose(1, 0)
        elif name in SIMPLE:
            result[SIMPLE[name]] = tensor
        elif not name.startswith("MAPHead_0/"):
            result[name] = tensor
    for index, block in blocks.items():
        if index is None:
            lengths = {t.shape[0] for t in block.values()}
            if len(lengths) != 1 or max(lengths) > MOST_BLOCKS:
                raise ValueError(f"the stacked blocks are {listing(sorted(lengths))} in number")
            for i in range(lengths.pop()):
                result |= convert_block({name: t[i] for name, t in block.items()}, f"blocks.{i}.")
        else:
            result |= convert_block(block, f"blocks.{index}.")
    pool = {n.removeprefix("MAPHead_0/"): t for n, t in rest.items() if n.startswith("MAPHead_0/")}
    result |= convert_pool({n: t for n, t in pool.items() if f"MAPHead_0/{n}" not in SIMPLE})
    return result, unused


def convert_block(block, prefix):
    """Returns one block's tensors under timm's names. Unknown names are kept after the prefix."""
    result, attention, rest = convert_parts(block, prefix)
    for name, tensor in rest.items():
        norm = re.fullmatch(r"LayerNorm_(\d)/(scale|bias)", name)
        if norm:
            number = 1 if norm[1] == "0" else 2
            name = f"norm{number}.{'weight' if norm[2] == 'scale' else 'bias'}"
        result[prefix + name] = tensor
    names = ("query", "key", "value")
    return result | convert_attention(attention, names, f"{prefix}attn.qkv", f"{prefix}attn.proj")


def convert_parts(tensors, prefix):
    """Returns (MLP under timm's names, {(part, ending): tensor} of the attention, all other tensors)."""
    mlps, attention, rest = {}, {}, {}
    for name, tensor in tensors.items():
        mlp = re.fullmatch(r"MlpBlock_\d/Dense_([01])/(kernel|bias)", name)
        part = re.fullmatch(r"MultiHeadDotProductAttention_\d/(query|key|value|out)/(kernel|bias)", name)
        if mlp:
            mlps[f"{prefix}mlp.fc{int(mlp[1]) + 1}.{torch_ending(mlp[2])}"] = torch_matrix(tensor)
        elif part:
            attention[part.groups()] = tensor
        else:
            rest[name] = tensor
    return mlps, attention, rest


def convert_attention(parts, joined, joined_name, out_name):
    """Joins the projections `(d, heads, k)` called `joined`, and turns `out`, `(heads, k, d)`."""
    result, parts = {}, dict(parts)
    for ending in ("kernel", "bias"):
        if all((name, ending) in parts for name in joined):
            flat = [flatten_heads(parts.pop((name, ending)), ending) for name in joined]
            result[f"{joined_name}.{torch_ending(ending)}"] = LazyTensor.concatenate(flat, 0)
        if ("out", ending) in parts:
            tensor = parts.pop(("out", ending))
            if ending == "kernel":
                tensor = torch_matrix(tensor.reshape(-1, tensor.shape[-1]))
            result[f"{out_name}.{torch_ending(ending)}"] = tensor
    # Incomplete parts keep their names, and are reported as unexpected.
    return result | {f"{joined_name}/{name}/{ending}": tensor for (name, ending), tensor in parts.items()}


def flatten_heads(tensor, ending):
    """Returns `(heads * k, d)` of a kernel `(d, heads, k)`, `(heads * k,)` of a bias."""
    if ending == "bias":
        return tensor.reshape(-1)
    return tensor.reshape(tensor.shape[0], -1).transpose(1, 0)


def convert_pool(parts):
    """Returns the tensors of the attention pooling ("MAPHead_0") under timm's names."""
    result, attention, rest = convert_parts(parts, "attn_pool.")
    result |= {f"MAPHead_0/{name}": tensor for name, tensor in rest.items()}
    query = {key: attention.pop(key) for key in list(attention) if key[0] == "query"}
    result |= convert_attention(attention, ("key", "value"), "attn_pool.kv", "attn_pool.proj")
    return result | convert_attention(query, ("query",), "attn_pool.q", "")


def torch_ending(ending):
    return "weight" if ending == "kernel" else "bias"


def torch_matrix(tensor):
    return tensor.transpose(1, 0) if len(tensor.shape) == 2 else tensor
