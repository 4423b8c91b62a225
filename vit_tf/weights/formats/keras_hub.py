"""keras-hub's presets of ViT, DINOv2, DINOv3 and SigLIP: Keras's layouts, and paths of layers in HDF5 files.

Reference: https://github.com/keras-team/keras-hub, `src/models/vit`, `dinov2`, `dinov3` and `siglip`.
`vars/0` of a layer is its kernel or its scale, `vars/1` its bias.
"""

import re
from functools import partial

from vit_tf.checks import require, shown
from vit_tf.hub.config_values import config_value
from vit_tf.hub.keras_hub_preset import HEAD
from vit_tf.weights.formats import transformers_config
from vit_tf.weights.formats.eva_names import from_eva
from vit_tf.weights.formats.huggingface import fold_class_position
from vit_tf.weights.formats.renaming import rename, translate

# Classes of backbones, and what they are in transformers.
KINDS = {
    "ViTBackbone": "vit",
    "DINOV2Backbone": "dinov2",
    "DINOV3Backbone": "dinov3",
    "SigLIPBackbone": "siglip",
}
BIASES = ("query", "key", "value", "proj", "mlp")
ENDINGS = {"/vars/0": ".weight", "/vars/1": ".bias"}
BLOCK = re.compile(r"layers/(?:vi_t_encoder_block|dinov[23]_layer|sig_lip_encoder_layer)(?:_(\d+))?/")
VISION, POOLING = "layers/sig_lip_vision_encoder/", "layers/sig_lip_multi_head_attention_pooling"
E, EMBEDDING = r"\.(weight|bias)", r"layers/(?:vi_t_patching_and|dinov[23]|sig_lip_vision)_embedding"
ATTENTION = r"block_(\d+)/(?:mha|attention/attention|self_attn)"
NAMES = {
    rf"{EMBEDDING}/(?:patch_embedding|patch_embeddings/projection){E}": r"patch_embed.proj.\1",
    rf"{EMBEDDING}/position_embedding\.weight": "pos_embed",
    rf"{ATTENTION}/query_dense{E}": r"blocks.\1.attn.qkv.\2:0/3",
    rf"{ATTENTION}/key_dense{E}": r"blocks.\1.attn.qkv.\2:1/3",
    rf"{ATTENTION}/value_dense{E}": r"blocks.\1.attn.qkv.\2:2/3",
    rf"{ATTENTION}/output_dense{E}": r"blocks.\1.attn.proj.\2",
    rf"block_(\d+)/attention/query_dense{E}": r"blocks.\1.attn.q_proj.\2",  # DINOv3
    rf"block_(\d+)/attention/key_dense{E}": r"blocks.\1.attn.k_proj.\2",
    rf"block_(\d+)/attention/value_dense{E}": r"blocks.\1.attn.v_proj.\2",
    rf"block_(\d+)/attention/output_dense{E}": r"blocks.\1.attn.proj.\2",
    rf"block_(\d+)/mlp/gate_proj{E}": r"blocks.\1.mlp.fc1_g.\2",
    rf"block_(\d+)/mlp/down_proj{E}": r"blocks.\1.mlp.fc2.\2",
    rf"block_(\d+)/(?:layer_)?norm_?([12]){E}": r"blocks.\1.norm\2.\3",
    r"block_(\d+)/layer_scale([12])\.weight": r"blocks.\1.ls\2.gamma",
    rf"block_(\d+)/mlp/(?:dense_|fc)([12]){E}": r"blocks.\1.mlp.fc\2.\3",
    rf"block_(\d+)/mlp/weights_in{E}": r"blocks.\1.mlp.fc1.\2",
    rf"block_(\d+)/mlp/weights_out{E}": r"blocks.\1.mlp.fc2.\2",
    rf"layers/(?:vi_t_encoder/layer_norm|layer_normalization){E}": r"norm.\1",
    rf"{POOLING}\.weight": "attn_pool.latent",
    rf"{POOLING}/attention/query_dense{E}": r"attn_pool.q.\1",
    rf"{POOLING}/attention/key_dense{E}": r"attn_pool.kv.\1:0/2",
    rf"{POOLING}/attention/value_dense{E}": r"attn_pool.kv.\1:1/2",
    rf"{POOLING}/attention/output_dense{E}": r"attn_pool.proj.\1",
    rf"{POOLING}/layer_norm{E}": r"attn_pool.norm.\1",
    rf"{POOLING}/mlp/(fc[12]){E}": r"attn_pool.mlp.\1.\2",
    rf"{HEAD}layers/(?:dense|predictions|output_dense){E}": r"head.\1",
}


GATED = {rf"block_(\d+)/mlp/up_proj{E}": r"blocks.\1.mlp.fc1_x.\2"}
PLAIN = {rf"block_(\d+)/mlp/up_proj{E}": r"blocks.\1.mlp.fc1.\2"}


def matches(names):
    return any(re.match(rf"(?:{VISION})?{EMBEDDING}/", name) for name in names)


def from_keras_hub(tensors):
    """Returns (tensors, unused): the tensors under timm's names, and the unused names."""
    start = VISION if any(name.startswith(VISION) for name in tensors) else ""
    unused = [name for name, t in tensors.items() if not name.startswith((start, HEAD)) or t.kind == "i"]
    inside = {n.removeprefix(start): torch_layout(n, t) for n, t in tensors.items() if n not in unused}
    tokens, left = class_tokens(inside)
    tensors = {n: t for n, t in inside.items() if not re.fullmatch(rf"{EMBEDDING}/vars/\d", n)}
    names = NAMES | (GATED if any("/mlp/gate_proj/" in name for name in tensors) else PLAIN)
    result, _ = from_eva(rename(tensors, partial(new_name, names=names)) | tokens)
    return fold_class_position(result), [*unused, *left]


def new_name(name, names):
    block = BLOCK.search(name)
    path = f"block_{block[1] or 0}/{name[block.end() :]}" if block else name
    for ending, theirs in ENDINGS.items():
        if path.endswith(ending):
            return translate(path.removesuffix(ending) + theirs, names) or name
    return name


def torch_layout(name, tensor):
    """Returns a tensor of Keras in PyTorch's layout, without an axis of heads."""
    module, _, ending = name.rpartition("/vars/")
    if module.endswith("/position_embedding"):
        return tensor.reshape(1, *tensor.shape)
    if len(tensor.shape) == 4:
        return tensor.transpose(3, 2, 0, 1)
    if module.endswith(("query_dense", "key_dense", "value_dense")):  # (d, heads, k), and a bias (heads, k)
        tensor = tensor.reshape(-1) if ending == "1" else tensor.reshape(tensor.shape[0], -1)
    elif module.endswith("/output_dense") and len(tensor.shape) == 3:  # (heads, k, d)
        tensor = tensor.reshape(-1, tensor.shape[-1])
    is_kernel = ending == "0" and len(tensor.shape) == 2 and not module.endswith("_embedding")
    return tensor.transpose(1, 0) if is_kernel else tensor


def class_tokens(tensors):
    """Returns (tensors, unused): the weights that the embedding itself has, under timm's names.

    ViT has a class token, or none. DINOv2 has a class token, perhaps a token for masked patches, perhaps
    registers, positions at the size of its images, which follow from the last, and the trained positions.
    DINOv3 has no positions.
    """
    names = sorted(name for name in tensors if re.fullmatch(rf"{EMBEDDING}/vars/\d", name))
    if not names:
        return {}, ()
    result = {"cls_token": tensors[names[0]]}
    if len(names) == 1:
        return result, ()
    if "/dinov3_embedding/" in f"/{names[0]}":
        is_register = len(names) == 3 or tensors[names[1]].shape[1] > 1
        if is_register:
            result["reg_token"] = tensors[names[-1]]
        return result, names[1:-1] if is_register else names[1:]
    result["pos_embed"] = tensors[names[-1]]
    between = names[1:-2]
    for name in between:
        if len(tensors[name].shape) == 3:
            result["reg_token"] = tensors[name]
    return result, (*(name for name in between if len(tensors[name].shape) != 3), names[-2])


def variant_from_config(config):
    """Returns the hyperparameters that the config.json of a preset describes, as a dict.

    Raises:
        ValueError: the class is unknown, or has values that no model here takes.
    """
    kind = config_value(config, "class_name", str)
    require(kind in KINDS, f"config.json has class_name {shown(kind)}, expected one of {', '.join(KINDS)}")
    task, sizes = config_value(config, "task", dict, {}), config_value(config, "config", dict, {})
    if kind == "SigLIPBackbone":
        sizes = config_value(config_value(sizes, "vision_encoder", dict, {}), "config", dict, {})
    shape = config_value(sizes, "image_shape", list, [224, 224, 3])
    require(len(shape) == 3, f"config.json must have [height, width, channels] as 'image_shape', got {shape}")
    mlp_dim = "mlp_dim" if kind == "ViTBackbone" else "intermediate_dim"
    epsilon = "layer_norm_eps" if kind == "DINOV3Backbone" else "layer_norm_epsilon"
    fields = dict(
        image_size=shape[:2],
        in_channels=shape[2],
        patch_size=config_value(sizes, "patch_size", (int, list)),
        hidden_dim=config_value(sizes, "hidden_dim", int),
        num_layers=config_value(sizes, "num_layers", int),
        num_heads=config_value(sizes, "num_heads", int),
        mlp_dim=config_value(sizes, mlp_dim, int),
        norm_epsilon=config_value(sizes, epsilon, float, 1e-6),
    )
    lacking = [key for key, value in fields.items() if value is None]
    require(not lacking, f"config.json describes no {kind}: it lacks {', '.join(lacking)}")
    own_fields = dict(vit=vit_fields, dinov2=dinov2_fields, dinov3=dinov3_fields, siglip=siglip_fields)
    return fields | own_fields[KINDS[kind]](sizes, task)


def vit_fields(sizes, task):
    biases = [config_value(sizes, key, bool, True) for key in ("use_mha_bias", "use_mlp_bias")]
    require(
        len(set(biases)) == 1,
        "config.json has biases in only one of attention and MLP, expected both or none",
    )
    has_token = config_value(sizes, "use_class_token", bool, True)
    is_mean = config_value(task, "pooling", str, "token") == "gap" or not has_token
    return dict(
        pooling="avg" if is_mean else "token",
        class_token=has_token,
        pool_prefix=is_mean,  # the mean of all tokens
        qkv_bias=biases[0],
        projection_bias=biases[1],
        patch_bias=config_value(sizes, "use_patch_bias", bool, True),
    )


def dinov2_fields(sizes, task):
    registers = config_value(sizes, "num_register_tokens", int, 0)
    fields = dict(layer_scale_init=config_value(sizes, "layer_scale_init_value", float, 1.0))
    if config_value(sizes, "use_swiglu_ffn", bool, False):
        mlp_dim = config_value(sizes, "intermediate_dim", int)
        fields |= dict(mlp="swiglu", activation="silu", mlp_dim=(int(mlp_dim * 2 / 3) + 7) // 8 * 8)
    if registers:
        fields |= dict(num_registers=registers, prefix_positions=False)
    return fields


def dinov3_fields(sizes, task):
    flags = {f"{part}_bias": config_value(sizes, f"use_{part}_bias", bool, True) for part in BIASES}
    renamed = {"use_gated_mlp": "use_gated_mlp", "rope_theta": "rope_theta"}
    renamed |= {"num_register_tokens": "num_register_tokens", "layerscale_value": "layer_scale_init_value"}
    fields = transformers_config.dinov3_fields(flags | {key: sizes.get(old) for key, old in renamed.items()})
    return fields | dict(activation=config_value(sizes, "hidden_activation", str, "gelu"))


def siglip_fields(sizes, task):
    activation = config_value(sizes, "intermediate_activation", str, "gelu_approximate")
    return dict(pooling="map", activation={"gelu_approximate": "gelu_tanh"}.get(activation, activation))
