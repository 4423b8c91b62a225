"""The table of named variants: plain data, one line a variant where one line serves.

Names and switches are those of timm 1.0.31 (https://github.com/huggingface/pytorch-image-models,
`models/vision_transformer.py` and `models/deit.py`), so that its checkpoints' names say which variant
they fit. `num_classes` is that of timm's default checkpoint for the name: 0 where it has no head, the
width of the joint space for CLIP. The comments cite the papers that the sizes and switches come from.
"""

import fnmatch
from dataclasses import fields, replace

from vit_tf.checks import cut, shown
from vit_tf.config import ViTConfig, suggestion

# Width, blocks, heads, width of the MLP.
TINY = dict(hidden_dim=192, num_layers=12, num_heads=3, mlp_dim=768)
SMALL = dict(hidden_dim=384, num_layers=12, num_heads=6, mlp_dim=1536)
MEDIUM = dict(hidden_dim=512, num_layers=12, num_heads=8, mlp_dim=2048)
BETWIXT = dict(hidden_dim=640, num_layers=12, num_heads=10, mlp_dim=2560)
BASE = dict(hidden_dim=768, num_layers=12, num_heads=12, mlp_dim=3072)
LARGE = dict(hidden_dim=1024, num_layers=24, num_heads=16, mlp_dim=4096)
SO400M = dict(hidden_dim=1152, num_layers=27, num_heads=16, mlp_dim=4304)
HUGE = dict(hidden_dim=1280, num_layers=32, num_heads=16, mlp_dim=5120)
GIANT = dict(hidden_dim=1408, num_layers=40, num_heads=16, mlp_dim=6144)
GIANTOPT = dict(hidden_dim=1536, num_layers=40, num_heads=16, mlp_dim=6144)
GIGANTIC = dict(hidden_dim=1664, num_layers=48, num_heads=16, mlp_dim=8192)
WEE = dict(hidden_dim=256, num_layers=14, num_heads=4, mlp_dim=1280)
LITTLE = dict(hidden_dim=320, num_layers=14, num_heads=5, mlp_dim=1792)
SO150M = dict(hidden_dim=896, num_layers=18, num_heads=14, mlp_dim=2304)
SO150M2 = dict(hidden_dim=832, num_layers=21, num_heads=13, mlp_dim=2176)
AIMV2_LARGE = dict(hidden_dim=1024, num_layers=24, num_heads=8, mlp_dim=2816)
AIMV2_HUGE = dict(hidden_dim=1536, num_layers=24, num_heads=12, mlp_dim=4096)
AIMV2_1B = dict(hidden_dim=2048, num_layers=24, num_heads=16, mlp_dim=5632)
AIMV2_3B = dict(hidden_dim=3072, num_layers=24, num_heads=24, mlp_dim=8192)
GIANT_DINOV2 = dict(hidden_dim=1536, num_layers=40, num_heads=24, mlp_dim=4096)

# What sets families apart.
CLIP = dict(pre_norm=True, patch_bias=False, norm_epsilon=1e-5)
CLIP_QUICK = dict(pre_norm=True, patch_bias=False, norm_epsilon=1e-5, activation="quick_gelu")
SIGLIP = dict(pooling="map")
SIGLIP2 = dict(pooling="map", activation="gelu_tanh")
GAP = dict(pooling="avg")
GAP2 = dict(pooling="avg", activation="gelu_tanh")
AIMV2 = dict(
    pooling="avg",
    qkv_bias=False,
    projection_bias=False,
    norm="rms",
    norm_epsilon=1e-5,
    embedding_norm=True,
    mlp="swiglu_split",
    activation="silu",
)
DEIT3 = dict(layer_scale_init=1e-6, prefix_positions=False)
DINOV2 = dict(layer_scale_init=1e-5)
DINOV2_REG = dict(layer_scale_init=1e-5, num_registers=4, prefix_positions=False)
TIPSV2 = dict(layer_scale_init=1.0, num_registers=1, prefix_positions=False)
SWIGLU = dict(mlp="swiglu", activation="silu")
REG1_GAP = dict(
    layer_scale_init=1e-5, pooling="avg", final_norm="pooled", num_registers=1, prefix_positions=False
)
REG4_GAP = dict(
    layer_scale_init=1e-5, pooling="avg", final_norm="pooled", num_registers=4, prefix_positions=False
)
SO150M2_GAP = dict(layer_scale_init=1e-5, pooling="avg", final_norm="pooled", num_registers=1, qkv_bias=False)
GAP_NO_BIAS = dict(layer_scale_init=1e-6, pooling="avg", qkv_bias=False)
XP = dict(
    block="parallel_scaling",
    norm="rms",
    pre_norm=True,
    patch_bias=False,
    qk_norm=True,
    qkv_bias=False,
    prefix_positions=False,
)
BEIT3 = dict(pooling="avg", class_token=True, final_norm="pooled", sub_norm=True, norm_epsilon=1e-5)
EVA = dict(pooling="avg", class_token=True, final_norm="pooled")
RPN = dict(block="res_post", layer_scale_init=1e-5, pooling="avg", final_norm="pooled", qkv_bias=False)
RADIO = dict(final_norm="none", prefix_positions=False)
VIT_PYTORCH = dict(
    patch_stem="patches", patch_norm=True, embedding_norm=True, qkv_bias=False, norm_epsilon=1e-5
)

VARIANTS = {
    # The ViT paper's and DeiT's sizes, DINO, MAE, AugReg, SAM, MIIL
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
    # Mean of the patches, no class token: timm's trials and I-JEPA (https://arxiv.org/abs/2301.08243)
    "vit_medium_patch16_gap_240": ViTConfig(240, 16, **MEDIUM, **GAP_NO_BIAS, num_classes=11821),
    "vit_medium_patch16_gap_256": ViTConfig(256, 16, **MEDIUM, **GAP_NO_BIAS),
    "vit_medium_patch16_gap_384": ViTConfig(384, 16, **MEDIUM, **GAP_NO_BIAS),
    "vit_betwixt_patch16_gap_256": ViTConfig(256, 16, **BETWIXT, **GAP_NO_BIAS),
    "vit_base_patch16_gap_224": ViTConfig(224, 16, 768, 12, 16, 3072, **GAP),
    "vit_huge_patch14_gap_224": ViTConfig(224, 14, **HUGE, **GAP, num_classes=0),
    "vit_huge_patch16_gap_448": ViTConfig(448, 16, **HUGE, **GAP, num_classes=0),
    "vit_giant_patch16_gap_224": ViTConfig(224, 16, **GIANT, **GAP, num_classes=0),
    # CLIP's image towers
    "vit_xsmall_patch16_clip_224": ViTConfig(224, 16, 256, 10, 4, 1024, **CLIP, num_classes=512),
    "vit_medium_patch32_clip_224": ViTConfig(224, 32, **MEDIUM, **CLIP, num_classes=512),
    "vit_medium_patch16_clip_224": ViTConfig(224, 16, **MEDIUM, **CLIP, num_classes=512),
    "vit_betwixt_patch32_clip_224": ViTConfig(224, 32, **BETWIXT, **CLIP, num_classes=512),
    "vit_base_patch32_clip_224": ViTConfig(224, 32, **BASE, **CLIP),
    "vit_base_patch32_clip_256": ViTConfig(256, 32, **BASE, **CLIP, num_classes=512),
    "vit_base_patch32_clip_384": ViTConfig(384, 32, **BASE, **CLIP),
    "vit_base_patch32_clip_448": ViTConfig(448, 32, **BASE, **CLIP),
    "vit_base_patch16_clip_224": ViTConfig(224, 16, **BASE, **CLIP),
    "vit_base_patch16_clip_384": ViTConfig(384, 16, **BASE, **CLIP),
    "vit_base_patch16_plus_clip_240": ViTConfig(240, 16, 896, 12, 14, 3584, **CLIP, num_classes=640),
    "vit_large_patch14_clip_224": ViTConfig(224, 14, **LARGE, **CLIP),
    "vit_large_patch14_clip_336": ViTConfig(336, 14, **LARGE, **CLIP),
    "vit_huge_patch14_clip_224": ViTConfig(224, 14, **HUGE, **CLIP),
    "vit_huge_patch14_clip_336": ViTConfig(336, 14, **HUGE, **CLIP),
    "vit_huge_patch14_clip_378": ViTConfig(378, 14, **HUGE, **CLIP, num_classes=1024),
    "vit_giant_patch14_clip_224": ViTConfig(224, 14, **GIANT, **CLIP, num_classes=1024),
    "vit_gigantic_patch14_clip_224": ViTConfig(224, 14, **GIGANTIC, **CLIP, num_classes=1280),
    "vit_gigantic_patch14_clip_378": ViTConfig(378, 14, **GIGANTIC, **CLIP, num_classes=1280),
    # CLIP with the quick GELU of OpenAI's weights
    "vit_base_patch32_clip_quickgelu_224": ViTConfig(224, 32, **BASE, **CLIP_QUICK, num_classes=512),
    "vit_base_patch16_clip_quickgelu_224": ViTConfig(224, 16, **BASE, **CLIP_QUICK, num_classes=512),
    "vit_large_patch14_clip_quickgelu_224": ViTConfig(224, 14, **LARGE, **CLIP_QUICK, num_classes=768),
    "vit_large_patch14_clip_quickgelu_336": ViTConfig(336, 14, **LARGE, **CLIP_QUICK, num_classes=768),
    "vit_huge_patch14_clip_quickgelu_224": ViTConfig(224, 14, **HUGE, **CLIP_QUICK, num_classes=1024),
    "vit_huge_patch14_clip_quickgelu_378": ViTConfig(378, 14, **HUGE, **CLIP_QUICK, num_classes=1024),
    "vit_gigantic_patch14_clip_quickgelu_224": ViTConfig(224, 14, **GIGANTIC, **CLIP_QUICK, num_classes=1280),
    # timm's trials: wider, norms at the branches' ends
    "vit_base_patch32_plus_256": ViTConfig(256, 32, 896, 12, 14, 3584, **DINOV2),
    "vit_base_patch16_plus_240": ViTConfig(240, 16, 896, 12, 14, 3584, **DINOV2),
    "vit_base_patch16_rpn_224": ViTConfig(224, 16, **BASE, **RPN),
    # Deep and parallel (https://arxiv.org/abs/2203.09795)
    "vit_small_patch16_36x1_224": ViTConfig(224, 16, 384, 36, 6, 1536, **DINOV2),
    "vit_small_patch16_18x2_224": ViTConfig(224, 16, 384, 18, 6, 1536, **DINOV2, block="parallel_things"),
    "vit_base_patch16_18x2_224": ViTConfig(224, 16, 768, 18, 12, 3072, **DINOV2, block="parallel_things"),
    # EVA (https://arxiv.org/abs/2211.07636)
    "eva_large_patch14_196": ViTConfig(196, 14, **LARGE, **EVA),
    "eva_large_patch14_336": ViTConfig(336, 14, **LARGE, **EVA),
    # FlexiViT (https://arxiv.org/abs/2212.08013)
    "flexivit_small": ViTConfig(240, 16, **SMALL, prefix_positions=False),
    "flexivit_base": ViTConfig(240, 16, **BASE, prefix_positions=False),
    "flexivit_large": ViTConfig(240, 16, **LARGE, prefix_positions=False),
    # Parallel scaling (ViT-22B, https://arxiv.org/abs/2302.05442)
    "vit_base_patch16_xp_224": ViTConfig(224, 16, **BASE, **XP),
    "vit_large_patch14_xp_224": ViTConfig(224, 14, **LARGE, **XP),
    "vit_huge_patch14_xp_224": ViTConfig(224, 14, **HUGE, **XP),
    # DINOv2 (https://arxiv.org/abs/2304.07193), without and with registers (https://arxiv.org/abs/2309.16588)
    "vit_small_patch14_dinov2": ViTConfig(518, 14, **SMALL, **DINOV2, num_classes=0),
    "vit_base_patch14_dinov2": ViTConfig(518, 14, **BASE, **DINOV2, num_classes=0),
    "vit_large_patch14_dinov2": ViTConfig(518, 14, **LARGE, **DINOV2, num_classes=0),
    "vit_giant_patch14_dinov2": ViTConfig(
        518, 14, **GIANT_DINOV2, **SWIGLU, layer_scale_init=1e-5, num_classes=0
    ),
    "vit_small_patch14_reg4_dinov2": ViTConfig(518, 14, **SMALL, **DINOV2_REG, num_classes=0),
    "vit_base_patch14_reg4_dinov2": ViTConfig(518, 14, **BASE, **DINOV2_REG, num_classes=0),
    "vit_large_patch14_reg4_dinov2": ViTConfig(518, 14, **LARGE, **DINOV2_REG, num_classes=0),
    "vit_giant_patch14_reg4_dinov2": ViTConfig(
        518, 14, **GIANT_DINOV2, **DINOV2_REG, **SWIGLU, num_classes=0
    ),
    # TIPSv2 (https://arxiv.org/abs/2604.12012)
    "vit_base_patch14_reg1_tipsv2": ViTConfig(448, 14, **BASE, **TIPSV2, num_classes=0),
    "vit_large_patch14_reg1_tipsv2": ViTConfig(448, 14, **LARGE, **TIPSV2, num_classes=0),
    "vit_so400m_patch14_reg1_tipsv2": ViTConfig(448, 14, **SO400M, **TIPSV2, num_classes=0),
    "vit_giant_patch14_reg1_tipsv2": ViTConfig(448, 14, **GIANT_DINOV2, **TIPSV2, **SWIGLU, num_classes=0),
    # SigLIP (https://arxiv.org/abs/2303.15343) and SigLIP 2 (https://arxiv.org/abs/2502.14786)
    "vit_base_patch32_siglip_256": ViTConfig(256, 32, **BASE, **SIGLIP2, num_classes=0),
    "vit_base_patch16_siglip_224": ViTConfig(224, 16, **BASE, **SIGLIP, num_classes=0),
    "vit_base_patch16_siglip_256": ViTConfig(256, 16, **BASE, **SIGLIP, num_classes=0),
    "vit_base_patch16_siglip_384": ViTConfig(384, 16, **BASE, **SIGLIP, num_classes=0),
    "vit_base_patch16_siglip_512": ViTConfig(512, 16, **BASE, **SIGLIP, num_classes=0),
    "vit_large_patch16_siglip_256": ViTConfig(256, 16, **LARGE, **SIGLIP, num_classes=0),
    "vit_large_patch16_siglip_384": ViTConfig(384, 16, **LARGE, **SIGLIP, num_classes=0),
    "vit_large_patch16_siglip_512": ViTConfig(512, 16, **LARGE, **SIGLIP2, num_classes=0),
    "vit_so400m_patch14_siglip_224": ViTConfig(224, 14, **SO400M, **SIGLIP, num_classes=0),
    "vit_so400m_patch14_siglip_378": ViTConfig(378, 14, **SO400M, **SIGLIP, num_classes=0),
    "vit_so400m_patch14_siglip_384": ViTConfig(
        384, 14, **SO400M, **SIGLIP, allow_remainder=True, num_classes=0
    ),
    "vit_so400m_patch16_siglip_256": ViTConfig(256, 16, **SO400M, **SIGLIP2, num_classes=0),
    "vit_so400m_patch16_siglip_384": ViTConfig(384, 16, **SO400M, **SIGLIP2, num_classes=0),
    "vit_so400m_patch16_siglip_512": ViTConfig(512, 16, **SO400M, **SIGLIP2, num_classes=0),
    "vit_giantopt_patch16_siglip_256": ViTConfig(256, 16, **GIANTOPT, **SIGLIP2, num_classes=0),
    "vit_giantopt_patch16_siglip_384": ViTConfig(384, 16, **GIANTOPT, **SIGLIP2, num_classes=0),
    # SigLIP and SigLIP 2 with the mean of the patches in place of the attention pooling, and PaliGemma
    "vit_base_patch32_siglip_gap_256": ViTConfig(256, 32, **BASE, **GAP2, num_classes=0),
    "vit_base_patch16_siglip_gap_224": ViTConfig(224, 16, **BASE, **GAP, num_classes=0),
    "vit_base_patch16_siglip_gap_256": ViTConfig(256, 16, **BASE, **GAP, num_classes=0),
    "vit_base_patch16_siglip_gap_384": ViTConfig(384, 16, **BASE, **GAP, num_classes=0),
    "vit_base_patch16_siglip_gap_512": ViTConfig(512, 16, **BASE, **GAP, num_classes=0),
    "vit_large_patch16_siglip_gap_256": ViTConfig(256, 16, **LARGE, **GAP, num_classes=0),
    "vit_large_patch16_siglip_gap_384": ViTConfig(384, 16, **LARGE, **GAP, num_classes=0),
    "vit_large_patch16_siglip_gap_512": ViTConfig(512, 16, **LARGE, **GAP2, num_classes=0),
    "vit_so400m_patch14_siglip_gap_224": ViTConfig(224, 14, **SO400M, **GAP, num_classes=0),
    "vit_so400m_patch14_siglip_gap_378": ViTConfig(378, 14, **SO400M, **GAP, num_classes=0),
    "vit_so400m_patch14_siglip_gap_384": ViTConfig(
        384, 14, **SO400M, **GAP, allow_remainder=True, num_classes=0
    ),
    "vit_so400m_patch14_siglip_gap_448": ViTConfig(448, 14, **SO400M, **GAP, num_classes=0),
    "vit_so400m_patch14_siglip_gap_896": ViTConfig(896, 14, **SO400M, **GAP, num_classes=0),
    "vit_so400m_patch16_siglip_gap_256": ViTConfig(256, 16, **SO400M, **GAP2, num_classes=0),
    "vit_so400m_patch16_siglip_gap_384": ViTConfig(384, 16, **SO400M, **GAP2, num_classes=0),
    "vit_so400m_patch16_siglip_gap_512": ViTConfig(512, 16, **SO400M, **GAP2, num_classes=0),
    "vit_giantopt_patch16_siglip_gap_256": ViTConfig(256, 16, **GIANTOPT, **GAP2, num_classes=0),
    "vit_giantopt_patch16_siglip_gap_384": ViTConfig(384, 16, **GIANTOPT, **GAP2, num_classes=0),
    # timm's own with registers; those with a d have differential attention, with a p parallel scaling
    "vit_wee_patch16_reg1_gap_256": ViTConfig(256, 16, **WEE, **REG1_GAP),
    "vit_dwee_patch16_reg1_gap_256": ViTConfig(256, 16, **WEE, **REG1_GAP, attention="differential"),
    "vit_pwee_patch16_reg1_gap_256": ViTConfig(
        256, 16, 256, 16, 4, 1280, **REG1_GAP, block="parallel_scaling"
    ),
    "vit_dpwee_patch16_reg1_gap_256": ViTConfig(
        256, 16, 256, 16, 4, 1280, **REG1_GAP, block="parallel_scaling", attention="differential"
    ),
    "vit_little_patch16_reg1_gap_256": ViTConfig(256, 16, **LITTLE, **REG1_GAP),
    "vit_dlittle_patch16_reg1_gap_256": ViTConfig(256, 16, **LITTLE, **REG1_GAP, attention="differential"),
    "vit_little_patch16_reg4_gap_256": ViTConfig(256, 16, **LITTLE, **REG4_GAP),
    "vit_medium_patch16_reg1_gap_256": ViTConfig(256, 16, **MEDIUM, **REG1_GAP),
    "vit_medium_patch16_reg4_gap_256": ViTConfig(256, 16, **MEDIUM, **REG4_GAP),
    "vit_mediumd_patch16_reg4_gap_256": ViTConfig(256, 16, 512, 20, 8, 2048, **REG4_GAP),
    "vit_mediumd_patch16_reg4_gap_384": ViTConfig(384, 16, 512, 20, 8, 2048, **REG4_GAP),
    "vit_betwixt_patch16_reg1_gap_256": ViTConfig(256, 16, **BETWIXT, **REG1_GAP),
    "vit_betwixt_patch16_reg4_gap_256": ViTConfig(256, 16, **BETWIXT, **REG4_GAP),
    "vit_betwixt_patch16_reg4_gap_384": ViTConfig(384, 16, **BETWIXT, **REG4_GAP),
    "vit_base_patch16_reg4_gap_256": ViTConfig(
        256, 16, **BASE, **GAP, final_norm="pooled", prefix_positions=False, num_registers=4
    ),
    # Shape-optimised (https://arxiv.org/abs/2305.13035)
    "vit_so150m_patch16_reg4_map_256": ViTConfig(256, 16, **SO150M, **SIGLIP, num_registers=4),
    "vit_so150m_patch16_reg4_gap_256": ViTConfig(256, 16, **SO150M, **GAP, num_registers=4),
    "vit_so150m_patch16_reg4_gap_384": ViTConfig(384, 16, **SO150M, **GAP, num_registers=4),
    "vit_so150m2_patch16_reg1_gap_256": ViTConfig(256, 16, **SO150M2, **SO150M2_GAP),
    "vit_so150m2_patch16_reg1_gap_384": ViTConfig(384, 16, **SO150M2, **SO150M2_GAP),
    "vit_so150m2_patch16_reg1_gap_448": ViTConfig(448, 16, **SO150M2, **SO150M2_GAP),
    # InternViT (https://arxiv.org/abs/2410.16261)
    "vit_intern300m_patch14_448": ViTConfig(
        448, 14, **LARGE, layer_scale_init=0.1, final_norm="none", num_classes=0
    ),
    # AIMv2 (https://arxiv.org/abs/2411.14402)
    "aimv2_large_patch14_224": ViTConfig(224, 14, **AIMV2_LARGE, **AIMV2, num_classes=0),
    "aimv2_huge_patch14_224": ViTConfig(224, 14, **AIMV2_HUGE, **AIMV2, num_classes=0),
    "aimv2_1b_patch14_224": ViTConfig(224, 14, **AIMV2_1B, **AIMV2, num_classes=0),
    "aimv2_3b_patch14_224": ViTConfig(224, 14, **AIMV2_3B, **AIMV2, num_classes=0),
    "aimv2_large_patch14_336": ViTConfig(336, 14, **AIMV2_LARGE, **AIMV2, num_classes=0),
    "aimv2_huge_patch14_336": ViTConfig(336, 14, **AIMV2_HUGE, **AIMV2, num_classes=0),
    "aimv2_1b_patch14_336": ViTConfig(336, 14, **AIMV2_1B, **AIMV2, num_classes=0),
    "aimv2_3b_patch14_336": ViTConfig(336, 14, **AIMV2_3B, **AIMV2, num_classes=0),
    "aimv2_large_patch14_448": ViTConfig(448, 14, **AIMV2_LARGE, **AIMV2, num_classes=0),
    "aimv2_huge_patch14_448": ViTConfig(448, 14, **AIMV2_HUGE, **AIMV2, num_classes=0),
    "aimv2_1b_patch14_448": ViTConfig(448, 14, **AIMV2_1B, **AIMV2, num_classes=0),
    "aimv2_3b_patch14_448": ViTConfig(448, 14, **AIMV2_3B, **AIMV2, num_classes=0),
    # Small ones to try things on
    "test_vit": ViTConfig(160, 16, 64, 6, 2, 192),
    "test_vit2": ViTConfig(
        160, 16, 64, 8, 2, 192, **GAP, layer_scale_init=1e-5, final_norm="pooled", num_registers=1
    ),
    "test_vit3": ViTConfig(
        160, 16, 96, 9, 3, 192, **SIGLIP, layer_scale_init=1e-5, num_registers=1, pool_prefix=True
    ),
    "test_vit4": ViTConfig(
        160, 16, 96, 9, 3, 288, **GAP, layer_scale_init=1e-5, norm="rms", final_norm="pooled", num_registers=1
    ),
    # BEiT-3 (https://arxiv.org/abs/2208.10442)
    "beit3_base_patch16_224": ViTConfig(224, 16, **BASE, **BEIT3),
    "beit3_large_patch16_224": ViTConfig(224, 16, **LARGE, **BEIT3),
    "beit3_giant_patch14_224": ViTConfig(224, 14, **GIANT, **BEIT3),
    "beit3_giant_patch14_336": ViTConfig(336, 14, **GIANT, **BEIT3),
    # C-RADIO (https://arxiv.org/abs/2412.07679)
    "vit_base_patch16_radio_v3": ViTConfig(
        512, 16, **BASE, **RADIO, layer_scale_init=1e-5, num_registers=7, num_classes=0
    ),
    "vit_large_patch16_radio_v3": ViTConfig(
        512, 16, **LARGE, **RADIO, layer_scale_init=1e-5, num_registers=7, num_classes=0
    ),
    "vit_huge_patch16_radio_v3": ViTConfig(512, 16, **HUGE, **RADIO, num_registers=7, num_classes=0),
    "vit_giant_patch16_radio_v3": ViTConfig(
        512, 16, 1536, 40, 24, 6144, **RADIO, num_registers=7, num_classes=0
    ),
    "vit_so400m_patch16_radio_v4": ViTConfig(512, 16, **SO400M, **RADIO, num_registers=9, num_classes=0),
    "vit_huge_patch16_radio_v4": ViTConfig(512, 16, **HUGE, **RADIO, num_registers=9, num_classes=0),
    # DeiT (https://arxiv.org/abs/2012.12877)
    "deit_tiny_patch16_224": ViTConfig(224, 16, **TINY),
    "deit_small_patch16_224": ViTConfig(224, 16, **SMALL),
    "deit_base_patch16_224": ViTConfig(224, 16, **BASE),
    "deit_base_patch16_384": ViTConfig(384, 16, **BASE),
    "deit_tiny_distilled_patch16_224": ViTConfig(224, 16, **TINY, distillation_token=True),
    "deit_small_distilled_patch16_224": ViTConfig(224, 16, **SMALL, distillation_token=True),
    "deit_base_distilled_patch16_224": ViTConfig(224, 16, **BASE, distillation_token=True),
    "deit_base_distilled_patch16_384": ViTConfig(384, 16, **BASE, distillation_token=True),
    # DeiT III (https://arxiv.org/abs/2204.07118)
    "deit3_small_patch16_224": ViTConfig(224, 16, **SMALL, **DEIT3),
    "deit3_small_patch16_384": ViTConfig(384, 16, **SMALL, **DEIT3),
    "deit3_medium_patch16_224": ViTConfig(224, 16, **MEDIUM, **DEIT3),
    "deit3_base_patch16_224": ViTConfig(224, 16, **BASE, **DEIT3),
    "deit3_base_patch16_384": ViTConfig(384, 16, **BASE, **DEIT3),
    "deit3_large_patch16_224": ViTConfig(224, 16, **LARGE, **DEIT3),
    "deit3_large_patch16_384": ViTConfig(384, 16, **LARGE, **DEIT3),
    "deit3_huge_patch14_224": ViTConfig(224, 14, **HUGE, **DEIT3),
    # lucidrains' vit-pytorch (https://github.com/lucidrains/vit-pytorch), the sizes of its README.
    "vit_pytorch": ViTConfig(256, 32, 1024, 6, 16, 2048, head_dim=64, **VIT_PYTORCH),
    # Small models for CIFAR-10: the Keras tutorial's with a class token, and our own.
    "vit_cifar10_tutorial": ViTConfig(
        72, 6, 64, 8, 4, 128, dropout_rate=0.1, attention_dropout_rate=0.1, num_classes=10
    ),
    "vit_cifar10": ViTConfig(
        32, 4, 192, 4, 6, 384, pooling="avg", patch_stem="whitened", activation="relu", num_classes=10
    ),
}

ALIASES = {
    "vit_ti16": "vit_tiny_patch16_224",
    "vit_s16": "vit_small_patch16_224",
    "vit_s32": "vit_small_patch32_224",
    "vit_b16": "vit_base_patch16_224",
    "vit_b32": "vit_base_patch32_224",
    "vit_l14": "vit_large_patch14_224",
    "vit_l16": "vit_large_patch16_224",
    "vit_l32": "vit_large_patch32_224",
    "vit_h14": "vit_huge_patch14_224",
}


# The first pattern that a name matches tells its family.
FAMILIES = {
    "*quickgelu*": "CLIP (OpenAI)",
    "*_clip_*": "CLIP",
    "*siglip*": "SigLIP",
    "*reg?_dinov2": "DINOv2 with registers",
    "*dinov2": "DINOv2",
    "*tipsv2": "TIPSv2",
    "*radio*": "RADIO",
    "*intern*": "InternViT",
    "*_xp_*": "parallel scaling",
    "*36x1*": "deep",
    "*18x2*": "parallel things",
    "*rpn*": "res-post",
    "*so150m*": "so150m",
    "*reg?_gap*": "registers, pooled",
    "*_gap_*": "pooled",
    "vit_pytorch": "vit-pytorch",
    "vit_cifar10*": "CIFAR-10",
    "test_*": "test",
    "deit3*": "DeiT III",
    "deit*distilled*": "DeiT distilled",
    "deit*": "DeiT",
    "beit3*": "BEiT-3",
    "aimv2*": "AIMv2",
    "flexivit*": "FlexiViT",
    "eva*": "EVA",
    "*": "ViT",
}


def family(name):
    """Returns the name of a variant's family, such as "DINOv2"."""
    return next(label for pattern, label in FAMILIES.items() if fnmatch.fnmatchcase(name, pattern))


def resampling(name):
    """Returns how timm resamples the weights of a variant to other sizes, as a dict of options."""
    bilinear = name in VARIANTS and family(name) in ("FlexiViT", "RADIO")
    return {
        "method": "bilinear" if bilinear else "bicubic",
        "antialias": not bilinear,
        "align_corners": name in ("vit_base_patch16_radio_v3", "vit_huge_patch16_radio_v3"),
    }


def list_models(pattern="*"):
    """Returns the sorted names of the variants that match a shell pattern, such as "vit_*_384".

    Aliases (`vit_b16`) are listed only where the pattern matches no full name.
    """
    names = fnmatch.filter(VARIANTS, pattern) or fnmatch.filter(ALIASES, pattern)
    return sorted(names)


def get_variant(name, /, **overrides):
    """Returns the variant called `name`, or its alias, with some fields replaced.

    Raises:
        ValueError: unknown name, unknown field, or a value that does not fit.
    """
    name = ALIASES.get(name, name) if isinstance(name, str) else name
    if not isinstance(name, str) or name not in VARIANTS:
        nearest = suggestion(name, [*VARIANTS, *ALIASES])
        architecture, _, tag = str(name).partition(".")
        if tag and architecture in VARIANTS:
            nearest = f" (a checkpoint of {architecture!r}: give it as `weights='hf:timm/{name}'`)"
        raise ValueError(
            f"unknown variant {shown(name)}{cut(nearest)}: `vit_tf.list_models()` lists the "
            f"{len(VARIANTS)} names"
        )
    known = [field.name for field in fields(ViTConfig)]
    for override in overrides:
        if override not in known:
            raise ValueError(
                f"unknown hyperparameter {shown(override)}{suggestion(override, known)}; "
                f"those of a variant are {', '.join(known)}"
            )
    return replace(VARIANTS[name], **overrides)
