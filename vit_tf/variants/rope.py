"""RoPE-ViT (https://arxiv.org/abs/2403.13298): rotary positions along the axes, or learned directions."""

from vit_tf.config import RotaryConfig, ViTConfig
from vit_tf.variants.sizes import BASE, LARGE, SMALL

AXIAL = dict(rotary=RotaryConfig(temperature=100.0, columns_first=True), layer_scale_init=1e-5)
MIXED = AXIAL | dict(rotary=RotaryConfig(kind="mixed", temperature=10.0, columns_first=True))
ALONE = dict(position_table=False)
WITH_TABLE = dict(prefix_positions=False)

FAMILIES = {
    "RoPE-ViT": {
        "vit_small_patch16_rope_224": ViTConfig(224, 16, **SMALL, **AXIAL, **ALONE),
        "vit_base_patch16_rope_224": ViTConfig(224, 16, **BASE, **AXIAL, **ALONE),
        "vit_large_patch16_rope_224": ViTConfig(224, 16, **LARGE, **AXIAL, **ALONE),
        "vit_small_patch16_rope_ape_224": ViTConfig(224, 16, **SMALL, **AXIAL, **WITH_TABLE),
        "vit_base_patch16_rope_ape_224": ViTConfig(224, 16, **BASE, **AXIAL, **WITH_TABLE),
        "vit_large_patch16_rope_ape_224": ViTConfig(224, 16, **LARGE, **AXIAL, **WITH_TABLE),
        "vit_small_patch16_rope_mixed_224": ViTConfig(224, 16, **SMALL, **MIXED, **ALONE),
        "vit_base_patch16_rope_mixed_224": ViTConfig(224, 16, **BASE, **MIXED, **ALONE),
        "vit_large_patch16_rope_mixed_224": ViTConfig(224, 16, **LARGE, **MIXED, **ALONE),
        "vit_small_patch16_rope_mixed_ape_224": ViTConfig(224, 16, **SMALL, **MIXED, **WITH_TABLE),
        "vit_base_patch16_rope_mixed_ape_224": ViTConfig(224, 16, **BASE, **MIXED, **WITH_TABLE),
        "vit_large_patch16_rope_mixed_ape_224": ViTConfig(224, 16, **LARGE, **MIXED, **WITH_TABLE),
    },
}
