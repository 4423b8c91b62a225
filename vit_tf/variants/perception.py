"""Perception Encoder (https://arxiv.org/abs/2504.13181): for images and text, for language models, dense."""

from vit_tf.config import RotaryConfig, ViTConfig
from vit_tf.variants.sizes import BASE, LARGE, SMALL, TINY

GIGANTIC = dict(hidden_dim=1536, num_layers=50, num_heads=16, mlp_dim=8960)
PE = dict(pre_norm=True, patch_bias=False, norm_epsilon=1e-5)
CORE = PE | dict(pooling="map", pool_prefix=True, pool_heads=8, class_token=True)
DENSE = PE | dict(pooling="avg", class_token=True, final_norm="none", num_classes=0)
SCALED = dict(layer_scale_init=0.1)
WITHOUT_TOKEN = dict(class_token=False)


def rotary(side, offset=1.0):
    """Returns rotary positions as in training on a square grid of `side` patches."""
    return dict(rotary=RotaryConfig(columns_first=True, offset=offset, reference_grid=(side, side)))


FAMILIES = {
    "PE core": {
        "vit_pe_core_tiny_patch16_384": ViTConfig(384, 16, **TINY, **CORE, **rotary(24), num_classes=512),
        "vit_pe_core_small_patch16_384": ViTConfig(384, 16, **SMALL, **CORE, **rotary(24), num_classes=512),
        "vit_pe_core_base_patch16_224": ViTConfig(224, 16, **BASE, **CORE, **rotary(14), num_classes=1024),
        "vit_pe_core_large_patch14_336": ViTConfig(336, 14, **LARGE, **CORE, **rotary(24), num_classes=1024),
        "vit_pe_core_gigantic_patch14_448": ViTConfig(
            448,
            14,
            **GIGANTIC,
            **CORE | WITHOUT_TOKEN,
            **rotary(32, offset=0.0),
            pool_mlp_dim=6144,
            num_classes=1280,
        ),
    },
    "PE lang": {
        "vit_pe_lang_large_patch14_448": ViTConfig(
            448, 14, **LARGE | dict(num_layers=23), **DENSE, **SCALED, **rotary(32)
        ),
        "vit_pe_lang_gigantic_patch14_448": ViTConfig(
            448,
            14,
            **GIGANTIC | dict(num_layers=47),
            **DENSE | WITHOUT_TOKEN,
            **SCALED,
            **rotary(32, offset=0.0),
        ),
    },
    "PE spatial": {
        "vit_pe_spatial_tiny_patch16_512": ViTConfig(512, 16, **TINY, **DENSE, **rotary(32)),
        "vit_pe_spatial_small_patch16_512": ViTConfig(512, 16, **SMALL, **DENSE, **rotary(32)),
        "vit_pe_spatial_base_patch16_512": ViTConfig(512, 16, **BASE, **DENSE, **rotary(32)),
        "vit_pe_spatial_large_patch14_448": ViTConfig(448, 14, **LARGE, **DENSE, **rotary(32)),
        "vit_pe_spatial_gigantic_patch14_448": ViTConfig(
            448, 14, **GIGANTIC, **DENSE | WITHOUT_TOKEN, **SCALED, **rotary(32, offset=0.0)
        ),
    },
}
