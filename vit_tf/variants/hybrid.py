"""Hybrids: a convolutional network makes maps, whose patches are the tokens.

Here `patch_size` is in pixels of the image, in timm in those of the map. Reference: timm 1.0.31,
`models/vision_transformer_hybrid.py`.
"""

from vit_tf.config import ViTConfig
from vit_tf.variants.sizes import BASE, LARGE, SMALL, TINY

R = dict(patch_stem="resnet_v2")  # a convolution and a pooling, without stages
R26 = dict(patch_stem="resnet_v2", stem_blocks=(2, 2, 2, 2))
R50 = dict(patch_stem="resnet_v2", stem_blocks=(3, 4, 6, 3))
R50_S16 = dict(patch_stem="resnet_v2", stem_blocks=(3, 4, 9))
RESNET26D = dict(patch_stem="resnet_d", stem_blocks=(2, 2, 2, 2))
RESNET50D = dict(patch_stem="resnet_d", stem_blocks=(3, 4, 6, 3))
RESNET50D_S16 = dict(patch_stem="resnet_d", stem_blocks=(3, 4, 6))
WIDE = dict(hidden_dim=768, num_layers=8, num_heads=8, mlp_dim=2304)

FAMILIES = {
    # The ViT paper's (https://arxiv.org/abs/2010.11929) and AugReg's (https://arxiv.org/abs/2106.10270).
    "hybrid": {
        "vit_tiny_r_s16_p8_224": ViTConfig(224, 32, **TINY, **R),
        "vit_tiny_r_s16_p8_384": ViTConfig(384, 32, **TINY, **R),
        "vit_small_r26_s32_224": ViTConfig(224, 32, **SMALL, **R26),
        "vit_small_r26_s32_384": ViTConfig(384, 32, **SMALL, **R26),
        "vit_base_r26_s32_224": ViTConfig(224, 32, **BASE, **R26),
        "vit_base_r50_s16_224": ViTConfig(224, 16, **BASE, **R50_S16, num_classes=0),
        "vit_base_r50_s16_384": ViTConfig(384, 16, **BASE, **R50_S16),
        "vit_large_r50_s32_224": ViTConfig(224, 32, **LARGE, **R50),
        "vit_large_r50_s32_384": ViTConfig(384, 32, **LARGE, **R50),
    },
    # timm's, without published weights.
    "hybrid ResNet-D": {
        "vit_small_resnet26d_224": ViTConfig(224, 32, **WIDE, **RESNET26D),
        "vit_small_resnet50d_s16_224": ViTConfig(224, 16, **WIDE, **RESNET50D_S16),
        "vit_base_resnet26d_224": ViTConfig(224, 32, **BASE, **RESNET26D),
        "vit_base_resnet50d_224": ViTConfig(224, 32, **BASE, **RESNET50D),
    },
    # https://arxiv.org/abs/2311.17049
    "MobileCLIP": {
        "vit_base_mci_224": ViTConfig(
            224, 16, **BASE, patch_stem="mobileclip", prefix_positions=False, num_classes=512
        ),
    },
}
