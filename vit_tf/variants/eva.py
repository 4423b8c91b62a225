"""EVA, EVA-02, their CLIP towers, and timm's own models with rotary positions."""

from vit_tf.config import RotaryConfig, ViTConfig
from vit_tf.variants.sizes import BASE, BETWIXT, GIANT, LARGE, MEDIUM, SMALL, TINY

PRETRAINED = RotaryConfig(reference_grid=(16, 16))  # 224 / 14
EVA_GAP = dict(pooling="avg", class_token=True, final_norm="pooled", qkv_bias="qv")
EVA_CLIP = dict(qkv_bias="qv")
EVA02_TINY = TINY | dict(mlp_dim=512)
EVA02_SMALL = SMALL | dict(mlp_dim=1024)
EVA02_BASE = BASE | dict(mlp_dim=2048)
EVA02_LARGE = LARGE | dict(mlp_dim=2730)
PACKED = EVA_GAP | dict(rotary=PRETRAINED, mlp="swiglu", activation="silu")
SPLIT = EVA_GAP | dict(
    rotary=PRETRAINED, mlp="swiglu_split", activation="silu", sub_norm="mlp", separate_qkv=True
)
EVA02_CLIP = EVA_CLIP | dict(
    rotary=PRETRAINED, mlp="swiglu_split", activation="silu", sub_norm=True, separate_qkv=True
)
SBB = dict(pooling="avg", final_norm="pooled", qkv_bias="qv", layer_scale_init=1e-5, rotary=PRETRAINED)
SBB |= dict(num_registers=1, position_table=False)

FAMILIES = {
    # https://arxiv.org/abs/2211.07636
    "EVA": {
        "eva_large_patch14_196": ViTConfig(196, 14, **LARGE, **EVA_GAP | dict(qkv_bias=True)),
        "eva_large_patch14_336": ViTConfig(336, 14, **LARGE, **EVA_GAP | dict(qkv_bias=True)),
        "eva_giant_patch14_224": ViTConfig(224, 14, **GIANT, **EVA_GAP),
        "eva_giant_patch14_336": ViTConfig(336, 14, **GIANT, **EVA_GAP),
        "eva_giant_patch14_560": ViTConfig(560, 14, **GIANT, **EVA_GAP),
    },
    # https://arxiv.org/abs/2303.11331
    "EVA-02": {
        "eva02_tiny_patch14_224": ViTConfig(224, 14, **EVA02_TINY, **PACKED, num_classes=0),
        "eva02_tiny_patch14_336": ViTConfig(336, 14, **EVA02_TINY, **PACKED),
        "eva02_small_patch14_224": ViTConfig(224, 14, **EVA02_SMALL, **PACKED, num_classes=0),
        "eva02_small_patch14_336": ViTConfig(336, 14, **EVA02_SMALL, **PACKED),
        "eva02_base_patch14_224": ViTConfig(224, 14, **EVA02_BASE, **SPLIT, num_classes=0),
        "eva02_base_patch14_448": ViTConfig(448, 14, **EVA02_BASE, **SPLIT),
        "eva02_large_patch14_224": ViTConfig(224, 14, **EVA02_LARGE, **SPLIT, num_classes=0),
        "eva02_large_patch14_448": ViTConfig(448, 14, **EVA02_LARGE, **SPLIT),
    },
    # https://arxiv.org/abs/2303.15389
    "EVA-CLIP": {
        "eva_giant_patch14_clip_224": ViTConfig(224, 14, **GIANT, **EVA_CLIP, num_classes=1024),
        "eva02_base_patch16_clip_224": ViTConfig(224, 16, **EVA02_BASE, **EVA02_CLIP, num_classes=512),
        "eva02_large_patch14_clip_224": ViTConfig(224, 14, **EVA02_LARGE, **EVA02_CLIP, num_classes=768),
        "eva02_large_patch14_clip_336": ViTConfig(336, 14, **EVA02_LARGE, **EVA02_CLIP, num_classes=768),
        "eva02_enormous_patch14_clip_224": ViTConfig(
            224, 14, 1792, 64, 16, 15360, **EVA_CLIP, block="res_post", num_classes=1024
        ),
    },
    # timm's searches of small models.
    "registers, pooled, rotary": {
        "vit_medium_patch16_rope_reg1_gap_256": ViTConfig(256, 16, **MEDIUM, **SBB),
        "vit_mediumd_patch16_rope_reg1_gap_256": ViTConfig(
            256, 16, 512, 20, 8, 2048, **SBB | dict(qkv_bias=False)
        ),
        "vit_betwixt_patch16_rope_reg4_gap_256": ViTConfig(256, 16, **BETWIXT, **SBB | dict(num_registers=4)),
        "vit_base_patch16_rope_reg1_gap_256": ViTConfig(256, 16, **BASE, **SBB),
    },
}
