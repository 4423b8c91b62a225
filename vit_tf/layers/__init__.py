"""The layers of a Vision Transformer, all registered with Keras under the package "vit_tf".

Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words" (https://arxiv.org/abs/2010.11929).
"""

from vit_tf.layers.attention import MultiHeadSelfAttention
from vit_tf.layers.blocks import Block, EncoderBlock, ParallelScalingBlock, ParallelThingsBlock, ResPostBlock
from vit_tf.layers.convolutions import Bottleneck, ConvNorm, StandardizedConv2D
from vit_tf.layers.core_attention import DifferentialAttention, DotProductAttention
from vit_tf.layers.dropout import Dropout
from vit_tf.layers.hybrid_stems import MobileCLIPEmbedding, ResNetEmbedding
from vit_tf.layers.mlp import MLP, GatedMLP
from vit_tf.layers.patches import PatchEmbedding, Patches
from vit_tf.layers.relative_positions import RelativePositions
from vit_tf.layers.residual import DropPath, LayerScale
from vit_tf.layers.rotary import PatchGrid, RotaryPositions
from vit_tf.layers.stems import OverlapPatchEmbedding, PooledPatchEmbedding, WhitenedPatchEmbedding
from vit_tf.layers.tokens import AttentionPooling, PatchEncoder, TokenPooling

__all__ = [
    "AttentionPooling",
    "Block",
    "Bottleneck",
    "ConvNorm",
    "DifferentialAttention",
    "DotProductAttention",
    "DropPath",
    "Dropout",
    "EncoderBlock",
    "GatedMLP",
    "LayerScale",
    "MLP",
    "MobileCLIPEmbedding",
    "MultiHeadSelfAttention",
    "OverlapPatchEmbedding",
    "ParallelScalingBlock",
    "ParallelThingsBlock",
    "PatchEmbedding",
    "PatchEncoder",
    "PatchGrid",
    "Patches",
    "PooledPatchEmbedding",
    "RelativePositions",
    "ResNetEmbedding",
    "ResPostBlock",
    "RotaryPositions",
    "StandardizedConv2D",
    "TokenPooling",
    "WhitenedPatchEmbedding",
]
