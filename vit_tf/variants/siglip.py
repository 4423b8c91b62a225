"""The image encoders of SigLIP (https://arxiv.org/abs/2303.15343) and SigLIP 2
(https://arxiv.org/abs/2502.14786).
"""

from vit_tf.config import ViTConfig
from vit_tf.variants.sizes import BASE, GAP, GIANTOPT, LARGE, MAP, SO400M

SIGLIP2 = dict(pooling="map", activation="gelu_tanh")
GAP2 = dict(pooling="avg", activation="gelu_tanh")
REMAINDER = dict(allow_remainder=True, num_classes=0)

FAMILIES = {
    # Names with gap: average pooling in place of attention pooling, as in PaliGemma.
    "SigLIP": {
        "vit_base_patch32_siglip_256": ViTConfig(256, 32, **BASE, **SIGLIP2, num_classes=0),
        "vit_base_patch16_siglip_224": ViTConfig(224, 16, **BASE, **MAP, num_classes=0),
        "vit_base_patch16_siglip_256": ViTConfig(256, 16, **BASE, **MAP, num_classes=0),
        "vit_base_patch16_siglip_384": ViTConfig(384, 16, **BASE, **MAP, num_classes=0),
        "vit_base_patch16_siglip_512": ViTConfig(512, 16, **BASE, **MAP, num_classes=0),
        "vit_large_patch16_siglip_256": ViTConfig(256, 16, **LARGE, **MAP, num_classes=0),
        "vit_large_patch16_siglip_384": ViTConfig(384, 16, **LARGE, **MAP, num_classes=0),
        "vit_large_patch16_siglip_512": ViTConfig(512, 16, **LARGE, **SIGLIP2, num_classes=0),
        "vit_so400m_patch14_siglip_224": ViTConfig(224, 14, **SO400M, **MAP, num_classes=0),
        "vit_so400m_patch14_siglip_378": ViTConfig(378, 14, **SO400M, **MAP, num_classes=0),
        "vit_so400m_patch14_siglip_384": ViTConfig(384, 14, **SO400M, **MAP, **REMAINDER),
        "vit_so400m_patch16_siglip_256": ViTConfig(256, 16, **SO400M, **SIGLIP2, num_classes=0),
        "vit_so400m_patch16_siglip_384": ViTConfig(384, 16, **SO400M, **SIGLIP2, num_classes=0),
        "vit_so400m_patch16_siglip_512": ViTConfig(512, 16, **SO400M, **SIGLIP2, num_classes=0),
        "vit_giantopt_patch16_siglip_256": ViTConfig(256, 16, **GIANTOPT, **SIGLIP2, num_classes=0),
        "vit_giantopt_patch16_siglip_384": ViTConfig(384, 16, **GIANTOPT, **SIGLIP2, num_classes=0),
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
        "vit_so400m_patch14_siglip_gap_384": ViTConfig(384, 14, **SO400M, **GAP, **REMAINDER),
        "vit_so400m_patch14_siglip_gap_448": ViTConfig(448, 14, **SO400M, **GAP, num_classes=0),
        "vit_so400m_patch14_siglip_gap_896": ViTConfig(896, 14, **SO400M, **GAP, num_classes=0),
        "vit_so400m_patch16_siglip_gap_256": ViTConfig(256, 16, **SO400M, **GAP2, num_classes=0),
        "vit_so400m_patch16_siglip_gap_384": ViTConfig(384, 16, **SO400M, **GAP2, num_classes=0),
        "vit_so400m_patch16_siglip_gap_512": ViTConfig(512, 16, **SO400M, **GAP2, num_classes=0),
        "vit_giantopt_patch16_siglip_gap_256": ViTConfig(256, 16, **GIANTOPT, **GAP2, num_classes=0),
        "vit_giantopt_patch16_siglip_gap_384": ViTConfig(384, 16, **GIANTOPT, **GAP2, num_classes=0),
    },
}
