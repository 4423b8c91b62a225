"""The layers of a Vision Transformer, all registered with Keras under the package "vit_tf".

Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words" (https://arxiv.org/abs/2010.11929).
"""

from vit_tf.layers.encoder import (
    MLP,
    DropPath,
    EncoderBlock,
    LayerScale,
    MultiHeadSelfAttention,
    TokenPooling,
)
from vit_tf.layers.patches import (
    OverlapPatchEmbedding,
    PatchEmbedding,
    PatchEncoder,
    Patches,
)

__all__ = [
    "MLP",
    "DropPath",
    "EncoderBlock",
    "LayerScale",
    "MultiHeadSelfAttention",
    "OverlapPatchEmbedding",
    "PatchEmbedding",
    "PatchEncoder",
    "Patches",
    "TokenPooling",
]
