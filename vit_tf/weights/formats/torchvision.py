"""torchvision's `vit_b_16` to `vit_h_14`, the SWAG weights included.

Reference: https://github.com/pytorch/vision, `models/vision_transformer.py`. The MLP's layers are `mlp.0` and
`mlp.3`; in the first files, `mlp.linear_1` and `mlp.linear_2`.
"""

from vit_tf.weights.formats.renaming import rename, translate

PATCH, ENDING = "conv_proj.weight", r"\.(weight|bias)"
BLOCK = r"encoder\.layers\.encoder_layer_(\d+)\."
NAMES = {
    "class_token": "cls_token",
    r"encoder\.pos_embedding": "pos_embed",
    rf"conv_proj{ENDING}": r"patch_embed.proj.\1",
    rf"{BLOCK}ln_([12]){ENDING}": r"blocks.\1.norm\2.\3",
    rf"{BLOCK}self_attention\.in_proj_(weight|bias)": r"blocks.\1.attn.qkv.\2",
    rf"{BLOCK}self_attention\.out_proj{ENDING}": r"blocks.\1.attn.proj.\2",
    rf"{BLOCK}mlp\.(?:0|linear_1){ENDING}": r"blocks.\1.mlp.fc1.\2",
    rf"{BLOCK}mlp\.(?:3|linear_2){ENDING}": r"blocks.\1.mlp.fc2.\2",
    rf"encoder\.ln{ENDING}": r"norm.\1",
    rf"heads\.head{ENDING}": r"head.\1",
    rf"heads\.pre_logits{ENDING}": r"pre_logits.fc.\1",
}


def matches(names):
    return PATCH in names and "class_token" in names


def from_torchvision(tensors):
    """Returns (tensors, unused): the tensors under timm's names, and no unused names."""
    return rename(tensors, lambda name: translate(name, NAMES) or name), ()
