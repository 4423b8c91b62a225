"""BEiT and BEiT v2: relative positions in each block, no position table.

Reference: timm 1.0.31, `models/beit.py`.
"""

from vit_tf.config import ViTConfig
from vit_tf.variants.sizes import BASE, LARGE

BEIT = dict(pooling="avg", class_token=True, final_norm="pooled", qkv_bias="qv")
BEIT |= dict(position_table=False, relative_positions=True)
SMALL_SCALE = BEIT | dict(layer_scale_init=1e-5)

FAMILIES = {
    # https://arxiv.org/abs/2106.08254
    "BEiT": {
        "beit_base_patch16_224": ViTConfig(224, 16, **BASE, **BEIT, layer_scale_init=0.1),
        "beit_base_patch16_384": ViTConfig(384, 16, **BASE, **BEIT, layer_scale_init=0.1),
        "beit_large_patch16_224": ViTConfig(224, 16, **LARGE, **SMALL_SCALE),
        "beit_large_patch16_384": ViTConfig(384, 16, **LARGE, **SMALL_SCALE),
        "beit_large_patch16_512": ViTConfig(512, 16, **LARGE, **SMALL_SCALE),
    },
    # https://arxiv.org/abs/2208.06366
    "BEiT v2": {
        "beitv2_base_patch16_224": ViTConfig(224, 16, **BASE, **SMALL_SCALE),
        "beitv2_large_patch16_224": ViTConfig(224, 16, **LARGE, **SMALL_SCALE),
    },
}
