"""lucidrains' vit-pytorch, its `ViT` (https://github.com/lucidrains/vit-pytorch, `vit.py`)."""

import re

from vit_tf.weights.timm import square_patch

NAMES = {
    r"to_patch_embedding\.1\.(weight|bias)": r"patch_embed.norm_in.\1",
    r"to_patch_embedding\.2\.bias": "patch_embed.proj.bias",
    r"to_patch_embedding\.3\.(weight|bias)": r"patch_embed.norm.\1",
    r"transformer\.norm\.(weight|bias)": r"norm.\1",
    r"transformer\.layers\.(\d+)\.0\.norm\.(weight|bias)": r"blocks.\1.norm1.\2",
    r"transformer\.layers\.(\d+)\.0\.to_qkv\.(weight|bias)": r"blocks.\1.attn.qkv.\2",
    r"transformer\.layers\.(\d+)\.0\.to_out\.0\.(weight|bias)": r"blocks.\1.attn.proj.\2",
    r"transformer\.layers\.(\d+)\.1\.net\.0\.(weight|bias)": r"blocks.\1.norm2.\2",
    r"transformer\.layers\.(\d+)\.1\.net\.1\.(weight|bias)": r"blocks.\1.mlp.fc1.\2",
    r"transformer\.layers\.(\d+)\.1\.net\.4\.(weight|bias)": r"blocks.\1.mlp.fc2.\2",
    r"mlp_head\.(weight|bias)": r"head.\1",
}
PATCH = "to_patch_embedding.2.weight"


def recognises(names):
    return PATCH in names


def from_vit_pytorch(tensors, patch_size):
    """Returns the tensors under timm's names, and those that have no use: none.

    Patches are flattened row by row, the channels of a pixel together, as `Patches` does.
    """
    result = {}
    for name, tensor in tensors.items():
        for pattern, ours in NAMES.items():
            match = re.fullmatch(pattern, name)
            if match:
                result[match.expand(ours)] = tensor
                break
        else:
            result[name] = tensor
    patch = result.pop(PATCH)
    if len(patch.shape) == 2:
        rows, columns = square_patch(patch.shape[1], patch_size)
        if patch.shape[1] % (rows * columns) == 0:
            patch = patch.reshape(patch.shape[0], rows, columns, -1).transpose(0, 3, 1, 2)
    result["patch_embed.proj.weight"] = patch
    for source, ours in (("cls_token", "cls_token"), ("pos_embedding", "pos_embed")):
        tensor = result.pop(source, None)
        # (n, d); up to 2025 (1, n, d). A mean over the patches goes with a class token of no rows.
        if tensor is not None and 0 not in tensor.shape:
            result[ours] = tensor.reshape(1, *tensor.shape[-2:])
    return result, ()
