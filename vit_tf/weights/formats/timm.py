"""timm's names for the weights of a model. Every other format is translated to these names.

Reference: timm 1.0.31 (https://github.com/huggingface/pytorch-image-models),
`models/vision_transformer.py` and `models/deit.py`. Some names are specific to vit_tf, for layers
that timm lacks: `patch_embed.norm_in`, the norm of the cut pixels; and `patch_embed.stages`,
`patch_embed.norms` and `patch_embed.whitening`, overlapping stems.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_tf.checks import listing, pair, require, shown
from vit_tf.config_checks import RESNET_STEMS
from vit_tf.hub.config_values import config_image_size, config_value
from vit_tf.patch_grid import resnet_stride
from vit_tf.structure import ViTStructure
from vit_tf.variants import get_variant
from vit_tf.weights.formats import backbones, eva_names
from vit_tf.weights.formats.renaming import translate

HEAD_TENSORS = ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")
# Regular expressions for paths of layers and weights, and timm's names for them.
NAMES = {
    **backbones.NAMES,
    "patch_embedding/stage_([0-9]+)": r"patch_embed.stages.\1",
    "patch_embedding/pooled_([0-9]+)/convolution": r"patch_embed.stages.\1.pooled.conv",
    "patch_embedding/pooled_([0-9]+)/norm": r"patch_embed.stages.\1.pooled.norm",
    "patch_embedding/mixed_([0-9]+)_([0-9]+)/convolution": r"patch_embed.stages.\1.mixed.\2.conv",
    "patch_embedding/mixed_([0-9]+)_([0-9]+)/norm": r"patch_embed.stages.\1.mixed.\2.norm",
    "patch_embedding/whitening": "patch_embed.whitening",
    "patch_embedding/norm_([0-9]+)": r"patch_embed.norms.\1",
    "patch_embedding(?:/projection)?": "patch_embed.proj",
    "patch_norm": "patch_embed.norm_in",
    "embedding_norm": "patch_embed.norm",
    "patch_encoder/class_token": "cls_token",
    "patch_encoder/distillation_token": "dist_token",
    "patch_encoder/register_tokens": "reg_token",
    "patch_encoder/position_embedding": "pos_embed",
    "pre_norm": "norm_pre",
    "norm": "norm",
    "pooled_norm": "fc_norm",
    "pooling/latent": "attn_pool.latent",
    "pooling/query": "attn_pool.q",
    "pooling/key_value": "attn_pool.kv",
    "pooling/projection": "attn_pool.proj",
    "pooling/mlp_norm": "attn_pool.norm",
    "pooling/mlp/(fc[12])": r"attn_pool.mlp.\1",
    "head": "head",
    "distillation_head": "head_dist",
}
CORE_NAMES = {
    "core_attention/query_norm": "q_norm",
    "core_attention/key_norm": "k_norm",
    "core_attention/head_norm": "sub_norm",
    "core_attention/(lambda_[qk][12])": r"\1",
    "core_attention/rotary/frequencies": "rope.freqs",
    "core_attention/relative_positions/table": "relative_position_bias_table",
}
BLOCK_NAMES = {
    "attention_norm": "norm1",
    "attention_scale": "ls1",
    "mlp_norm": "norm2",
    "mlp_scale": "ls2",
    # Parallel things
    "attention_norm_([0-9]+)": r"attns.\1.norm",
    "attention_scale_([0-9]+)": r"attns.\1.ls",
    "mlp_norm_([0-9]+)": r"ffns.\1.norm",
    "mlp_scale_([0-9]+)": r"ffns.\1.ls",
    # Parallel scaling
    "norm": "in_norm",
    "in_projection": "in_proj",
    "mlp_bias": "mlp_bias",
    "out_projection": "out_proj",
    "attention_projection": "attn_out_proj",
    "mlp_projection": "mlp_out_proj",
    "scale": "ls",
    **CORE_NAMES,
}
ATTENTION_NAMES = {"qkv": "qkv", **CORE_NAMES, "inner_norm": "norm", "projection": "proj"}
ATTENTION_NAMES |= {"query_bias": "q_bias", "value_bias": "v_bias"}
MLP_NAMES = {"(fc[12])": r"\1", "fc1_gate": "fc1_g", "fc1_value": "fc1_x", "inner_norm": "norm"}
PARTS = {"attention": ("attns", "attn", ATTENTION_NAMES), "mlp": ("ffns", "mlp", MLP_NAMES)}
ENDINGS = {"kernel": "weight", "gamma": "weight", "scale": "weight", "beta": "bias", "bias": "bias"}
ENDINGS |= backbones.STATISTICS

POOLED = "patch_embed.stages.0.pooled.conv.weight"
STEMS = {
    "patch_embed.proj.weight",
    "patch_embed.stages.0.weight",
    POOLED,
    backbones.MOBILECLIP,
}  # one of them


def timm_name(path):
    """Returns timm's name of a weight, from its path; None if timm has no such weight."""
    module, _, ending = path.rpartition("/")
    if ending not in ENDINGS or module in ("", "patch_encoder"):
        return module_name(path)  # a weight of the layer itself, such as a token
    name = module_name(module)
    if name is None:
        return module_name(path)
    scale = name.rpartition(".")[2].startswith("ls")
    return f"{name}.{'gamma' if scale else ENDINGS[ending]}"


def module_name(path):
    block = re.fullmatch("block_([0-9]+)/(.+)", path)
    if not block:
        return translate(path, NAMES)
    index, path = block.groups()
    part = re.fullmatch("(attention|mlp)(?:_([0-9]+))?/(.+)", path)
    if not part:
        name = translate(path, BLOCK_NAMES)
        return name and f"blocks.{index}.{name}"
    kind, branch, path = part.groups()
    parent, module, names = PARTS[kind]
    prefix = module if branch is None else f"{parent}.{branch}.{module}"
    name = translate(path, names)
    return name and f"blocks.{index}.{prefix}.{name}"


@dataclass(frozen=True)
class WeightMapping:
    """One weight of a model, and how its layout differs from timm's.

    Args:
        variable: the `keras.Variable`.
        keras_shape: its shape; for a flat patch kernel, the shape of the convolution's.
        axes: the axes of `keras_shape` in timm's order.
    """

    variable: Any
    keras_shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in timm."""
        return tuple(self.keras_shape[axis] for axis in self.axes)

    def to_keras(self, array: np.ndarray) -> np.ndarray:
        return array.transpose(np.argsort(self.axes)).reshape(self.variable.shape)

    def to_timm(self, array: np.ndarray) -> np.ndarray:
        return array.reshape(self.keras_shape).transpose(self.axes)


def weight_mappings(model):
    """Returns the weights of a model of `build_vit` as a dict from timm's names to `WeightMapping`.

    Raises:
        ValueError: the model has weights without a name in timm, or is quantized.
    """
    mappings, unmapped = {}, []
    for variable in (variable for layer in model.layers for variable in layer.weights):
        name = timm_name(variable.path)
        if name is not None:
            mappings[name] = make_mapping(name, variable, model)
        elif "seed_generator" not in variable.path:
            unmapped.append(variable.path)
    if any(layer.quantization_mode for layer in model._flatten_layers()):
        raise ValueError(
            f"{model.name!r} is quantized, and published formats hold floats: save it as .keras, or load and "
            "save the weights before `quantize`"
        )
    if unmapped or ViTStructure(model).patch_encoder is None:
        raise ValueError(
            f"{model.name!r} is not a plain model of `build_vit`: "
            + (f"its weights are {', '.join(unmapped[:5])}" if unmapped else "it has no `PatchEncoder`")
        )
    return mappings


def make_mapping(name, variable, model):
    shape = tuple(variable.shape)
    if name == "patch_embed.proj.weight" and len(shape) == 2:  # of a Dense after `Patches`
        rows, columns = ViTStructure(model).patch_size
        shape = (rows, columns, shape[0] // (rows * columns), shape[1])
    if name.endswith("relative_position_bias_table"):
        return WeightMapping(variable, shape, (0, 1))
    # Dense: (in, out), in timm (out, in). Convolution: (height, width, in, out), (out, in, height, width).
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(len(shape), tuple(range(len(shape))))
    return WeightMapping(variable, shape, axes)


def matches(names):
    return not STEMS.isdisjoint(names)


def from_timm(tensors):
    """Returns (tensors, unused): the tensors of a timm checkpoint under current names, and the unused names.

    DeiT III's first files and timm's `eva.py` name the LayerScales gamma_1 and gamma_2. For the other names
    of `eva.py`, see `vit_tf.weights.formats.eva_names`.
    """
    unused = [name for name in tensors if name.endswith(backbones.UNUSED)]
    tensors = {name: t for name, t in tensors.items() if not name.endswith(backbones.UNUSED)}
    renamed = {re.sub(r"\.gamma_([12])$", r".ls\1.gamma", name): t for name, t in tensors.items()}
    if len(renamed) != len(tensors):
        raise ValueError("a LayerScale has both of its names, gamma_1 and ls1.gamma")
    renamed, of_eva = eva_names.from_eva(renamed)
    return renamed, (*unused, *of_eva)


# timm's arguments in "model_args" of a config.json, and the hyperparameters of the same meaning. Arguments in
# `WITHOUT_EFFECT` change neither weights nor logits.
MODEL_ARGS = {
    "img_size": "image_size",
    "patch_size": "patch_size",
    "in_chans": "in_channels",
    "num_classes": "num_classes",
    "embed_dim": "hidden_dim",
    "depth": "num_layers",
    "num_heads": "num_heads",
    "class_token": "class_token",
    "reg_tokens": "num_registers",
    "init_values": "layer_scale_init",
    "qkv_bias": "qkv_bias",
    "qk_norm": "qk_norm",
    "proj_bias": "projection_bias",
    "pool_include_prefix": "pool_prefix",
    "act_layer": "activation",
    "num_reg_tokens": "num_registers",  # from here on, of eva.py
    "use_abs_pos_emb": "position_table",
}
SYNONYMS = {"use_fc_norm": "fc_norm", "use_post_transformer_norm": "final_norm"}
SYNONYMS |= {"use_pre_transformer_norm": "pre_norm"}
DERIVED = ("global_pool", "mlp_ratio", "no_embed_class", "pre_norm", "fc_norm", "final_norm")
WITHOUT_EFFECT = ("dynamic_img_size", "dynamic_img_pad", "weight_init", "fix_init", "strict_img_size")


def variant_from_config(config):
    """Returns the variant and the hyperparameters that a config.json of timm describes.

    Raises:
        ValueError: `model_args` has unknown arguments or values of a wrong type.
    """
    name = config_value(config, "architecture", str, "").partition(".")[0]
    arguments = config_value(config, "model_args", dict, {})
    arguments = {SYNONYMS.get(key, key): value for key, value in arguments.items() if value is not None}
    known = {*MODEL_ARGS, *DERIVED, *WITHOUT_EFFECT}
    unknown = sorted(key for key in arguments if key not in known and not key.endswith("_rate"))
    problem = f"config.json builds {shown(name)} with {listing(unknown)}, which are unknown"
    require(not unknown, f"{problem}: pass the variant and its hyperparameters explicitly")
    size = config_image_size(config)
    fields = {} if size is None else {"image_size": size}
    fields |= {MODEL_ARGS[key]: value for key, value in arguments.items() if key in MODEL_ARGS}
    return name, fields | derived_fields(get_variant(name), arguments)


def derived_fields(config, arguments):
    """Returns the hyperparameters that follow from several of timm's arguments, as timm combines them."""
    fields: dict[str, Any] = {}
    is_of_eva = config.rotary is not None or config.qkv_bias == "qv"
    if arguments.get("qkv_bias") and is_of_eva and config.qkv_bias is not True:  # its keys have no bias
        fields["qkv_bias"] = "qv"
    if {"embed_dim", "mlp_ratio"} & arguments.keys():
        ratio = config_value(arguments, "mlp_ratio", (int, float), config.mlp_dim / config.hidden_dim)
        if "mlp_ratio" in arguments and config.mlp == "swiglu" and not is_of_eva:
            ratio /= 2  # timm's width includes both gate and value
        fields["mlp_dim"] = int(config_value(arguments, "embed_dim", int, config.hidden_dim) * ratio)
    if config.patch_stem in RESNET_STEMS and "patch_size" in arguments:  # there in pixels of the map
        stride = resnet_stride(config.stem_blocks, config.patch_size)
        sides = pair(config_value(arguments, "patch_size", (int, list)), "patch_size")
        fields["patch_size"] = tuple(stride * side for side in sides)
    if "no_embed_class" in arguments:
        fields["prefix_positions"] = not arguments["no_embed_class"]
    if "pre_norm" in arguments:
        fields |= {"pre_norm": arguments["pre_norm"], "patch_bias": not arguments["pre_norm"]}
    pooling = arguments.get("global_pool", config.pooling)
    hint = "which gives all tokens: name the variant and a `pooling`"
    require(pooling != "", f"config.json has 'global_pool': '', {hint}")
    reduces = ("avg", "avgmax", "max")
    has_no_pooled_norm = config.pooling in reduces and config.final_norm == "tokens"  # timm's fc_norm=False
    is_pooled = arguments.get("fc_norm", pooling in reduces and not has_no_pooled_norm)
    has_norm = arguments.get("final_norm", config.final_norm != "none")
    fields["final_norm"] = ("pooled" if is_pooled else "tokens") if has_norm else "none"
    fields["pooling"] = pooling
    if config.pooling == "map" and pooling != "map":  # only the learned query reads the prefix tokens
        fields["pool_prefix"] = arguments.get("pool_include_prefix", False)
    if "class_token" not in arguments:
        fields["class_token"] = config.has_class_token
    return fields
