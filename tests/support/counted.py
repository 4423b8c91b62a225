"""Small models of every family for counting."""

import keras
import pytest

from support.marks import mostly_slow
from vit_tf import build_vit

SMALL = dict(
    image_size=(16, 24), patch_size=8, hidden_dim=12, num_layers=2, num_heads=3, mlp_dim=20, num_classes=5
)
FAMILIES = {
    "conv": {},
    "patches": dict(patch_stem="patches"),
    "overlap": dict(patch_stem="overlap"),
    "whitened": dict(patch_stem="whitened"),
    "pooled": dict(patch_stem="pooled", stem_width=8, stem_blocks=(1, 2, 1)),
    "resnet_v2": dict(patch_stem="resnet_v2", stem_width=32, stem_blocks=(1, 1), image_size=(15, 21)),
    "resnet_d": dict(patch_stem="resnet_d", stem_width=8, stem_blocks=(1, 1), image_size=(15, 21)),
    "relative": dict(
        relative_positions=True, qkv_bias="qv", position_table=False, class_token=True, pooling="avg"
    ),
    "avg": dict(pooling="avg"),
    "head_dim": dict(head_dim=7, qkv_bias=False),
    "layer_scale": dict(layer_scale_init=0.1),
    "features": dict(num_classes=0),
    "preprocessing": dict(include_preprocessing=True, in_channels=1),
    "map": dict(pooling="map", num_registers=2),
    "swiglu": dict(mlp="swiglu", sub_norm=True, qk_norm=True),
    "swiglu_split": dict(mlp="swiglu_split", norm="rms", embedding_norm=True, projection_bias=False),
    "differential": dict(attention="differential", hidden_dim=24, layer_scale_init=0.1),
    "parallel_things": dict(block="parallel_things", pre_norm=True, patch_bias=False),
    "parallel_scaling": dict(block="parallel_scaling", qkv_bias=False, head_dim=6, layer_scale_init=0.1),
    "fused": dict(block="parallel_scaling", attention="differential", hidden_dim=24, projection_bias=False),
    "res_post": dict(block="res_post", pooling="avg", final_norm="pooled"),
    "distilled": dict(distillation_token=True),
    "rotary": dict(rotary=dict(kind="mixed"), qkv_bias="qv", position_table=False, sub_norm="attention"),
    "grouped": dict(num_kv_heads=1, layer_scale_init=0.1, mlp_layer_scale=False, rotary={}),
    "map_heads": dict(pooling="map", pool_prefix=True, pool_heads=2, pool_mlp_dim=10, class_token=True),
    "remainder": dict(image_size=(20, 29), allow_remainder=True),
}
each_family = pytest.mark.parametrize(
    "overrides", mostly_slow(FAMILIES, ("conv", "map", "fused", "parallel_things"))
)


def small_vit(**overrides):
    return build_vit("vit_b16", **{**SMALL, **overrides})


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, use_bias=False)

    def call(self, x):
        return self.dense(x)
