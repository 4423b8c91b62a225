"""The image encoders of CLIP (https://arxiv.org/abs/2103.00020)."""

from vit_tf.config import ViTConfig
from vit_tf.variants.sizes import BASE, BETWIXT, GIANT, GIGANTIC, HUGE, LARGE, MEDIUM

CLIP = dict(pre_norm=True, patch_bias=False, norm_epsilon=1e-5)
QUICK = CLIP | dict(activation="quick_gelu")

FAMILIES = {
    # OpenCLIP's and others'.
    "CLIP": {
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
    },
    # The quick GELU of OpenAI's weights.
    "CLIP (OpenAI)": {
        "vit_base_patch32_clip_quickgelu_224": ViTConfig(224, 32, **BASE, **QUICK, num_classes=512),
        "vit_base_patch16_clip_quickgelu_224": ViTConfig(224, 16, **BASE, **QUICK, num_classes=512),
        "vit_large_patch14_clip_quickgelu_224": ViTConfig(224, 14, **LARGE, **QUICK, num_classes=768),
        "vit_large_patch14_clip_quickgelu_336": ViTConfig(336, 14, **LARGE, **QUICK, num_classes=768),
        "vit_huge_patch14_clip_quickgelu_224": ViTConfig(224, 14, **HUGE, **QUICK, num_classes=1024),
        "vit_huge_patch14_clip_quickgelu_378": ViTConfig(378, 14, **HUGE, **QUICK, num_classes=1024),
        "vit_gigantic_patch14_clip_quickgelu_224": ViTConfig(224, 14, **GIGANTIC, **QUICK, num_classes=1280),
    },
}
