"""Convolutions with norms, and the bottleneck block of residual networks: the parts of hybrid stems.

Shapes in the comments: b batch, h and w height and width, c channels, f filters.
Images and maps are NHWC, independent of `keras.config.image_data_format()`.
"""

from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from vit_tf.checks import check_choice, check_int
from vit_tf.config import Shape, Tensor
from vit_tf.layers.composite import CompositeLayer, arguments, register
from vit_tf.layers.mlp import Activation, get_activation
from vit_tf.layers.norms import BatchNormalization

NORMS = ("group", "batch")
GROUPS = 32  # of a group norm
EPSILON = 1e-5  # added to the variance in both norms
LAST = dict(data_format="channels_last")


def pad_sides(x: Tensor, padding: int) -> Tensor:
    """Adds `padding` zeros on each side of maps `(b, h, w, c)`."""
    return ops.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0))) if padding else x


@register
class StandardizedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` whose kernel has mean 0 and variance 1 for each filter.

    Reference: Qiao et al., "Weight Standardization" (https://arxiv.org/abs/1903.10520); with epsilon 1e-8,
    as in Kolesnikov et al., "Big Transfer" (https://arxiv.org/abs/1912.11370).

    Args: those of `keras.layers.Conv2D`.

    Input and output shapes: those of `keras.layers.Conv2D`.
    """

    def add_weight(self, *args: Any, name: str | None = None, **options: Any) -> keras.Variable:
        # Half precision would round the kernel before its mean is subtracted.
        return super().add_weight(*args, name=name, autocast=name != "kernel", **options)

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        return super().convolution_op(inputs, ops.cast(self.standardize(kernel), inputs.dtype))

    def standardize(self, kernel: Tensor) -> Tensor:
        """Returns a kernel `(rows, columns, c, f)` with mean 0 and variance 1 over all axes but the last.

        The result is float32 at least.
        """
        x = ops.cast(kernel, keras.backend.result_type(kernel.dtype, "float32"))
        x = x - ops.mean(x, axis=(0, 1, 2), keepdims=True)
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=(0, 1, 2), keepdims=True) + 1e-8)


@register
class ConvNorm(CompositeLayer):
    """A convolution without bias, max pooling if any, a norm of the channels, and an activation.

    Args:
        filters: int, the channels f of the output.
        kernel_size: int, the side of the kernel.
        strides: int.
        norm: "group" (a standardised kernel, and group normalisation with 32 groups: Big Transfer) or "batch"
            (batch normalisation: the residual networks of PyTorch). "group" pads as TensorFlow does, more at
            the end; "batch" pads both sides by (kernel_size - strides + 1) // 2, as PyTorch does.
        activation: name or callable, see `get_activation`; None for none.
        pool_size: int, the side of the pooling, which moves by as much; 1 for none.

    Input shape: `(b, h, w, c)`; b, h and w may be unknown.
    Output shape: `(b, h / strides, w / strides, filters)`, rounded up if there is a padding; then both sides
    divided by `pool_size`, rounded down.

    Raises:
        ValueError: unknown `norm`; `filters` is not a multiple of 32 with "group".
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        strides: int = 1,
        norm: str = "group",
        activation: Activation | None = "relu",
        pool_size: int = 1,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_choice("norm", norm, NORMS)
        check_int("pool_size", pool_size, 1)
        self.pool_size = pool_size
        self.filters, self.kernel_size, self.strides, self.norm_kind = filters, kernel_size, strides, norm
        self.activation = None if activation is None else get_activation(activation)
        is_group = norm == "group"
        if is_group and filters % GROUPS:
            raise ValueError(f"group normalisation needs a multiple of {GROUPS} channels, got {filters}")
        has_padding = not is_group and strides > 1  # which "same" would split in another way
        self.padding = (kernel_size - strides + 1) // 2 if has_padding else 0
        options: dict[str, Any] = dict(padding="valid" if has_padding else "same", use_bias=False, **LAST)
        options |= dict(kernel_initializer="he_normal", dtype=self.dtype_policy, name="convolution")
        convolution = StandardizedConv2D if is_group else keras.layers.Conv2D
        self.convolution = convolution(filters, kernel_size, strides=strides, **options)
        norm_options: dict[str, Any] = dict(epsilon=EPSILON, dtype=self.dtype_policy, name="norm")
        if is_group:
            self.norm = keras.layers.GroupNormalization(GROUPS, **norm_options)
        else:
            self.norm = BatchNormalization(momentum=0.9, **norm_options)

    def build_parts(self, input_shape: Shape) -> None:
        self.convolution.build(input_shape)
        self.norm.build((None, None, None, self.filters))

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        if x.shape[0] == 0:  # TensorFlow's convolution gives another shape for an empty batch
            return ops.zeros(self.compute_output_shape(x.shape), self.compute_dtype)
        x = self.convolution(pad_sides(x, self.padding))  # (b, h / strides, w / strides, f)
        if self.pool_size > 1:
            x = ops.max_pool(x, self.pool_size, self.pool_size, **LAST)
        x = self.norm(x) if self.norm_kind == "group" else self.norm(x, training=training)
        return x if self.activation is None else self.activation(x)

    def padded_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the input of the convolution."""
        sides = [None if side is None else side + 2 * self.padding for side in input_shape[1:3]]
        return input_shape[0], *sides, input_shape[3]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        b, *sides, c = self.convolution.compute_output_shape(self.padded_shape(input_shape))
        return b, *[None if side is None else side // self.pool_size for side in sides], c

    def get_config(self) -> dict[str, Any]:
        activation = None if self.activation is None else keras.activations.serialize(self.activation)
        sizes = arguments(self, "filters", "kernel_size", "strides", "pool_size")
        return {**super().get_config(), **sizes, "norm": self.norm_kind, "activation": activation}


@register
class Bottleneck(CompositeLayer):
    """A residual block of three convolutions, the middle one of a quarter of the width.

    Reference: He et al., "Deep Residual Learning" (https://arxiv.org/abs/1512.03385), with the stride in the
    3x3 convolution. The shortcut of "batch" averages before its convolution, as in He et al., "Bag of Tricks
    for Image Classification" (https://arxiv.org/abs/1812.01187), ResNet-D.

    Args:
        filters: int, the channels f of the output.
        strides: int, 1 or 2.
        norm: "group" or "batch", see `ConvNorm`.
        projects: bool, whether the shortcut has a convolution: the input has other channels or another size.

    Input shape: `(b, h, w, c)`; b, h and w may be unknown.
    Output shape: `(b, h / strides, w / strides, filters)`, rounded up.
    """

    def __init__(
        self, filters: int, strides: int = 1, norm: str = "group", projects: bool = False, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.filters, self.strides, self.norm, self.projects = filters, strides, norm, projects
        options: dict[str, Any] = dict(norm=norm, dtype=self.dtype_policy)
        self.conv_1 = ConvNorm(filters // 4, 1, name="conv_1", **options)
        self.conv_2 = ConvNorm(filters // 4, 3, strides, name="conv_2", **options)
        self.conv_3 = ConvNorm(filters, 1, activation=None, name="conv_3", **options)
        self.averages = norm == "batch" and strides > 1
        strides = 1 if self.averages else strides
        self.shortcut = None
        if projects:
            self.shortcut = ConvNorm(filters, 1, strides, activation=None, name="shortcut", **options)

    def parts(self, input_shape: Shape) -> Iterator[tuple[ConvNorm, Shape]]:
        """Yields (part, shape of its input) for an input of `input_shape`."""
        shape = input_shape
        for part in (self.conv_1, self.conv_2, self.conv_3):
            yield part, shape
            shape = part.compute_output_shape(shape)
        if self.shortcut is not None:
            yield self.shortcut, (*shape[:3], input_shape[3]) if self.averages else input_shape

    def build_parts(self, input_shape: Shape) -> None:
        for part, shape in self.parts(input_shape):
            part.build(shape)

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        if x.shape[0] == 0:
            return ops.zeros(self.compute_output_shape(x.shape), self.compute_dtype)
        y = x
        for part in (self.conv_1, self.conv_2, self.conv_3):
            y = part(y, training=training)
        if self.averages:  # the mean of the pixels that exist, at an odd border, too
            x = ops.average_pool(x, 2, 2, padding="same", **LAST)
        if self.shortcut is not None:
            x = self.shortcut(x, training=training)
        return ops.relu(x + y)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*self.conv_2.compute_output_shape(input_shape)[:3], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **arguments(self, "filters", "strides", "norm", "projects")}
