"""timm's own models with register tokens (https://arxiv.org/abs/2309.16588)."""

from vit_tf.config import ViTConfig
from vit_tf.variants.sizes import BASE, BETWIXT, GAP, MAP, MEDIUM

WEE = dict(hidden_dim=256, num_layers=14, num_heads=4, mlp_dim=1280)
LITTLE = dict(hidden_dim=320, num_layers=14, num_heads=5, mlp_dim=1792)
SO150M = dict(hidden_dim=896, num_layers=18, num_heads=14, mlp_dim=2304)
SO150M2 = dict(hidden_dim=832, num_layers=21, num_heads=13, mlp_dim=2176)
REG1_GAP = dict(
    layer_scale_init=1e-5, pooling="avg", final_norm="pooled", num_registers=1, prefix_positions=False
)
REG4_GAP = REG1_GAP | dict(num_registers=4)
DIFFERENTIAL = dict(attention="differential")
SCALING = dict(block="parallel_scaling")
SO150M2_GAP = dict(layer_scale_init=1e-5, pooling="avg", final_norm="pooled", num_registers=1, qkv_bias=False)

FAMILIES = {
    # A d in the name stands for differential attention, a p for parallel scaling.
    "registers, pooled": {
        "vit_wee_patch16_reg1_gap_256": ViTConfig(256, 16, **WEE, **REG1_GAP),
        "vit_dwee_patch16_reg1_gap_256": ViTConfig(256, 16, **WEE, **REG1_GAP, **DIFFERENTIAL),
        "vit_pwee_patch16_reg1_gap_256": ViTConfig(256, 16, 256, 16, 4, 1280, **REG1_GAP, **SCALING),
        "vit_dpwee_patch16_reg1_gap_256": ViTConfig(
            256, 16, 256, 16, 4, 1280, **REG1_GAP, **SCALING, **DIFFERENTIAL
        ),
        "vit_little_patch16_reg1_gap_256": ViTConfig(256, 16, **LITTLE, **REG1_GAP),
        "vit_dlittle_patch16_reg1_gap_256": ViTConfig(256, 16, **LITTLE, **REG1_GAP, **DIFFERENTIAL),
        "vit_little_patch16_reg4_gap_256": ViTConfig(256, 16, **LITTLE, **REG4_GAP),
        "vit_medium_patch16_reg1_gap_256": ViTConfig(256, 16, **MEDIUM, **REG1_GAP),
        "vit_medium_patch16_reg4_gap_256": ViTConfig(256, 16, **MEDIUM, **REG4_GAP),
        "vit_mediumd_patch16_reg4_gap_256": ViTConfig(256, 16, 512, 20, 8, 2048, **REG4_GAP),
        "vit_mediumd_patch16_reg4_gap_384": ViTConfig(384, 16, 512, 20, 8, 2048, **REG4_GAP),
        "vit_betwixt_patch16_reg1_gap_256": ViTConfig(256, 16, **BETWIXT, **REG1_GAP),
        "vit_betwixt_patch16_reg4_gap_256": ViTConfig(256, 16, **BETWIXT, **REG4_GAP),
        "vit_betwixt_patch16_reg4_gap_384": ViTConfig(384, 16, **BETWIXT, **REG4_GAP),
        "vit_base_patch16_reg4_gap_256": ViTConfig(
            256, 16, **BASE, **GAP, final_norm="pooled", prefix_positions=False, num_registers=4
        ),
    },
    # Shape-optimised (https://arxiv.org/abs/2305.13035).
    "so150m": {
        "vit_so150m_patch16_reg4_map_256": ViTConfig(256, 16, **SO150M, **MAP, num_registers=4),
        "vit_so150m_patch16_reg4_gap_256": ViTConfig(256, 16, **SO150M, **GAP, num_registers=4),
        "vit_so150m_patch16_reg4_gap_384": ViTConfig(384, 16, **SO150M, **GAP, num_registers=4),
        "vit_so150m2_patch16_reg1_gap_256": ViTConfig(256, 16, **SO150M2, **SO150M2_GAP),
        "vit_so150m2_patch16_reg1_gap_384": ViTConfig(384, 16, **SO150M2, **SO150M2_GAP),
        "vit_so150m2_patch16_reg1_gap_448": ViTConfig(448, 16, **SO150M2, **SO150M2_GAP),
    },
}
