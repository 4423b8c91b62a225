"""Hugging Face transformers' ViT, DeiT, DINOv2 and DINOv2 with registers.

Reference: https://github.com/huggingface/transformers, `models/vit`, `deit`, `dinov2` and
`dinov2_with_registers`. Both names of the attention's parts are supported: `attention.attention.query`
in files, and `attention.q_proj` in modules since version 5.
"""

import re

from vit_tf.checks import require, shown
from vit_tf.hub.config_values import MODEL_TYPES, config_value
from vit_tf.hub.lazy_tensor import LazyTensor

PATCH = "embeddings.patch_embeddings.projection.weight"
PREFIXES = tuple(f"{name}." for name in MODEL_TYPES)
SIMPLE = {
    "embeddings.cls_token": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
HEADS = {"classifier": "head", "cls_classifier": "head", "distillation_classifier": "head_dist"}
BLOCK = {
    r"attention\.output\.dense|attention\.o_proj": "attn.proj",
    r"layernorm_before|norm1": "norm1",
    r"layernorm_after|norm2": "norm2",
    r"intermediate\.dense|mlp\.fc1|mlp\.weights_in": "mlp.fc1",
    r"output\.dense|mlp\.fc2|mlp\.weights_out|mlp\.down_proj": "mlp.fc2",
}
QKV = {"query": 0, "q_proj": 0, "key": 1, "k_proj": 1, "value": 2, "v_proj": 2}
GATE = {"gate_proj": 0, "up_proj": 1}
ACTIVATIONS = dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh"), "gelu_tanh")
UNUSED = ("embeddings.mask_token", "pooler.dense.weight", "pooler.dense.bias")


def matches(names):
    return any(prefix + PATCH in names for prefix in (*PREFIXES, ""))


def from_huggingface(tensors):
    """Returns (tensors, unused): the tensors under timm's names, and the unused names."""
    result, unused, joined = {}, [], {}
    for name, tensor in tensors.items():
        short = without_prefix(name)
        module, _, ending = short.rpartition(".")
        block = re.fullmatch(r"(?:encoder\.layer|layers)\.(\d+)\.(.+)", short)
        if short in UNUSED:
            unused.append(name)
        elif short in SIMPLE:
            result[SIMPLE[short]] = tensor
        elif module in HEADS:
            result[f"{HEADS[module]}.{ending}"] = tensor
        elif block:
            add_block_tensor(f"blocks.{block[1]}.", block[2], tensor, result, joined)
        else:
            result[name] = tensor
    is_unique = len(set(map(without_prefix, tensors))) == len(tensors)
    require(is_unique, "a tensor occurs with and without the model's name before it")
    return fold_class_position(result | join_parts(joined)), unused


def join_parts(joined):
    """Returns {name: tensor} of {name: {place: part}}: the parts joined along the first axis."""
    return {
        name: LazyTensor.concatenate([parts[i] for i in sorted(parts)], 0) for name, parts in joined.items()
    }


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


def without_prefix(name):
    """Returns a name without the model's prefix, such as "vit."."""
    return next((name.removeprefix(p) for p in PREFIXES if name.startswith(p)), name)


def add_block_tensor(prefix, name, tensor, result, joined):
    """Adds one tensor of a block to `result`, or to `joined` if several tensors become one."""
    module, _, ending = name.rpartition(".")
    scale = re.fullmatch(r"layer_scale([12])\.lambda1", name)
    part = re.fullmatch(r"attention\.(?:attention\.)?(\w+)", module)
    gate = re.fullmatch(r"mlp\.(\w+)", module)
    if scale:
        result[f"{prefix}ls{scale[1]}.gamma"] = tensor
    elif part and part[1] in QKV:
        joined.setdefault(f"{prefix}attn.qkv.{ending}", {})[QKV[part[1]]] = tensor
    elif gate and gate[1] in GATE:
        joined.setdefault(f"{prefix}mlp.fc1.{ending}", {})[GATE[gate[1]]] = tensor
    else:
        for pattern, name_in_timm in BLOCK.items():
            if re.fullmatch(pattern, module):
                result[f"{prefix}{name_in_timm}.{ending}"] = tensor
                return
        result[prefix + name] = tensor


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
