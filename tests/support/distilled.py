"""A small distilled model with every layer before and behind the blocks."""

from vit_tf import build_vit

TINY = dict(image_size=8, patch_size=4, hidden_dim=8, num_layers=2, num_heads=2, mlp_dim=16, num_classes=3)
DISTILLED = dict(patch_stem="patches", pre_norm=True, pooling="token", distillation_token=True)
DEPTHS = {  # of `distilled_vit()`
    "patches": 0,
    "patch_norm": 0,
    "patch_embedding": 0,
    "patch_encoder": 0,
    "pre_norm": 0,
    "block_0": 1,
    "block_1": 2,
    "norm": 2,
    "head": 3,
    "distillation_head": 3,
}


def distilled_vit(**overrides):
    return build_vit("vit_cifar10", **{**TINY, **DISTILLED, **overrides})
