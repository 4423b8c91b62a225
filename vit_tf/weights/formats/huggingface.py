"""Hugging Face transformers' ViT, DeiT, DINOv2 and DINOv2 with registers.

Reference: https://github.com/huggingface/transformers, `models/vit`, `deit`, `dinov2` and
`dinov2_with_registers`. Both names of the attention's parts are supported: `attention.attention.query`
in files, and `attention.q_proj` in modules since version 5.
"""

import re

from vit_tf.checks import require, shown
from vit_tf.hub.config_values import MODEL_TYPES, config_value
from vit_tf.weights.formats.renaming import rename, translate

PATCH = "embeddings.patch_embeddings.projection.weight"
PREFIX = re.compile(rf"(?:{'|'.join(MODEL_TYPES)})\.")  # of a model with a head
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
ACTIVATIONS = dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), "gelu_tanh")
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
    tensors = rename(tensors, lambda name: translate(without_prefix(name), NAMES) or name)
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


def variant_from_config(config):
    """Returns the hyperparameters that a config.json of these models describes, as a dict.

    Raises:
        ValueError: the model type is unknown.
    """
    kind = config_value(config, "model_type", str)
    expected = f"expected one of {', '.join(MODEL_TYPES)}"
    require(kind in MODEL_TYPES, f"config.json has model_type {shown(kind)}, {expected}")
    dino = kind.startswith("dinov2")
    architectures = str(config_value(config, "architectures", list, []))
    hidden_dim = config_value(config, "hidden_size", int, 768)
    activation = config_value(config, "hidden_act", str, "gelu")
    fields = dict(
        image_size=config_value(config, "image_size", (int, list), 224),
        patch_size=config_value(config, "patch_size", (int, list), 14 if dino else 16),
        hidden_dim=hidden_dim,
        num_layers=config_value(config, "num_hidden_layers", int, 12),
        num_heads=config_value(config, "num_attention_heads", int, 12),
        mlp_dim=config_value(config, "intermediate_size", int, 4 * hidden_dim),
        activation=ACTIVATIONS.get(activation, activation),
        norm_epsilon=config_value(config, "layer_norm_eps", float, 1e-6 if dino else 1e-12),
        qkv_bias=config_value(config, "qkv_bias", bool, True),
        in_channels=config_value(config, "num_channels", int, 3),
    )
    if kind == "deit":  # the distillation token always exists, its head only with a teacher
        teacher = "WithTeacher" in architectures
        fields |= {"distillation_token": True} if teacher else {"num_registers": 1}
    if dino:
        fields["mlp_dim"] = int(hidden_dim * config_value(config, "mlp_ratio", (int, float), 4))
        fields["layer_scale_init"] = config_value(config, "layerscale_value", (int, float), 1.0)
        fields["pooling"] = "token_avg" if "ForImageClassification" in architectures else "token"
        if config_value(config, "use_swiglu_ffn", bool, False):
            fields |= dict(mlp="swiglu", activation="silu")
            fields["mlp_dim"] = (int(fields["mlp_dim"] * 2 / 3) + 7) // 8 * 8
    if kind == "dinov2_with_registers":
        registers = config_value(config, "num_register_tokens", int, 4)
        fields |= dict(num_registers=registers, prefix_positions=False)
    return fields
