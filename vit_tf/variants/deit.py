"""DeiT and DeiT III."""

from vit_tf.config import ViTConfig
from vit_tf.variants.sizes import BASE, HUGE, LARGE, MEDIUM, SMALL, TINY

DEIT3 = dict(layer_scale_init=1e-6, prefix_positions=False)

FAMILIES = {
    # https://arxiv.org/abs/2012.12877
    "DeiT": {
        "deit_tiny_patch16_224": ViTConfig(224, 16, **TINY),
        "deit_small_patch16_224": ViTConfig(224, 16, **SMALL),
        "deit_base_patch16_224": ViTConfig(224, 16, **BASE),
        "deit_base_patch16_384": ViTConfig(384, 16, **BASE),
    },
    "DeiT distilled": {
        "deit_tiny_distilled_patch16_224": ViTConfig(224, 16, **TINY, distillation_token=True),
        "deit_small_distilled_patch16_224": ViTConfig(224, 16, **SMALL, distillation_token=True),
        "deit_base_distilled_patch16_224": ViTConfig(224, 16, **BASE, distillation_token=True),
        "deit_base_distilled_patch16_384": ViTConfig(384, 16, **BASE, distillation_token=True),
    },
    # https://arxiv.org/abs/2204.07118
    "DeiT III": {
        "deit3_small_patch16_224": ViTConfig(224, 16, **SMALL, **DEIT3),
        "deit3_small_patch16_384": ViTConfig(384, 16, **SMALL, **DEIT3),
        "deit3_medium_patch16_224": ViTConfig(224, 16, **MEDIUM, **DEIT3),
        "deit3_base_patch16_224": ViTConfig(224, 16, **BASE, **DEIT3),
        "deit3_base_patch16_384": ViTConfig(384, 16, **BASE, **DEIT3),
        "deit3_large_patch16_224": ViTConfig(224, 16, **LARGE, **DEIT3),
        "deit3_large_patch16_384": ViTConfig(384, 16, **LARGE, **DEIT3),
        "deit3_huge_patch14_224": ViTConfig(224, 14, **HUGE, **DEIT3),
    },
}
