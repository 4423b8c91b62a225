"""The ViT paper's sizes, and timm's and others' plain models of these and nearby sizes."""

from vit_tf.config import ViTConfig
from vit_tf.variants.sizes import (
    BASE,
    BETWIXT,
    GAP,
    GIANT,
    GIGANTIC,
    HUGE,
    LARGE,
    LAYER_SCALE,
    MEDIUM,
    SMALL,
    TINY,
)

GAP_NO_BIAS = dict(layer_scale_init=1e-6, pooling="avg", qkv_bias=False)
XP = dict(block="parallel_scaling", norm="rms", pre_norm=True, qk_norm=True)
XP |= dict(patch_bias=False, qkv_bias=False, prefix_positions=False)
THINGS = dict(layer_scale_init=1e-5, block="parallel_things")
RPN = dict(block="res_post", layer_scale_init=1e-5, pooling="avg", final_norm="pooled", qkv_bias=False)

FAMILIES = {
    # The ViT paper's and DeiT's sizes; checkpoints of DINO, MAE, AugReg, SAM and MIIL fit them.
    "ViT": {
        "vit_tiny_patch16_224": ViTConfig(224, 16, **TINY),
        "vit_tiny_patch16_384": ViTConfig(384, 16, **TINY),
        "vit_small_patch32_224": ViTConfig(224, 32, **SMALL),
        "vit_small_patch32_384": ViTConfig(384, 32, **SMALL),
        "vit_small_patch16_224": ViTConfig(224, 16, **SMALL),
        "vit_small_patch16_384": ViTConfig(384, 16, **SMALL),
        "vit_small_patch8_224": ViTConfig(224, 8, **SMALL, num_classes=0),
        "vit_base_patch32_224": ViTConfig(224, 32, **BASE),
        "vit_base_patch32_384": ViTConfig(384, 32, **BASE),
        "vit_base_patch16_224": ViTConfig(224, 16, **BASE),
        "vit_base_patch16_384": ViTConfig(384, 16, **BASE),
        "vit_base_patch8_224": ViTConfig(224, 8, **BASE),
        "vit_large_patch32_224": ViTConfig(224, 32, **LARGE),
        "vit_large_patch32_384": ViTConfig(384, 32, **LARGE),
        "vit_large_patch16_224": ViTConfig(224, 16, **LARGE),
        "vit_large_patch16_384": ViTConfig(384, 16, **LARGE),
        "vit_large_patch14_224": ViTConfig(224, 14, **LARGE),
        "vit_huge_patch14_224": ViTConfig(224, 14, **HUGE),
        "vit_giant_patch14_224": ViTConfig(224, 14, **GIANT),
        "vit_gigantic_patch14_224": ViTConfig(224, 14, **GIGANTIC),
        "vit_base_patch16_224_miil": ViTConfig(224, 16, **BASE, qkv_bias=False, num_classes=11221),
        "vit_base_patch32_plus_256": ViTConfig(256, 32, 896, 12, 14, 3584, **LAYER_SCALE),
        "vit_base_patch16_plus_240": ViTConfig(240, 16, 896, 12, 14, 3584, **LAYER_SCALE),
    },
    # Average pooling, no class token: timm's own and I-JEPA (https://arxiv.org/abs/2301.08243).
    "pooled": {
        "vit_medium_patch16_gap_240": ViTConfig(240, 16, **MEDIUM, **GAP_NO_BIAS, num_classes=11821),
        "vit_medium_patch16_gap_256": ViTConfig(256, 16, **MEDIUM, **GAP_NO_BIAS),
        "vit_medium_patch16_gap_384": ViTConfig(384, 16, **MEDIUM, **GAP_NO_BIAS),
        "vit_betwixt_patch16_gap_256": ViTConfig(256, 16, **BETWIXT, **GAP_NO_BIAS),
        "vit_base_patch16_gap_224": ViTConfig(224, 16, 768, 12, 16, 3072, **GAP),
        "vit_huge_patch14_gap_224": ViTConfig(224, 14, **HUGE, **GAP, num_classes=0),
        "vit_huge_patch16_gap_448": ViTConfig(448, 16, **HUGE, **GAP, num_classes=0),
        "vit_giant_patch16_gap_224": ViTConfig(224, 16, **GIANT, **GAP, num_classes=0),
    },
    # Norms at the ends of the branches.
    "res-post": {
        "vit_base_patch16_rpn_224": ViTConfig(224, 16, **BASE, **RPN),
    },
    # "Three things everyone should know about Vision Transformers" (https://arxiv.org/abs/2203.09795).
    "deep": {
        "vit_small_patch16_36x1_224": ViTConfig(224, 16, 384, 36, 6, 1536, **LAYER_SCALE),
    },
    "parallel things": {
        "vit_small_patch16_18x2_224": ViTConfig(224, 16, 384, 18, 6, 1536, **THINGS),
        "vit_base_patch16_18x2_224": ViTConfig(224, 16, 768, 18, 12, 3072, **THINGS),
    },
    # ViT-22B (https://arxiv.org/abs/2302.05442).
    "parallel scaling": {
        "vit_base_patch16_xp_224": ViTConfig(224, 16, **BASE, **XP),
        "vit_large_patch14_xp_224": ViTConfig(224, 14, **LARGE, **XP),
        "vit_huge_patch14_xp_224": ViTConfig(224, 14, **HUGE, **XP),
    },
    # https://arxiv.org/abs/2212.08013
    "FlexiViT": {
        "flexivit_small": ViTConfig(240, 16, **SMALL, prefix_positions=False),
        "flexivit_base": ViTConfig(240, 16, **BASE, prefix_positions=False),
        "flexivit_large": ViTConfig(240, 16, **LARGE, prefix_positions=False),
    },
}
