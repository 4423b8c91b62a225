"""The names of timm's `eva.py` and `beit.py` that differ from those of `vision_transformer.py`.

`from_eva` reads them, `to_eva` writes them. Inside the package, weights have these names: queries, keys and
values are one tensor `attn.qkv`, the biases of queries and values without one of keys are `attn.q_bias` and
`attn.v_bias`, a LayerScale is `ls1.gamma`, and each block has its own rotary frequencies `attn.rope.freqs`.

Reference: timm 1.0.31, `models/eva.py`.
"""

import re

import numpy as np

from vit_tf.structure import ViTStructure
from vit_tf.weights.formats.renaming import rename, translate

FREQUENCIES = "rope.freqs"  # (2, blocks, heads, k / 2)
PARTS = ("q_proj", "k_proj", "v_proj")


def from_eva(tensors):
    """Returns (tensors, unused): the tensors under the names above, and the unused names.

    Rotary tables other than learned frequencies are not used: they are computed.
    """
    tensors = dict(tensors)
    unused = [name for name in tensors if re.match(r"rope\.", name) and name != FREQUENCIES]
    unused += [name for name in tensors if name.endswith(".attn.k_bias")]  # zeros, in some files
    for name in unused:
        del tensors[name]
    frequencies = tensors.get(FREQUENCIES)
    if frequencies is not None and len(frequencies.shape) == 4:
        del tensors[FREQUENCIES]
        tensors |= {f"blocks.{i}.attn.{FREQUENCIES}": frequencies[:, i] for i in range(frequencies.shape[1])}

    def new_name(name):
        key_bias = re.sub(r"\.[qkv]_proj\.", ".k_proj.", name)
        if name.endswith("_proj.bias") and key_bias not in tensors:
            return re.sub(r"\.attn\.([qv])_proj\.bias$", r".attn.\1_bias", name)
        parts = {rf"(.+\.attn\.){part}\.(weight|bias)": rf"\1qkv.\2:{i}/3" for i, part in enumerate(PARTS)}
        return translate(name, parts) or name

    return rename(tensors, new_name), unused


def to_eva(arrays, model):
    """Returns arrays under the names above as timm names them for a model of `build_vit`.

    `eva.py` and `beit.py` have the models with rotary positions or without a bias of the keys.
    """
    for name, block in ViTStructure(model).blocks.items():
        prefix = f"blocks.{name.removeprefix('block_')}."
        if block.config.rotary is None and block.config.qkv_bias != "qv":
            continue
        for branch in "12":
            if f"{prefix}ls{branch}.gamma" in arrays:
                arrays[f"{prefix}gamma_{branch}"] = arrays.pop(f"{prefix}ls{branch}.gamma")
        if block.config.separate_qkv:
            arrays = separated(arrays, f"{prefix}attn.", block.attention_layers()[0].core_attention)
    names = [name for name in arrays if name.endswith(f".attn.{FREQUENCIES}")]
    if names:
        names.sort(key=lambda name: int(name.split(".")[1]))
        arrays[FREQUENCIES] = np.stack([arrays.pop(name) for name in names], axis=1)
    return arrays


def separated(arrays, prefix, core):
    """Returns arrays with those of queries, keys and values one by one, of the attention at a `prefix`."""
    ends = np.cumsum([core.config.num_heads, core.num_kv_heads]) * core.head_width
    for kind in ("weight", "bias"):
        if f"{prefix}qkv.{kind}" in arrays:
            split = np.split(arrays.pop(f"{prefix}qkv.{kind}"), ends)
            arrays |= {f"{prefix}{part}.{kind}": array for part, array in zip(PARTS, split)}
    for part in "qv":
        if f"{prefix}{part}_bias" in arrays:
            arrays[f"{prefix}{part}_proj.bias"] = arrays.pop(f"{prefix}{part}_bias")
    return arrays
