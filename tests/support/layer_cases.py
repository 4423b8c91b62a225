"""Every layer in small, with the shape of its input."""

import numpy as np
import pytest

from support.marks import mostly_slow
from vit_tf import layers

# A constant added to all keys adds the same to all scores of a query, which a softmax does not see.
SOFTMAX_IGNORES = "key_norm/beta"


TOKENS = (2, 6, 8)
MAP = (2, 3, 2, 8)  # of patches


HEADS = (3, 2, 6, 8)


IMAGES = (2, 8, 12, 3)  # not square


MIXED = dict(kind="mixed", temperature=10.0, columns_first=True)


LAYERS = {
    "patches": (lambda: layers.Patches((4, 2)), IMAGES),
    "patch_embedding": (lambda: layers.PatchEmbedding(8, (2, 4)), IMAGES),
    "patch_embedding_no_bias": (lambda: layers.PatchEmbedding(8, 4, use_bias=False), IMAGES),
    "overlap": (lambda: layers.OverlapPatchEmbedding(8, 4), IMAGES),
    "overlap_relu": (lambda: layers.OverlapPatchEmbedding(8, 2, activation="relu"), IMAGES),
    "whitened": (lambda: layers.WhitenedPatchEmbedding(8, 4, activation="relu"), IMAGES),
    "pooled": (lambda: layers.PooledPatchEmbedding(8, 4, activation="relu", stem_width=6), IMAGES),
    "pooled, deeper": (lambda: layers.PooledPatchEmbedding(8, 4, stem_width=6, blocks=(1, 2)), IMAGES),
    "conv_pool": (lambda: layers.ConvNorm(8, 3, norm="batch", pool_size=2), IMAGES),
    "conv_norm": (lambda: layers.ConvNorm(8, 3, 2, norm="batch", activation="gelu"), IMAGES),
    "bottleneck": (lambda: layers.Bottleneck(128, 2, projects=True), (2, 5, 3, 3)),
    "bottleneck_identity": (lambda: layers.Bottleneck(8, norm="batch"), (2, 5, 3, 8)),
    "resnet_v2": (lambda: layers.ResNetEmbedding(8, (8, 4), width=32, blocks=()), (2, 13, 11, 3)),
    "resnet_d": (lambda: layers.ResNetEmbedding(8, 8, "resnet_d", 8, (1, 1)), (2, 13, 11, 3)),
    "relative_positions": (lambda: layers.RelativePositions((3, 2), 1), (2, 2, 7, 7)),
    "attention_relative": (
        lambda: layers.MultiHeadSelfAttention(
            2, relative_positions=True, grid_size=(2, 2), num_prefix_tokens=2, query_chunk_size=4
        ),
        TOKENS,
    ),
    "mobileclip": (lambda: layers.MobileCLIPEmbedding(8), (2, 32, 16, 3)),
    "encoder": (lambda: layers.PatchEncoder((3, 2)), TOKENS),
    "encoder_no_token": (lambda: layers.PatchEncoder((2, 3), class_token=False), TOKENS),
    "patches_map": (lambda: layers.Patches((4, 2), flatten=False), IMAGES),
    "patch_embedding_map": (lambda: layers.PatchEmbedding(8, 4, flatten=False), IMAGES),
    "overlap_map": (lambda: layers.OverlapPatchEmbedding(8, 4, flatten=False), IMAGES),
    "encoder_any_size": (
        lambda: layers.PatchEncoder((None, None), num_registers=2, position_grid=(2, 5)),
        MAP,
    ),
    "encoder_any_width": (
        lambda: layers.PatchEncoder(
            (3, None), prefix_positions=False, position_grid=(4, 3), resampling={"method": "bilinear"}
        ),
        MAP,
    ),
    "encoder_resampled": (lambda: layers.PatchEncoder((3, 2), position_grid=(5, 1)), TOKENS),
    "attention": (lambda: layers.MultiHeadSelfAttention(2), TOKENS),
    "attention_options": (
        lambda: layers.MultiHeadSelfAttention(
            3, head_dim=5, qkv_bias=False, attention_dropout_rate=0.1, dropout_rate=0.2
        ),
        TOKENS,
    ),
    "mlp": (lambda: layers.MLP(12, activation="silu", dropout_rate=0.1), TOKENS),
    "dropout": (lambda: layers.Dropout(0.3, seed=3), TOKENS),
    "drop_path": (lambda: layers.DropPath(0.4, seed=3), TOKENS),
    "layer_scale": (lambda: layers.LayerScale(0.3), TOKENS),
    "block": (lambda: layers.EncoderBlock(2, 16), TOKENS),
    "block_options": (
        lambda: layers.EncoderBlock(
            2,
            16,
            head_dim=3,
            qkv_bias=False,
            activation="relu",
            dropout_rate=0.1,
            attention_dropout_rate=0.1,
            drop_path_rate=0.2,
            layer_scale_init=0.5,
            norm_epsilon=1e-5,
        ),
        TOKENS,
    ),
    "pool_token": (lambda: layers.TokenPooling("token"), TOKENS),
    "pool_avg": (lambda: layers.TokenPooling("avg"), TOKENS),
    "embedding_remainder": (lambda: layers.PatchEmbedding(8, 5, allow_remainder=True), IMAGES),
    "encoder_prefix": (
        lambda: layers.PatchEncoder((3, 2), distillation_token=True, num_registers=3),
        TOKENS,
    ),
    "encoder_bare_prefix": (
        lambda: layers.PatchEncoder((3, 2), num_registers=2, prefix_positions=False),
        TOKENS,
    ),
    "attention_norms": (
        lambda: layers.MultiHeadSelfAttention(
            2, projection_bias=False, qk_norm=True, sub_norm=True, norm="rms", norm_epsilon=1e-5
        ),
        TOKENS,
    ),
    "attention_differential": (
        lambda: layers.MultiHeadSelfAttention(
            2, attention="differential", block_index=3, qk_norm=True, attention_dropout_rate=0.1
        ),
        TOKENS,
    ),
    "rotary": (lambda: layers.RotaryPositions((2, 2), 2, offset=1.0, reference_grid=(3, 5)), HEADS),
    "attention_rotary": (
        lambda: layers.MultiHeadSelfAttention(
            2, qkv_bias="qv", qk_norm=True, rotary=MIXED, grid_size=(2, 2), num_prefix_tokens=2
        ),
        TOKENS,
    ),
    "encoder_no_table": (
        lambda: layers.PatchEncoder((3, 2), num_registers=2, position_table=False),
        TOKENS,
    ),
    "mlp_sub_norm": (lambda: layers.MLP(12, "quick_gelu", projection_bias=False, sub_norm=True), TOKENS),
    "mlp_gelu_tanh": (lambda: layers.MLP(12, "gelu_tanh"), TOKENS),
    "swiglu": (lambda: layers.GatedMLP(12), TOKENS),
    "swiglu_split": (lambda: layers.GatedMLP(12, packed=False, sub_norm=True, norm="rms"), TOKENS),
    "block_zoo": (
        lambda: layers.EncoderBlock(
            2, 16, mlp="swiglu", activation="silu", sub_norm=True, qk_norm=True, norm="rms"
        ),
        TOKENS,
    ),
    "res_post": (lambda: layers.ResPostBlock(2, 16, layer_scale_init=0.3, drop_path_rate=0.2), TOKENS),
    "parallel_things": (
        lambda: layers.ParallelThingsBlock(2, 16, num_parallel=3, layer_scale_init=0.3, drop_path_rate=0.2),
        TOKENS,
    ),
    "parallel_scaling": (
        lambda: layers.ParallelScalingBlock(2, 16, qk_norm=True, qkv_bias=False, dropout_rate=0.1),
        TOKENS,
    ),
    "parallel_scaling_differential": (
        lambda: layers.ParallelScalingBlock(2, 16, attention="differential", layer_scale_init=0.3),
        TOKENS,
    ),
    "parallel_scaling_head_dim": (lambda: layers.ParallelScalingBlock(2, 16, head_dim=6), TOKENS),
    "pool_max": (lambda: layers.TokenPooling("max", num_prefix_tokens=2), TOKENS),
    "pool_avgmax": (lambda: layers.TokenPooling("avgmax", num_prefix_tokens=1), TOKENS),
    "pool_token_avg": (lambda: layers.TokenPooling("token_avg", 1, num_prefix_tokens=3), TOKENS),
    "pool_map": (lambda: layers.AttentionPooling(2, 12, "gelu_tanh", num_prefix_tokens=1), TOKENS),
    "pool_map_rms": (lambda: layers.AttentionPooling(4, 12, norm="rms"), TOKENS),
}


FAST = (  # one of each class
    *(
        "patches",
        "patch_embedding",
        "overlap",
        "whitened",
        "pooled",
        "encoder_any_size",
        "attention_options",
        "mlp",
    ),
    "encoder_prefix",
    *(
        "attention_differential",
        "attention_rotary",
        "rotary",
        "swiglu",
        "drop_path",
        "layer_scale",
        "block_options",
        "res_post",
        "pool_map",
    ),
    *(
        "parallel_things",
        "parallel_scaling",
        "pool_token_avg",
        "bottleneck",
        "resnet_d",
        "mobileclip",
        "attention_relative",
    ),
)
each_layer = pytest.mark.parametrize("make, shape", mostly_slow(LAYERS, FAST))


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")
