"""DINOv3 and EUPE, LingBot-Vision, Sapiens 2: rotary positions of patch centres in [-1, 1]."""

from vit_tf.config import RotaryConfig, ViTConfig
from vit_tf.variants.sizes import BASE, HUGE, LARGE, LAYER_SCALE, SMALL, TINY

ROTARY = dict(rotary=RotaryConfig(kind="dinov3", temperature=100.0, half_rotation=True), position_table=False)
ENCODER = dict(**ROTARY, **LAYER_SCALE, norm_epsilon=1e-5, num_registers=4, num_classes=0)
# timm pools by the mean of the patches; the makers by the class token.
DINOV3 = ENCODER | dict(pooling="avg", class_token=True, qkv_bias=False)
QKVB = DINOV3 | dict(qkv_bias="qv")
SWIGLU = dict(mlp="swiglu_split", activation="silu")
HUGE_PLUS = HUGE | dict(num_heads=20)
LINGBOT = ENCODER | dict(qkv_bias="qv")
SAPIENS2 = dict(**ROTARY, norm="rms", num_registers=8, qk_norm=True, separate_qkv=True, mlp="swiglu")
SAPIENS2 |= dict(activation="silu", layer_scale_init=1.0, mlp_layer_scale=False, num_classes=0)


def grouped(hidden_dim, num_layers, num_heads):
    """Returns the sizes of a Sapiens 2: half as many heads of keys between the first and last 8 blocks."""
    sizes = dict(hidden_dim=hidden_dim, num_layers=num_layers, num_heads=num_heads, mlp_dim=4 * hidden_dim)
    return sizes | dict(num_kv_heads=num_heads // 2, num_full_blocks=8)


FAMILIES = {
    # https://arxiv.org/abs/2508.10104
    "DINOv3": {
        "vit_tiny_patch16_dinov3_qkvb": ViTConfig(256, 16, **TINY, **QKVB),
        "vit_small_patch16_dinov3": ViTConfig(256, 16, **SMALL, **DINOV3),
        "vit_small_patch16_dinov3_qkvb": ViTConfig(256, 16, **SMALL, **QKVB),
        "vit_small_plus_patch16_dinov3": ViTConfig(256, 16, **SMALL, **DINOV3, **SWIGLU),
        "vit_small_plus_patch16_dinov3_qkvb": ViTConfig(256, 16, **SMALL, **QKVB, **SWIGLU),
        "vit_base_patch16_dinov3": ViTConfig(256, 16, **BASE, **DINOV3),
        "vit_base_patch16_dinov3_qkvb": ViTConfig(256, 16, **BASE, **QKVB),
        "vit_large_patch16_dinov3": ViTConfig(256, 16, **LARGE, **DINOV3),
        "vit_large_patch16_dinov3_qkvb": ViTConfig(256, 16, **LARGE, **QKVB),
        "vit_huge_plus_patch16_dinov3": ViTConfig(256, 16, **HUGE_PLUS, **DINOV3, **SWIGLU),
        "vit_huge_plus_patch16_dinov3_qkvb": ViTConfig(256, 16, **HUGE_PLUS, **QKVB, **SWIGLU),
        "vit_7b_patch16_dinov3": ViTConfig(256, 16, 4096, 40, 32, 8192, **DINOV3, **SWIGLU),
    },
    # https://arxiv.org/abs/2607.05247
    "LingBot-Vision": {
        "vit_small_patch16_lingbot": ViTConfig(512, 16, **SMALL, **LINGBOT),
        "vit_base_patch16_lingbot": ViTConfig(512, 16, **BASE, **LINGBOT),
        "vit_large_patch16_lingbot": ViTConfig(512, 16, **LARGE, **LINGBOT),
        "vit_giant_patch16_lingbot": ViTConfig(
            512, 16, 1536, 40, 24, 4096, **LINGBOT | dict(qkv_bias=False), **SWIGLU
        ),
    },
    # https://arxiv.org/abs/2604.21681
    "Sapiens 2": {
        "vit_base_patch16_sapiens2": ViTConfig((1024, 768), 16, **grouped(768, 12, 12), **SAPIENS2),
        "vit_large_patch16_sapiens2": ViTConfig((1024, 768), 16, **grouped(1024, 24, 16), **SAPIENS2),
        "vit_huge_patch16_sapiens2": ViTConfig((1024, 768), 16, **grouped(1280, 32, 16), **SAPIENS2),
        "vit_giant_patch16_sapiens2": ViTConfig((1024, 768), 16, **grouped(1536, 40, 24), **SAPIENS2),
        "vit_5b_patch16_sapiens2": ViTConfig((1024, 768), 16, **grouped(2432, 56, 32), **SAPIENS2),
    },
}
