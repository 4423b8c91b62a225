"""Encoders that were pretrained for general use: DINOv2, TIPSv2, RADIO, InternViT, AIMv2, BEiT-3."""

from vit_tf.config import ViTConfig
from vit_tf.variants.sizes import BASE, GIANT, HUGE, LARGE, LAYER_SCALE, SMALL, SO400M

AIMV2_LARGE = dict(hidden_dim=1024, num_layers=24, num_heads=8, mlp_dim=2816)
AIMV2_HUGE = dict(hidden_dim=1536, num_layers=24, num_heads=12, mlp_dim=4096)
AIMV2_1B = dict(hidden_dim=2048, num_layers=24, num_heads=16, mlp_dim=5632)
AIMV2_3B = dict(hidden_dim=3072, num_layers=24, num_heads=24, mlp_dim=8192)
GIANT24 = dict(hidden_dim=1536, num_layers=40, num_heads=24, mlp_dim=4096, mlp="swiglu", activation="silu")
AIMV2 = dict(pooling="avg", norm="rms", norm_epsilon=1e-5, embedding_norm=True, num_classes=0)
AIMV2 |= dict(mlp="swiglu_split", activation="silu", qkv_bias=False, projection_bias=False)
DINOV2 = dict(layer_scale_init=1e-5, num_classes=0)
DINOV2_REG = dict(**DINOV2, num_registers=4, prefix_positions=False)
TIPSV2 = dict(layer_scale_init=1.0, num_registers=1, prefix_positions=False, num_classes=0)
BEIT3 = dict(pooling="avg", class_token=True, final_norm="pooled", sub_norm=True, norm_epsilon=1e-5)
RADIO3 = dict(final_norm="none", prefix_positions=False, num_registers=7, num_classes=0)
RADIO4 = RADIO3 | dict(num_registers=9)

FAMILIES = {
    # https://arxiv.org/abs/2304.07193
    "DINOv2": {
        "vit_small_patch14_dinov2": ViTConfig(518, 14, **SMALL, **DINOV2),
        "vit_base_patch14_dinov2": ViTConfig(518, 14, **BASE, **DINOV2),
        "vit_large_patch14_dinov2": ViTConfig(518, 14, **LARGE, **DINOV2),
        "vit_giant_patch14_dinov2": ViTConfig(518, 14, **GIANT24, **DINOV2),
    },
    # https://arxiv.org/abs/2309.16588
    "DINOv2 with registers": {
        "vit_small_patch14_reg4_dinov2": ViTConfig(518, 14, **SMALL, **DINOV2_REG),
        "vit_base_patch14_reg4_dinov2": ViTConfig(518, 14, **BASE, **DINOV2_REG),
        "vit_large_patch14_reg4_dinov2": ViTConfig(518, 14, **LARGE, **DINOV2_REG),
        "vit_giant_patch14_reg4_dinov2": ViTConfig(518, 14, **GIANT24, **DINOV2_REG),
    },
    # https://arxiv.org/abs/2604.12012
    "TIPSv2": {
        "vit_base_patch14_reg1_tipsv2": ViTConfig(448, 14, **BASE, **TIPSV2),
        "vit_large_patch14_reg1_tipsv2": ViTConfig(448, 14, **LARGE, **TIPSV2),
        "vit_so400m_patch14_reg1_tipsv2": ViTConfig(448, 14, **SO400M, **TIPSV2),
        "vit_giant_patch14_reg1_tipsv2": ViTConfig(448, 14, **GIANT24, **TIPSV2),
    },
    # C-RADIO (https://arxiv.org/abs/2412.07679).
    "RADIO": {
        "vit_base_patch16_radio_v3": ViTConfig(512, 16, **BASE, **RADIO3, **LAYER_SCALE),
        "vit_large_patch16_radio_v3": ViTConfig(512, 16, **LARGE, **RADIO3, **LAYER_SCALE),
        "vit_huge_patch16_radio_v3": ViTConfig(512, 16, **HUGE, **RADIO3),
        "vit_giant_patch16_radio_v3": ViTConfig(512, 16, 1536, 40, 24, 6144, **RADIO3),
        "vit_so400m_patch16_radio_v4": ViTConfig(512, 16, **SO400M, **RADIO4),
        "vit_huge_patch16_radio_v4": ViTConfig(512, 16, **HUGE, **RADIO4),
    },
    # https://arxiv.org/abs/2410.16261
    "InternViT": {
        "vit_intern300m_patch14_448": ViTConfig(
            448, 14, **LARGE, layer_scale_init=0.1, final_norm="none", num_classes=0
        ),
    },
    # https://arxiv.org/abs/2411.14402
    "AIMv2": {
        "aimv2_large_patch14_224": ViTConfig(224, 14, **AIMV2_LARGE, **AIMV2),
        "aimv2_huge_patch14_224": ViTConfig(224, 14, **AIMV2_HUGE, **AIMV2),
        "aimv2_1b_patch14_224": ViTConfig(224, 14, **AIMV2_1B, **AIMV2),
        "aimv2_3b_patch14_224": ViTConfig(224, 14, **AIMV2_3B, **AIMV2),
        "aimv2_large_patch14_336": ViTConfig(336, 14, **AIMV2_LARGE, **AIMV2),
        "aimv2_huge_patch14_336": ViTConfig(336, 14, **AIMV2_HUGE, **AIMV2),
        "aimv2_1b_patch14_336": ViTConfig(336, 14, **AIMV2_1B, **AIMV2),
        "aimv2_3b_patch14_336": ViTConfig(336, 14, **AIMV2_3B, **AIMV2),
        "aimv2_large_patch14_448": ViTConfig(448, 14, **AIMV2_LARGE, **AIMV2),
        "aimv2_huge_patch14_448": ViTConfig(448, 14, **AIMV2_HUGE, **AIMV2),
        "aimv2_1b_patch14_448": ViTConfig(448, 14, **AIMV2_1B, **AIMV2),
        "aimv2_3b_patch14_448": ViTConfig(448, 14, **AIMV2_3B, **AIMV2),
    },
    # https://arxiv.org/abs/2208.10442
    "BEiT-3": {
        "beit3_base_patch16_224": ViTConfig(224, 16, **BASE, **BEIT3),
        "beit3_large_patch16_224": ViTConfig(224, 16, **LARGE, **BEIT3),
        "beit3_giant_patch14_224": ViTConfig(224, 14, **GIANT, **BEIT3),
        "beit3_giant_patch14_336": ViTConfig(336, 14, **GIANT, **BEIT3),
    },
}
