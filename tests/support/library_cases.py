"""Small models of other libraries, whose files `load_weights` reads; `libraries.py` builds them there.

A case says how its library builds the model; the recorded one in `fixtures/libraries.json` adds the names and
shapes of the file, its config.json and what the library computes. Values and images come from generators that
are seeded by name.
"""

import json

import numpy as np
from safetensors.numpy import save_file

from support.cases import random_images, random_weights
from support.torch_files import write_program
from vit_tf import build_vit

SIZES = dict(hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=80)
VISION = dict(**SIZES, image_size=48, patch_size=16)
TEXT = dict(**SIZES, vocab_size=20, max_position_embeddings=8)
BOTH = dict(vision_config=VISION, text_config=TEXT)
DEEP = dict(vision_config=VISION | dict(num_hidden_layers=2), text_config=TEXT)
DECODER = dict(decoder_hidden_size=24, decoder_num_hidden_layers=1, decoder_num_attention_heads=3)
DECODER |= dict(decoder_intermediate_size=32, mask_ratio=0.0)
BEIT = VISION | dict(use_relative_position_bias=True)
SIGLIP2 = dict(**SIZES, num_patches=9, patch_size=16)
# Models of transformers: class, configuration, what is compared: a field of the output, or the mean or the
# first of its tokens.
TRANSFORMERS = [
    ("CLIPVisionModel", VISION, "pooler_output"),
    ("CLIPVisionModelWithProjection", VISION | dict(projection_dim=20), "image_embeds"),
    ("CLIPForImageClassification", BOTH | dict(projection_dim=20, num_labels=5), "logits"),
    ("CLIPModel", DEEP | dict(projection_dim=20), "image_features"),
    ("SiglipVisionModel", VISION, "pooler_output"),
    ("SiglipVisionModel", VISION | dict(vision_use_head=False, image_size=50), "mean"),
    ("SiglipForImageClassification", BOTH | dict(num_labels=5), "logits"),
    ("SiglipModel", BOTH, "image_features"),
    ("Siglip2VisionModel", SIGLIP2, "pooler_output"),
    ("Siglip2Model", dict(vision_config=SIGLIP2, text_config=TEXT), "image_features"),
    ("ViTMAEModel", VISION | dict(mask_ratio=0.0), "token"),
    ("ViTMAEForPreTraining", VISION | DECODER, "token"),
    ("ViTMSNForImageClassification", VISION | dict(num_labels=5), "logits"),
    ("IJepaModel", VISION, "mean"),
    ("IJepaForImageClassification", VISION | dict(num_labels=5), "logits"),
    ("Aimv2VisionModel", VISION, "mean"),
    ("DINOv3ViTModel", VISION | dict(num_register_tokens=2), "pooler_output"),
    ("DINOv3ViTModel", VISION | dict(use_gated_mlp=True, hidden_act="silu", key_bias=True), "pooler_output"),
    ("BeitModel", BEIT, "pooler_output"),
    ("BeitForImageClassification", BEIT | dict(num_labels=5), "logits"),
    ("Aimv2Model", BOTH | dict(projection_dim=20), "mean"),
]
# Those whose modules have other names than their files, since version 5.
MODULES = (
    "BeitModel",
    "DINOv3ViTModel",
    "ViTMAEForPreTraining",
    "ViTMSNForImageClassification",
    "IJepaModel",
)


def transformers_cases():
    for model, config, output in TRANSFORMERS:
        sizes = config.get("vision_config", config)
        side = sizes.get("image_size", 48)
        bare = "" if config.get("vision_use_head", True) else " without a head"
        bare = " gated" if config.get("use_gated_mlp") else bare
        case = dict(library="transformers", model=model, output=output, image_size=[side, side])
        case["reference"] = config
        yield case | dict(id=f"{model}{bare}", names="file")
        if model in MODULES:
            yield case | dict(id=f"{model}{bare} of modules", names="module")


PRESET = dict(patch_size=16, num_layers=1, num_heads=3, hidden_dim=48, image_shape=[48, 48, 3])
DINOV2 = PRESET | dict(intermediate_dim=96, position_embedding_shape=[48, 48, 3])
# Models of keras-hub: backbone, its arguments, and options.
KERAS_HUB = {
    "ViT": ("ViTBackbone", PRESET | dict(mlp_dim=80), {}),
    "ViT classifier": ("ViTBackbone", PRESET | dict(mlp_dim=80, num_layers=2), dict(num_classes=5)),
    "ViT classifier of the mean": (
        "ViTBackbone",
        PRESET | dict(mlp_dim=80, use_class_token=False),
        dict(num_classes=5, pooling="gap"),
    ),
    "ViT in shards": ("ViTBackbone", PRESET | dict(mlp_dim=80), dict(max_shard_size=2e-4)),
    "DINOv2": ("DINOV2Backbone", DINOV2, {}),
    "DINOv2 with registers": (
        "DINOV2Backbone",
        DINOV2 | dict(num_register_tokens=2, use_swiglu_ffn=True, use_mask_token=False),
        {},
    ),
    "DINOv3": ("DINOV3Backbone", PRESET | dict(intermediate_dim=80, num_register_tokens=2), {}),
    "DINOv3 gated": (
        "DINOV3Backbone",
        PRESET | dict(intermediate_dim=80, use_gated_mlp=True, use_key_bias=False, hidden_activation="silu"),
        {},
    ),
    "SigLIP": ("SigLIPBackbone", PRESET | dict(intermediate_dim=80), {}),
}


def keras_hub_cases():
    for name, (backbone, config, options) in KERAS_HUB.items():
        case = dict(id=f"keras-hub {name}", library="keras_hub", model=backbone, options=options)
        yield case | dict(reference=config, image_size=[48, 48])


OURS = dict(image_size=48, patch_size=16, hidden_dim=48, num_layers=1, num_heads=3, mlp_dim=80)
TIMM = dict(img_size=48, embed_dim=48, depth=1, num_heads=3, mlp_ratio=80 / 48 + 1e-9)
OPEN_CLIP = dict(
    embed_dim=20,
    vision_cfg=dict(layers=1, width=48, head_width=16, patch_size=16, image_size=48, mlp_ratio=2.0),
    text_cfg=dict(context_length=8, vocab_size=20, width=24, heads=3, layers=1),
)
TRUNK = dict(timm_model_name="test_vit", timm_pool="token", timm_proj="linear", image_size=64)


# Folders as OpenCLIP writes them for the hub: the settings of the model, and those of its images.
TOWER = dict(layers=2, width=48, head_width=24, patch_size=16, image_size=48, mlp_ratio=2.0)
CLIPA = dict(no_ln_pre=True, pool_type="avg", final_ln_after_pool=True, ls_init_value=1.0)
CLIPA |= dict(act_kwargs=dict(approximate="tanh"), norm_kwargs=dict(eps=1e-6))
EVA = dict(timm_model_name="eva02_tiny_patch14_224", timm_pool="token", timm_proj=None, image_size=224)
SQUASH = dict(mean=[0.5] * 3, std=[0.5] * 3, interpolation="bilinear", resize_mode="squash")
PIXELS = dict(mean=[0.5, 0.25, 0.125], std=[0.5] * 3, interpolation="bicubic", resize_mode="shortest")
OPEN_CLIP_FOLDERS = {
    "OpenCLIP": (TOWER, dict(quick_gelu=True), PIXELS),
    "OpenCLIP of the mean": (TOWER | CLIPA, {}, SQUASH),
    "OpenCLIP with timm": (TRUNK, {}, PIXELS),
    "OpenCLIP with EVA-02": (EVA, {}, PIXELS),
}


def open_clip_cases():
    for name, (vision, options, images) in OPEN_CLIP_FOLDERS.items():
        side = vision["image_size"]
        case = dict(id=name, library="open_clip_folder", images=images, image_size=[side, side])
        yield case | dict(reference=OPEN_CLIP | dict(vision_cfg=vision) | options)


SMALL = dict(img_size=48, patch_size=16, embed_dim=48, depth=2, num_heads=3)
DINO = SMALL | dict(mlp_ratio=80 / 48 + 1e-9)
DINOV2 = DINO | dict(init_values=1.0)
GIANT = DINOV2 | dict(block_chunks=0, num_register_tokens=4, ffn_layer="swiglufused", mlp_ratio=2.5)
DINOV3 = SMALL | dict(ffn_ratio=80 / 48 + 1e-9, layerscale_init=1.0, norm_layer="layernormbf16")
DINOV3 |= dict(n_storage_tokens=4, mask_k_bias=True, pos_embed_rope_dtype="fp32")
PLUS = dict(ffn_layer="swiglu", ffn_ratio=2.5, untie_global_and_local_cls_norm=True)
TOKEN = dict(num_layers=2, pooling="token")  # what these programs return
# Models of the makers' own programs: variant, and the arguments there.
MAKERS = {
    "DINO": ("vit_tiny_patch16_224", DINO),
    "MAE": ("vit_tiny_patch16_224", DINO | dict(decoder_embed_dim=24, decoder_depth=1, decoder_num_heads=3)),
    "DINOv2": ("vit_small_patch14_dinov2", DINOV2 | dict(block_chunks=0)),
    "DINOv2 in chunks": ("vit_small_patch14_dinov2", DINOV2 | dict(block_chunks=2)),
    "DINOv2 with registers": ("vit_giant_patch14_reg4_dinov2", GIANT),
    "DINOv3": ("vit_small_patch16_dinov3_qkvb", DINOV3),
    "DINOv3 gated": ("vit_small_plus_patch16_dinov3_qkvb", DINOV3 | PLUS),
    "DINOv3 without biases": ("vit_small_patch16_dinov3", DINOV3 | dict(qkv_bias=False, n_storage_tokens=0)),
}


def torch_cases():
    """Files of `torch.save`: state dicts, and those of the makers in the dictionaries of their programs."""
    case = dict(image_size=[48, 48], file="model.pth")
    plain = case | dict(variant="vit_tiny_patch16_224", overrides=OURS | dict(num_classes=5))
    sizes = dict(image_size=48, patch_size=16, num_layers=1, num_heads=3, hidden_dim=48, mlp_dim=80)
    for name in ("torchvision", "torchvision of 2022"):
        yield plain | dict(id=name, library="torchvision", reference=sizes | dict(num_classes=5))
    overrides = OURS | dict(mlp_dim=96)
    for name, quick in (("vit_base_patch32_clip_224", False), ("vit_base_patch32_clip_quickgelu_224", True)):
        clip = case | dict(id=f"open_clip {name}", library="open_clip", variant=name, overrides=overrides)
        yield clip | dict(reference=OPEN_CLIP | dict(quick_gelu=quick))
    # OpenAI's own files: a TorchScript program of the same modules.
    program = clip | dict(id="OpenAI", library="openai", file="model.pt")
    yield program | dict(reference=OPEN_CLIP | dict(quick_gelu=True))
    trunk = dict(id="open_clip with timm", library="open_clip", variant="test_vit", image_size=[64, 64])
    yield case | trunk | dict(reference=OPEN_CLIP | dict(vision_cfg=TRUNK), overrides=dict(image_size=64))
    overrides = OURS | dict(num_classes=0)
    for name, variant in (("I-JEPA", "vit_huge_patch14_gap_224"), ("Lightning", "vit_tiny_patch16_224")):
        maker = case | dict(id=name, library="timm", variant=variant, overrides=overrides)
        yield maker | dict(reference=TIMM | dict(patch_size=16, num_classes=0))
    for name, (variant, reference) in MAKERS.items():
        bare = dict(num_registers=0) if reference.get("n_storage_tokens") == 0 else {}
        maker = case | dict(id=name, library="makers", variant=variant, overrides=overrides | TOKEN | bare)
        yield maker | dict(reference=reference)


def library_cases():
    return [*transformers_cases(), *torch_cases(), *open_clip_cases(), *keras_hub_cases()]


def write_case(case, folder, seed=0):
    """Writes the file of a recorded case, with its config.json if it has one, and returns the source."""
    if case["library"] == "keras_hub":
        return write_preset(case, folder, seed)
    arrays = {name: np.asarray(array) for name, array in random_weights(case["shapes"], seed).items()}
    if case["library"] == "openai":
        return write_program(folder / "model.pt", arrays)
    if case["library"] == "open_clip_folder":
        save_file(arrays, folder / "open_clip_model.safetensors")
        (folder / "open_clip_config.json").write_text(json.dumps(case["config"]))
        return folder
    save_file(arrays, folder / "model.safetensors")
    if case.get("config") is None:
        return folder / "model.safetensors"
    (folder / "config.json").write_text(json.dumps(case["config"]))
    return folder


def write_preset(case, folder, seed):
    """Writes a preset of keras-hub, of the `shapes` in its HDF5 files and the `config` in the others."""
    import h5py

    for file, shapes in case["shapes"].items():
        with h5py.File(folder / file, "w") as h5:
            for name, array in preset_arrays(shapes, seed).items():
                h5[name] = array
    for file, content in case["config"].items():
        (folder / file).write_text(json.dumps(content))
    return folder


def preset_arrays(shapes, seed):
    """Returns random values by the paths in an HDF5 file; indices stay zero."""
    arrays = random_weights({n: s for n, s in shapes.items() if s != "index"}, seed)
    return {name: arrays.get(name, np.zeros(1, "int64")) for name in shapes}


def build_case(case, source):
    """Builds our model from the source of a case."""
    return build_vit(case.get("variant"), weights=source, **case.get("overrides", {}))


def case_images(case, seed=0):
    return np.asarray(random_images(case, seed))
