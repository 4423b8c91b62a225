"""Hybrid stems: a convolutional network makes maps of the images, whose patches are embedded.

Shapes in the comments: b batch, h and w image height and width, c channels, s stride of the maps, f their
channels, n tokens, d model width (`hidden_dim`).
"""

from collections.abc import Generator, Iterator
from typing import Any

import keras
from keras import ops

from vit_tf.checks import check_choice, pair
from vit_tf.config import Shape, Size, Tensor
from vit_tf.config_checks import RESNET_STEMS
from vit_tf.layers.composite import CompositeLayer, arguments, register
from vit_tf.layers.convolutions import LAST, Bottleneck, ConvNorm, pad_sides
from vit_tf.layers.mlp import Activation, get_activation
from vit_tf.layers.patches import as_tokens, check_sides, map_shape, token_shape
from vit_tf.patch_grid import resnet_stride

NORMS = dict(zip(RESNET_STEMS, ("group", "batch")))
# Yields layers with the shapes of their inputs, and returns the shape of the last output.
Parts = Generator[tuple[keras.layers.Layer, Shape], None, Shape]


class HybridStem(CompositeLayer):
    """The frame of a stem whose `projection` embeds patches of the maps that its network makes.

    A subclass has `hidden_dim`, `patch_size`, `flatten` and `projection`, and the network in the two methods
    below.

    Attributes:
        stride: int, the network pads image sides to its multiples.
        allow_remainder: bool, see `PatchEmbedding`.
    """

    stride = 1
    allow_remainder = False

    def network(self, images: Tensor, training: bool | None) -> Tensor:
        """Returns the maps of images."""
        raise NotImplementedError

    def network_parts(self, input_shape: Shape) -> Parts:
        """Yields as `parts`, for the network alone; returns the shape of the maps."""
        raise NotImplementedError

    def parts(self, input_shape: Shape) -> Iterator[tuple[keras.layers.Layer, Shape]]:
        """Yields (part, shape of its input) for an input of `input_shape`, in the order of computation."""
        shape = yield from self.network_parts(input_shape)
        yield self.projection, shape

    def build_parts(self, input_shape: Shape) -> None:
        for part, shape in self.parts((*input_shape[:1], None, None, input_shape[3])):
            part.build(shape)

    def call(self, images: Tensor, training: bool | None = None) -> Tensor:
        images = check_sides(images, self.patch_size, self.allow_remainder, self.stride)
        if images.shape[0] == 0:  # convolutions and group norms do not take an empty batch
            return ops.zeros(self.compute_output_shape(images.shape), self.compute_dtype)
        x = self.projection(self.network(images, training))
        return as_tokens(x) if self.flatten else x

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        shape = map_shape(input_shape, self.patch_size, self.hidden_dim, self.allow_remainder, self.stride)
        return token_shape(shape) if self.flatten else shape


@register
class ResNetEmbedding(HybridStem):
    """Embeds patches of the maps of a residual network.

    A first convolution and a max pooling shrink the image to a quarter. Each stage is a row of `Bottleneck`
    blocks; the first stage has 4 * `width` channels, and each later one doubles the channels and halves the
    map. The last layer embeds patches of the map, whose side is `patch_size` divided by the map's stride.
    Image sides that the stride does not divide are padded by the convolutions.
    Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words" (https://arxiv.org/abs/2010.11929),
    "Hybrid Architecture"; timm 1.0.31, `models/resnetv2.py` and `models/resnet.py`.

    Args:
        hidden_dim: int, the width d of a token.
        patch_size: int or (height, width): image pixels between tokens, a multiple of the map's stride.
        kind: "resnet_v2" (Big Transfer's: standardised kernels, group normalisation, blocks that normalise
            after the convolutions) or "resnet_d" (three convolutions first, batch normalisation, shortcuts
            that average).
        width: int, the channels of the first convolutions; a multiple of 32 with "resnet_v2".
        blocks: tuple of int, blocks per stage.
        flatten: bool. False keeps rows and columns, for images of any size, see `PatchEncoder`.

    Input shape: `(b, h, w, c)`; b, h and w may be unknown.
    Output shape: `(b, n, hidden_dim)`, rows first; `(b, rows, columns, hidden_dim)` without `flatten`.

    Raises:
        ValueError: unknown `kind`; the stride does not divide `patch_size`, or patches the maps.
    """

    def __init__(
        self,
        hidden_dim: int,
        patch_size: Size,
        kind: str = "resnet_v2",
        width: int = 64,
        blocks: tuple[int, ...] = (3, 4, 9),
        flatten: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_choice("kind", kind, RESNET_STEMS)
        self.hidden_dim, self.patch_size = hidden_dim, pair(patch_size, "patch_size")
        self.kind, self.width, self.blocks, self.flatten = kind, width, tuple(blocks), flatten
        self.stride = resnet_stride(self.blocks, self.patch_size)
        self.options: dict[str, Any] = dict(norm=NORMS[kind], dtype=self.dtype_policy)
        self.first = list(self.make_first())
        self.stages = list(self.make_stages())
        sides = tuple(side // self.stride for side in self.patch_size)
        self.projection = keras.layers.Conv2D(
            hidden_dim, sides, strides=sides, dtype=self.dtype_policy, name="projection", **LAST
        )

    def make_first(self) -> Iterator[ConvNorm]:
        if self.kind == "resnet_v2":
            # timm gives another name to the convolution if no stage follows.
            name = "stem" if self.blocks else "root"
            yield ConvNorm(self.width, 7, 2, name=name, **self.options)
        else:
            for i, width in enumerate((self.width // 2, self.width // 2, self.width)):
                yield ConvNorm(width, 3, 1 if i else 2, name=f"stem_{i}", **self.options)

    def make_stages(self) -> Iterator[Bottleneck]:
        word, start = ("stage", 0) if self.kind == "resnet_v2" else ("layer", 1)  # as timm counts
        for stage, count in enumerate(self.blocks):
            for i in range(count):
                strides = 2 if stage and not i else 1
                name = f"{word}_{stage + start}_block_{i}"
                filters = self.width * 4 << stage
                yield Bottleneck(filters, strides, projects=not i, name=name, **self.options)

    def network_parts(self, input_shape: Shape) -> Parts:
        shape = yield from chained(self.first, input_shape)
        b, *sides, channels = shape
        pooled = (b, *(None if side is None else -(-side // 2) for side in sides), channels)
        return (yield from chained(self.stages, pooled))

    def network(self, images: Tensor, training: bool | None) -> Tensor:
        x = images
        for part in self.first:
            x = part(x, training=training)  # (b, h / 2, w / 2, width)
        if self.kind == "resnet_v2":
            x = ops.max_pool(x, 3, 2, padding="same", **LAST)
        else:  # zeros are no larger than the values after the activation
            x = ops.max_pool(pad_sides(x, 1), 3, 2, **LAST)
        for block in self.stages:
            x = block(x, training=training)
        return x  # (b, h / s, w / s, f)

    def get_config(self) -> dict[str, Any]:
        names = ("hidden_dim", "patch_size", "kind", "width", "blocks", "flatten")
        return {**super().get_config(), **arguments(self, *names)}


@register
class MobileCLIPEmbedding(HybridStem):
    """Embeds patches of 16 pixels by three convolutions of strides 4, 2 and 2, whose kernels do not overlap.

    Batch normalisation and an activation follow the first two. Reference: Vasu et al., "MobileCLIP"
    (https://arxiv.org/abs/2311.17049); timm 1.0.31, `ConvStem` in `models/vision_transformer_hybrid.py`.

    Args:
        hidden_dim: int, the width d of a token, a multiple of 4.
        patch_size: int or (height, width), which is 16.
        activation: name or callable, see `get_activation`.
        allow_remainder, flatten: bool, see `PatchEmbedding`.

    Input shape: `(b, h, w, c)`; b, h and w may be unknown.
    Output shape: `(b, n, hidden_dim)`, rows first; `(b, rows, columns, hidden_dim)` without `flatten`.

    Raises:
        ValueError: another `patch_size`, or one that does not divide the image.
    """

    STRIDES = (4, 2, 2)

    def __init__(
        self,
        hidden_dim: int,
        patch_size: Size = 16,
        activation: Activation = "gelu",
        allow_remainder: bool = False,
        flatten: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden_dim, self.patch_size = hidden_dim, pair(patch_size, "patch_size")
        self.activation = get_activation(activation)
        self.allow_remainder, self.flatten = allow_remainder, flatten
        if self.patch_size != (16, 16):
            raise ValueError(f"the stem of MobileCLIP has patches of 16 pixels, got {self.patch_size}")
        options: dict[str, Any] = dict(norm="batch", activation=self.activation, dtype=self.dtype_policy)
        *first, last = self.STRIDES
        width = hidden_dim // 4
        self.first = [ConvNorm(width, s, s, name=f"conv_{i}", **options) for i, s in enumerate(first)]
        self.projection = keras.layers.Conv2D(
            hidden_dim, last, strides=last, dtype=self.dtype_policy, name="conv_2", **LAST
        )

    def network_parts(self, input_shape: Shape) -> Parts:
        return (yield from chained(self.first, input_shape))

    def network(self, images: Tensor, training: bool | None) -> Tensor:
        x = images
        for part in self.first:
            x = part(x, training=training)  # (b, h / 4, w / 4, d / 4), then (b, h / 8, w / 8, d / 4)
        return x

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        names = ("hidden_dim", "patch_size", "allow_remainder", "flatten")
        return {**super().get_config(), **arguments(self, *names), "activation": activation}


def chained(parts: list, shape: Shape) -> Parts:
    """Yields (part, shape of its input) of layers in a row; returns the shape of the last output."""
    for part in parts:
        yield part, shape
        shape = part.compute_output_shape(shape)
    return shape
