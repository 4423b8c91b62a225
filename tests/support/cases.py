"""Small models of every architecture and every format of weights, for parity with their own libraries.

A case is a dict of plain values: how we build the model (`variant`, `overrides`, or a `config`), how
the reference builds it (`reference`), the names and shapes of the weights in the file, and the size of
the images. Weights and images come from generators that are seeded by name, so that a case and the
reference's logits are all that `fixtures/logits.json` has to hold.
"""

import json
import zlib
from dataclasses import replace

import numpy as np
from safetensors.numpy import save_file

from vit_tf import build_vit
from vit_tf.config_checks import HYBRID_STEMS, RESNET_STEMS
from vit_tf.patch_grid import resnet_stride
from vit_tf.variants import VARIANTS, get_variant

OURS = ("vit_pytorch", "vit_cifar10_tutorial", "vit_cifar10", "vit_cifar10_hybrid")
TIMM_NAMES = sorted(set(VARIANTS) - set(OURS))


def random_array(name, shape, seed=0):
    """Returns float32 values that depend on the name, the shape and the seed alone."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    values = rng.normal(size=shape)
    if name == "rope.freqs" or name.endswith("bias_table"):  # angles of several turns; differences of scores
        return values.astype("float32")
    if len(shape) > 1:
        return (0.1 * values).astype("float32")
    if tuple(shape[:-1]) == (1, 1, 1):  # of a group norm
        shape = (shape[-1],)
        return random_array(name, shape, seed).reshape(1, 1, 1, -1)
    if name.endswith("running_var"):
        return (0.05 + 0.05 * values**2).astype("float32")  # so small that the values keep their size
    if name.endswith(("weight", "scale", "gamma", "lambda1")):  # factors of norms and LayerScale
        return (0.6 + 0.3 * values).astype("float32")
    return (0.2 * values).astype("float32")


def random_weights(shapes, seed=0):
    return {name: random_array(name, tuple(shape), seed) for name, shape in shapes.items()}


def random_images(case, seed=0):
    """Returns two images, (2, h, w, 3), for a case."""
    return 10 * random_array(case["id"], (2, *case["image_size"], 3), seed)


def small(name):
    """Returns overrides that make a variant small and leave all that sets it apart."""
    variant = get_variant(name)
    heads = min(variant.num_heads, 6 if variant.num_heads % 3 == 0 else 4)
    rest = 5 if variant.allow_remainder else 0
    rows, columns = variant.patch_size
    stem = {}
    if variant.patch_stem in RESNET_STEMS:
        rest = -3  # odd sides, which the stem pads
        stem["stem_width"] = 32 if variant.patch_stem == "resnet_v2" else 8
        stem["stem_blocks"] = [2 if i == 1 else 1 for i in range(len(variant.stem_blocks))]
    overrides = stem | dict(
        num_layers=2,
        num_heads=heads,
        hidden_dim=16 * heads,
        mlp_dim=round(variant.mlp_dim / variant.hidden_dim * 8) * 2 * heads,
        image_size=[3 * rows + rest, 4 * columns + rest],
        num_classes=5,
    )
    if variant.mlp == "swiglu_split":  # timm rounds the widths of some up to multiples of 8 or 64
        overrides["mlp_dim"] += -overrides["mlp_dim"] % (64 if "dinov3" in name else 8)
    if variant.num_kv_heads:  # a block of grouped queries between two others
        overrides |= dict(num_layers=3, num_kv_heads=heads // 2, num_full_blocks=1)
    if variant.pool_heads:
        overrides |= dict(pool_heads=2 * heads)
    if variant.pool_mlp_dim:
        overrides |= dict(pool_mlp_dim=24 * heads)
    return overrides


def is_of_eva(name):
    """Whether a model is one of timm's `eva.py`, where an `mlp_ratio` is that of the gate alone."""
    variant = get_variant(name)
    return variant.rotary is not None or variant.qkv_bias == "qv"


def one_of_each_kind(names):
    """Returns the first of those variants that differ in their sizes alone.

    Sizes are the width, the number of heads, those of patches and images, and the blocks of a network in the
    stem.
    """
    sizes = dict(hidden_dim=64, num_heads=4, mlp_dim=64, num_layers=2, patch_size=16, image_size=64)
    sizes |= dict(num_classes=5, pool_heads=None, pool_mlp_dim=None)

    def kind(config):
        others = dict(stem_blocks=config.stem_blocks[:1] and (1,))
        if config.num_kv_heads:
            others["num_kv_heads"] = 2
        if config.rotary is not None and config.rotary.reference_grid:
            others["rotary"] = replace(config.rotary, reference_grid=(4, 4))
        return replace(config, **sizes, **others)

    return sorted({kind(get_variant(name)): name for name in reversed(names)}.values())


INSIDE = (  # whose attention and features are compared, too: one of each kind
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_base_patch16_rpn_224",
    "vit_base_patch16_xp_224",
    "vit_small_patch16_18x2_224",
    "vit_base_patch16_siglip_224",
    "vit_so150m2_patch16_reg1_gap_256",
    "eva02_base_patch16_clip_224",
    "vit_small_patch16_rope_mixed_224",
    "vit_small_patch16_dinov3_qkvb",
    "vit_base_patch16_sapiens2",
    "beit_base_patch16_224",
)


def timm_case(name):
    overrides, heads = small(name), small(name)["num_heads"]
    ratio = overrides["mlp_dim"] / overrides["hidden_dim"]
    both = get_variant(name).mlp == "swiglu" and not is_of_eva(name)  # gate and value
    reference = dict(
        img_size=overrides["image_size"],
        embed_dim=overrides["hidden_dim"],
        depth=overrides["num_layers"],
        num_heads=heads,
        mlp_ratio=2 * ratio if both else ratio,
        num_classes=5,
    )
    if get_variant(name).patch_stem in HYBRID_STEMS:
        reference["hybrid"] = {key: value for key, value in overrides.items() if key.startswith("stem_")}
    if "num_kv_heads" in overrides:
        reference["num_kv_heads"] = [heads, overrides["num_kv_heads"], heads]
    if "pool_heads" in overrides:
        reference["attn_pool_num_heads"] = overrides["pool_heads"]
    if "pool_mlp_dim" in overrides:
        reference["attn_pool_mlp_ratio"] = overrides["pool_mlp_dim"] / overrides["hidden_dim"]
    return dict(
        id=name,
        format="timm",
        variant=name,
        overrides=overrides,
        reference=reference,
        image_size=overrides["image_size"],
    )


def google_cases():
    """Google's npz: from before linen, linen, and big_vision with its blocks stacked or not."""
    for style, name in (
        ("old", "vit_tiny_patch16_224"),
        ("linen", "vit_tiny_patch16_224"),
        ("target", "vit_small_patch32_224"),
        ("big_vision", "vit_base_patch16_siglip_224"),
        ("stacked", "vit_base_patch16_siglip_224"),
        ("big_vision", "flexivit_small"),
        ("old", "vit_tiny_r_s16_p8_224"),
        ("linen", "vit_base_r50_s16_224"),
    ):
        case = timm_case(name)
        rows, columns = get_variant(name).patch_size
        square = [3 * rows, 3 * columns]  # the files know nothing but squares
        case |= dict(id=f"google {style} {name}", format="google", image_size=square)
        case["overrides"]["image_size"] = case["reference"]["img_size"] = square
        yield case | dict(shapes=google_shapes(style, get_variant(name, **case["overrides"])))


def google_shapes(style, spec):
    """Returns the names and shapes of an npz file for a variant, in one of Google's styles."""
    d, width = spec.hidden_dim, spec.hidden_dim // spec.num_heads
    rows, columns = spec.patch_size
    network = resnet_shapes(spec) if spec.patch_stem == "resnet_v2" else {}
    channels = 3
    if network:
        stride, channels = resnet_stride(spec.stem_blocks, spec.patch_size), spec.stem_width
        channels *= 4 << len(spec.stem_blocks) - 1 if spec.stem_blocks else 1
        rows, columns = rows // stride, columns // stride
    modern = style in ("big_vision", "stacked")
    positions = "pos_embedding" if modern else "Transformer/posembed_input/pos_embedding"
    count = spec.grid_size[0] * spec.grid_size[1] + (spec.num_prefix_tokens if spec.prefix_positions else 0)
    shapes = network | {
        "embedding/kernel": (rows, columns, channels, d),
        "embedding/bias": (d,),
        positions: (1, count, d),
        "Transformer/encoder_norm/scale": (d,),
        "Transformer/encoder_norm/bias": (d,),
        "head/kernel": (d, spec.num_classes),
        "head/bias": (spec.num_classes,),
    }
    if spec.has_class_token:
        shapes["cls"] = (1, 1, d)
    norm2, attention, mlp = ("2", "1", "3") if not modern else ("1", "0", "0")
    heads = f"MultiHeadDotProductAttention_{attention}"
    block = norm_shapes("LayerNorm_0", d) | norm_shapes(f"LayerNorm_{norm2}", d)
    block |= attention_shapes(heads, d, spec.num_heads, width) | mlp_shapes(
        f"MlpBlock_{mlp}", d, spec.mlp_dim
    )
    for name, shape in block.items():
        if style == "stacked":
            shapes[f"Transformer/encoderblock/{name}"] = (spec.num_layers, *shape)
        else:
            shapes |= {f"Transformer/encoderblock_{i}/{name}": shape for i in range(spec.num_layers)}
    if spec.pooling == "map":
        pool = norm_shapes("LayerNorm_0", d) | mlp_shapes("MlpBlock_0", d, spec.mlp_dim)
        pool |= attention_shapes("MultiHeadDotProductAttention_0", d, spec.num_heads, width)
        shapes |= {f"MAPHead_0/{name}": shape for name, shape in pool.items()}
        shapes["MAPHead_0/probe"] = (1, 1, d)
    prefix = {"target": "opt/target/", "big_vision": "params/", "stacked": "params/img/"}.get(style, "")
    return {prefix + name: shape for name, shape in shapes.items()}


def resnet_shapes(spec):
    """Returns the names and shapes of the residual network of a hybrid."""
    width = spec.stem_width
    shapes = {"conv_root/kernel": (7, 7, 3, width)} | group_norm_shapes("gn_root", width)
    inputs = width
    for stage, count in enumerate(spec.stem_blocks):
        inner, outer = width << stage, 4 * width << stage
        for unit in range(count):
            name = f"block{stage + 1}/unit{unit + 1}/"
            sizes = {"1": (1, 1, inputs, inner), "2": (3, 3, inner, inner), "3": (1, 1, inner, outer)}
            if not unit:
                sizes["_proj"] = (1, 1, inputs, outer)
            for part, shape in sizes.items():
                shapes |= {f"{name}conv{part}/kernel": shape} | group_norm_shapes(f"{name}gn{part}", shape[3])
            inputs = outer
    return shapes


def group_norm_shapes(name, d):
    return {f"{name}/scale": (1, 1, 1, d), f"{name}/bias": (1, 1, 1, d)}


def norm_shapes(name, d):
    return {f"{name}/scale": (d,), f"{name}/bias": (d,)}


def mlp_shapes(name, d, mlp_dim):
    return {
        f"{name}/Dense_0/kernel": (d, mlp_dim),
        f"{name}/Dense_0/bias": (mlp_dim,),
        f"{name}/Dense_1/kernel": (mlp_dim, d),
        f"{name}/Dense_1/bias": (d,),
    }


def attention_shapes(name, d, heads, width):
    shapes = {f"{name}/out/kernel": (heads, width, d), f"{name}/out/bias": (d,)}
    for part in ("query", "key", "value"):
        shapes |= {f"{name}/{part}/kernel": (d, heads, width), f"{name}/{part}/bias": (heads, width)}
    return shapes


def huggingface_cases():
    sizes = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, num_labels=5)
    for name, options in (
        ("ViTForImageClassification", dict(image_size=48, patch_size=16, intermediate_size=80)),
        ("ViTModel", dict(image_size=[32, 48], patch_size=16, intermediate_size=80)),
        ("DeiTForImageClassification", dict(image_size=48, patch_size=16, intermediate_size=80)),
        ("DeiTForImageClassificationWithTeacher", dict(image_size=48, patch_size=16, hidden_act="gelu_new")),
        ("Dinov2ForImageClassification", dict(image_size=56, patch_size=14)),
        ("Dinov2Model", dict(image_size=56, patch_size=14, use_swiglu_ffn=True)),
        ("Dinov2WithRegistersForImageClassification", dict(image_size=56, patch_size=14)),
        ("Dinov2WithRegistersModel", dict(image_size=56, patch_size=14, use_swiglu_ffn=True)),
    ):
        size = options["image_size"]
        yield dict(
            id=f"huggingface {name}",
            format="huggingface",
            reference=dict(model=name, config={**sizes, **options}),
            image_size=size if isinstance(size, list) else [size, size],
        )


def vit_pytorch_cases():
    for pooling, pool in (("token", "cls"), ("avg", "mean")):
        overrides = dict(hidden_dim=48, num_layers=2, num_heads=3, mlp_dim=80, head_dim=20, num_classes=5)
        overrides |= dict(image_size=[32, 48], patch_size=16, pooling=pooling)
        reference = dict(dim=48, depth=2, heads=3, mlp_dim=80, dim_head=20, num_classes=5, pool=pool)
        yield dict(
            id=f"vit_pytorch {pool}",
            format="vit_pytorch",
            variant="vit_pytorch",
            overrides=overrides,
            reference=reference | dict(image_size=[32, 48], patch_size=16),
            image_size=[32, 48],
        )


def resampling_cases():
    """Position tables and patch kernels, rectangular too, larger and smaller, in each way."""
    ways = [("bicubic", True, False), ("bicubic", False, False), ("bilinear", True, False)]
    ways += [("bilinear", False, False), ("bilinear", False, True)]
    for old, new in (
        ((4, 4), (7, 7)),
        ((7, 7), (4, 4)),
        ((3, 5), (6, 2)),
        ((5, 4), (5, 9)),
        ((1, 6), (3, 4)),
    ):
        for method, antialias, align_corners in ways:
            options = dict(method=method, antialias=antialias, align_corners=align_corners)
            yield dict(kind="positions", old=old, new=new, prefix=2, **options)
            if not align_corners and old != (1, 6):
                yield dict(kind="patch", old=old, new=new, **options)


def resampling_input(case, seed=0):
    """Returns the table `(1, n, 3)` or the kernel `(height, width, 3, 2)` of a case."""
    rows, columns = case["old"]
    if case["kind"] == "patch":
        return 10 * random_array("kernel", (rows, columns, 3, 2), seed)
    return 10 * random_array("table", (1, case["prefix"] + rows * columns, 3), seed)


def all_cases():
    timm = [timm_case(name) for name in TIMM_NAMES]
    return [*timm, *google_cases(), *huggingface_cases(), *vit_pytorch_cases()]


def write_weights(case, folder, seed=0):
    """Writes a case's weights as its library would, and returns what `build_vit` takes as `weights`."""
    weights = random_weights(case["shapes"], seed)
    if case["format"] == "google":
        np.savez(folder / "model.npz", **weights)
        return folder / "model.npz"
    save_file(weights, folder / "model.safetensors")
    if "config" not in case:
        return folder / "model.safetensors"
    (folder / "config.json").write_text(json.dumps(case["config"]))
    return folder


def build(case, source):
    """Builds the model of a case with the weights at `source`."""
    if "config" in case:  # config.json tells the rest
        return build_vit(weights=source)
    return build_vit(case["variant"], weights=source, **case["overrides"])
