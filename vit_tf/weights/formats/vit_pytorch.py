"""lucidrains' vit-pytorch, its `ViT` (https://github.com/lucidrains/vit-pytorch, `vit.py`)."""

from vit_tf.weights.formats.renaming import translate

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
FLAT = "patch_embed.flat.weight"  # (d, rows * columns * channels), as in `Patches`


def matches(names):
    return PATCH in names


def from_vit_pytorch(tensors):
    """Returns (tensors, unused): the tensors under timm's names, and no unused names.

    The patch kernel stays flat, since only the model determines the patch size.
    """
    result = {translate(name, NAMES) or name: tensor for name, tensor in tensors.items()}
    result[FLAT] = result.pop(PATCH)
    for source, name_in_timm in (("cls_token", "cls_token"), ("pos_embedding", "pos_embed")):
        tensor = result.pop(source, None)
        # (n, d); until 2025 (1, n, d). Models that pool by the mean have a class token with no rows.
        if tensor is not None and 0 not in tensor.shape:
            result[name_in_timm] = tensor.reshape(1, *tensor.shape[-2:])
    return result, ()
