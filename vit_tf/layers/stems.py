"""Convolutional stems: overlapping patches, with and without whitened pixels.

Shapes in the comments: b batch, h and w image height and width, c channels, d model width, g grid side.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from vit_tf.checks import check_int, pair, shown
from vit_tf.config import Shape, Size, Tensor
from vit_tf.layers.composite import CompositeLayer, arguments, register
from vit_tf.layers.convolutions import ConvNorm
from vit_tf.layers.mlp import Activation, get_activation
from vit_tf.layers.norms import make_norm
from vit_tf.layers.patches import as_tokens, check_sides, map_shape, token_shape

SIDE = 3  # of the whitened patches, in pixels


def orthogonal(shape, dtype=None):
    """Orthogonal initializer, computed in float32: QR decomposition does not support half precision."""
    return ops.cast(keras.initializers.Orthogonal()(shape, "float32"), dtype)


@register
class OverlapPatchEmbedding(CompositeLayer):
    """Embeds overlapping patches by a stack of 3x3 convolutions of stride 2.

    The width doubles from stage to stage up to `hidden_dim`. The stem helps most on small data sets.
    Reference: Xiao et al., "Early Convolutions Help Transformers See Better"
    (https://arxiv.org/abs/2106.14881), here without BatchNormalization.

    Args:
        hidden_dim: int, the width d of a token.
        patch_size: int, a power of two from 2: image pixels between neighbouring tokens.
        activation: name or callable, see `get_activation`; between convolutions.
        flatten: bool. False keeps rows and columns, for images of any size, see `PatchEncoder`.

    Input shape: `(b, h, w, c)`; b, h and w may be unknown.
    Output shape: `(b, n, hidden_dim)`, rows first; `(b, rows, columns, hidden_dim)` without `flatten`.

    Raises:
        ValueError: `patch_size` is not a power of two, or does not divide the image size.
    """

    def __init__(
        self,
        hidden_dim: int,
        patch_size: Size,
        activation: Activation = "gelu",
        flatten: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.flatten = flatten
        self.patch_size = pair(patch_size, "patch_size")
        self.activation = get_activation(activation)
        side = self.patch_size[0]
        if self.patch_size != (side, side) or side < 2 or side & (side - 1):
            raise ValueError(
                "an overlapping patch embedding halves the image in each of its stages: "
                f"`patch_size` must be 2, 4, 8, 16 or a higher power of two, got {shown(patch_size)}"
            )
        self.stages = self.make_stages(side.bit_length() - 1)

    def make_stages(self, count: int) -> list[keras.layers.Layer]:
        """Returns the layers that halve the image `count` times."""
        widths = [max(1, self.hidden_dim >> i) for i in reversed(range(count))]
        return [self.make_stage(f"stage_{i}", width, i == count - 1) for i, width in enumerate(widths)]

    def make_stage(self, name: str, width: int, is_last: bool) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            width,
            3,
            strides=2,
            padding="same",
            activation=None if is_last else self.activation,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name=name,
        )

    def build_parts(self, input_shape: Shape) -> None:
        for stage in self.stages:
            stage.build(input_shape)
            input_shape = stage.compute_output_shape(input_shape)

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        images = check_sides(images, self.patch_size)
        if images.shape[0] == 0:
            return ops.zeros(self.compute_output_shape(images.shape), self.compute_dtype)
        x = self.embed(images, training)
        return as_tokens(x) if self.flatten else x

    def embed(self, x: Tensor, training: bool | None) -> Tensor:
        for stage in self.stages:
            x = stage(x)  # (b, h / 2, w / 2, c * 2)
        return x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = map_shape(input_shape, self.patch_size, self.hidden_dim)
        return token_shape(shape) if self.flatten else shape

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        sizes = arguments(self, "hidden_dim", "patch_size", "flatten")
        return {**super().get_config(), **sizes, "activation": activation}


@register
class WhitenedPatchEmbedding(OverlapPatchEmbedding):
    """`OverlapPatchEmbedding` of whitened 3x3 patches: decorrelated components of variance one.

    The whitening is a convolution that is not trained. Its 9 c filters are the principal components of the
    3x3 patches of training images, each divided by its standard deviation; `adapt` computes them, and before
    that they are a random orthogonal basis. The convolutions take the activations of the components and of
    their negatives. Norms stand between the convolutions.
    Reference: Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"
    (https://arxiv.org/abs/2404.00498), section 3.2, there with 2x2 patches.

    Args, input shape, output shape, errors: see `OverlapPatchEmbedding`.
    """

    def __init__(self, hidden_dim: int, patch_size: Size, activation: Activation = "gelu", **kwargs: Any):
        super().__init__(hidden_dim, patch_size, activation, **kwargs)
        self.norms = self.make_norms()

    def make_norms(self) -> list[keras.layers.Layer]:
        """Returns the norms between the stages."""
        count = len(self.stages) - 1
        return [make_norm("layer", 1e-6, self.dtype_policy, f"norm_{i}") for i in range(count)]

    def make_stage(self, name: str, width: int, is_last: bool) -> keras.layers.Layer:
        stage = super().make_stage(name, width, is_last)
        stage.activation = keras.activations.linear  # after the norm
        return stage

    def build_parts(self, input_shape: Shape) -> None:
        channels = input_shape[-1]
        filters = SIDE * SIDE * channels
        self.whitening = self.add_weight(
            shape=(SIDE, SIDE, channels, filters), initializer=orthogonal, trainable=False, name="whitening"
        )
        super().build_parts((*input_shape[:-1], 2 * filters))
        for stage, norm in zip(self.stages, self.norms):
            norm.build((None, None, None, stage.filters))

    def whiten(self, images: Tensor) -> Tensor:
        """Returns the activations of the components and of their negatives, `(b, h, w, 18 c)`."""
        x = ops.conv(images, self.whitening, padding="same", data_format="channels_last")  # (b, h, w, 9 c)
        return self.activation(ops.concatenate([x, -x], axis=-1))

    def embed(self, images: Tensor, training: bool | None) -> Tensor:
        x = self.stages[0](self.whiten(images))
        for norm, stage in zip(self.norms, self.stages[1:]):
            x = stage(self.activation(norm(x)))  # (b, h / 2, w / 2, c * 2)
        return x

    def adapt(self, images: np.ndarray, epsilon: float = 5e-4) -> None:
        """Computes the filters from images.

        Args:
            images: array `(b, h, w, c)`, normalised as the inputs of the layer. A few thousand suffice.
            epsilon: float, added to the variances of the components, to regularise low-variance components.

        Raises:
            ValueError: the images have another number of channels, or are smaller than 3x3.
        """
        images = np.asarray(images, "float32")
        channels = self.whitening.shape[2]
        fits = images.ndim == 4 and images.shape[-1] == channels and min(images.shape[1:3]) >= SIDE
        if not fits or not len(images):
            raise ValueError(
                f"`images` must be an array (b, h, w, {channels}) of at least {SIDE}x{SIDE} pixels, got the "
                f"shape {images.shape}"
            )
        patches = np.lib.stride_tricks.sliding_window_view(images, (SIDE, SIDE), axis=(1, 2))
        patches = patches.transpose(0, 1, 2, 4, 5, 3).reshape(-1, SIDE * SIDE * channels)
        variances, components = np.linalg.eigh((patches.T @ patches).astype("float64") / len(patches))
        filters = components / np.sqrt(variances.clip(0) + epsilon)
        self.whitening.assign(filters.reshape(self.whitening.shape))


@register
class PooledPatchEmbedding(WhitenedPatchEmbedding):
    """Embeds overlapping patches of whitened pixels by stages of 3x3 convolutions.

    The first convolution of a stage is pooled to half the sides, by maxima; the others mix neighbours.
    Each is followed by batch normalisation and the activation.
    These are the first groups of the network in Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"
    (https://arxiv.org/abs/2404.00498), section 3.1; attention takes the place of the last.

    Args:
        stem_width: int, the channels of the first stage; each further one has twice as many, the last
            `hidden_dim`.
        blocks: tuple of int, how many convolutions each stage has after its first; () is one each, and two in
            the last.
        hidden_dim, patch_size, activation, **kwargs: see `OverlapPatchEmbedding`.

    Input shape, output shape: see `OverlapPatchEmbedding`.

    Raises:
        ValueError: `blocks` has another length than log2(patch_size), or see `OverlapPatchEmbedding`.
    """

    def __init__(
        self,
        hidden_dim: int,
        patch_size: Size,
        activation: Activation = "gelu",
        stem_width: int = 64,
        blocks: Sequence[int] = (),
        **kwargs: Any,
    ):
        self.stem_width = stem_width
        self.blocks = tuple(blocks)
        for number in self.blocks:
            check_int("blocks", number, 1)
        super().__init__(hidden_dim, patch_size, activation, **kwargs)

    def make_norms(self) -> list[keras.layers.Layer]:
        return []  # they are inside the stages

    def make_stages(self, count: int) -> list[keras.layers.Layer]:
        if len(self.blocks) not in (0, count):
            raise ValueError(
                f"patches of {self.patch_size[0]} pixels have {count} stages: expected as many numbers in "
                f"`blocks` (`stem_blocks` of `build_vit`), got {self.blocks}"
            )
        options: dict[str, Any] = dict(
            kernel_size=3, norm="batch", activation=self.activation, dtype=self.dtype_policy
        )
        stages = []
        for i, mixed in enumerate(self.blocks or [1] * (count - 1) + [2]):
            width = self.hidden_dim if i == count - 1 else self.stem_width << i
            stages.append(ConvNorm(width, pool_size=2, name=f"pooled_{i}", **options))
            stages += [ConvNorm(width, name=f"mixed_{i}_{j}", **options) for j in range(mixed)]
        return stages

    def embed(self, images: Tensor, training: bool | None) -> Tensor:
        x = self.whiten(images)
        for stage in self.stages:
            x = stage(x, training=training)
        return x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **arguments(self, "stem_width", "blocks")}
