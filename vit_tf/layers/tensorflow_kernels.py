"""LayerNormalization, dropout, bias with activation, and the gradient of softmax, as one XLA kernel each.

Plain TensorFlow operations need a dozen passes over memory for each of them. Only training with TensorFlow
uses these kernels. XLA compiles nothing else: its matrix products are slower than TensorFlow's on a CPU.
Inference uses plain operations, which TensorFlow fuses with the matrix products, and which converters of
saved models support. JAX compiles whole steps, and PyTorch has its own kernels.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

compiled = functools.partial(tf.function, jit_compile=True, autograph=False)


def layer_norm(x, gamma, beta, epsilon):
    """Normalises the last axis; computed in float32.

    Args:
        x: tensor `(..., d)`.
        gamma, beta: tensors `(d,)`, scale and offset, of any float dtype.
        epsilon: float, added to the variance.

    Returns:
        A tensor of the shape and dtype of `x`.

    Reference: Ba et al., "Layer Normalization" (https://arxiv.org/abs/1607.06450).
    """

    @tf.custom_gradient
    def normalize(x, gamma, beta):
        y, mean, scale = layer_norm_forward(x, gamma, beta, epsilon)

        def gradient(dy):
            dx, dy_normalized = layer_norm_backward(dy, x, mean, scale, gamma)
            return dx, column_sums(dy_normalized, gamma), column_sums(dy, beta)

        return y, gradient

    return normalize(*map(tf.convert_to_tensor, (x, gamma, beta)))


@compiled
def layer_norm_forward(x, gamma, beta, epsilon):
    rows = flatten_rows(x)  # (r, d)
    mean = row_means(rows)  # (r, 1)
    scale = tf.math.rsqrt(row_means(tf.square(rows - mean)) + epsilon)
    y = (rows - mean) * scale * upcast(gamma) + upcast(beta)
    return reshape_cast_like(y, x), mean, scale


@compiled
def layer_norm_backward(dy, x, mean, scale, gamma):
    dy, normalized = flatten_rows(dy), (flatten_rows(x) - mean) * scale
    dn = dy * upcast(gamma)
    dx = scale * (dn - row_means(dn) - normalized * row_means(dn * normalized))
    return reshape_cast_like(dx, x), dy * normalized


def softmax(x):
    """Returns the softmax over the last axis, in float32 at least, of a tensor `(..., n)` with a known n."""
    x = tf.convert_to_tensor(x)
    dtype = x.dtype.name

    @tf.custom_gradient
    def normalize(x):
        y = tf.nn.softmax(upcast(x))
        return y, lambda dy: softmax_backward(dy, y, dtype)

    return normalize(x)


@compiled
def softmax_backward(dy, y, dtype):
    rows, dy = flatten_rows(y), flatten_rows(dy)
    inner = y.shape[-1] * row_means(rows * dy)  # (r, 1)
    return tf.cast(tf.reshape(rows * (dy - inner), tf.shape(y)), dtype)


def dropout(x, rate, seed):
    """Sets numbers to zero at random, and divides the others by 1 - rate.

    The backward pass draws the same mask again: none is kept.

    Args:
        x: tensor of any shape, of at most 2**31 numbers.
        rate: float in [0, 1), the probability of zero.
        seed: two integers, a tensor.

    Returns:
        A tensor of the shape and dtype of `x`.
    """
    keys = tf.cast(seed, tf.uint32)

    @tf.custom_gradient
    def drop(x):
        return masked(x, rate, keys), lambda dy: masked(dy, rate, keys)

    return drop(tf.convert_to_tensor(x))


@compiled
def masked(x, rate, keys):
    """Returns x / (1 - rate) where a hash of the position, in 32 bits, is at least rate * 2**32, else 0.

    The hash is "lowbias32" (https://nullprogram.com/blog/2018/07/31/) with a key before each of its products.
    """
    first, second = mix(keys[0], keys[1]), mix(keys[1], keys[0] ^ tf.constant(0x9E3779B9, tf.uint32))
    numbers = mix(tf.cast(tf.range(tf.size(x)), tf.uint32) ^ first, second)
    is_kept = tf.reshape(numbers >= tf.constant(round(rate * 2**32), tf.uint32), tf.shape(x))
    return tf.where(is_kept, x * tf.constant(1 / (1 - rate), x.dtype), tf.zeros((), x.dtype))


def mix(x, key):
    """Hashes 32-bit numbers, tensors of uint32."""

    def fold(x, bits):
        return x ^ tf.bitwise.right_shift(x, tf.constant(bits, tf.uint32))

    x = fold(x, 16) * tf.constant(0x7FEB352D, tf.uint32)
    x = fold(x ^ key, 15) * tf.constant(0x846CA68B, tf.uint32)
    return fold(x, 16)


def batch_norm(x, gamma, beta, epsilon):
    """Normalises each channel by the mean and the variance of a batch; the statistics are float32.

    Args:
        x: tensor `(b, h, w, c)` of 16 or 32 bits per number.
        gamma, beta: tensors `(c,)`, scale and offset, of any float dtype.
        epsilon: float, added to the variance.

    Returns:
        A tensor of the shape and dtype of `x`, and mean and variance, each `(c,)`.

    Reference: Ioffe and Szegedy, "Batch Normalization" (https://arxiv.org/abs/1502.03167), algorithm 1.
    """
    gamma, beta = (tf.cast(tf.convert_to_tensor(value), tf.float32) for value in (gamma, beta))
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, is_training=True
    )
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
    return y, mean, variance * (count - 1) / count  # TensorFlow divides by count - 1


def dense(x, kernel, bias, with_relu=False):
    """Returns `x @ kernel + bias`, or its ReLU; TensorFlow computes all of it in one operation.

    Args:
        x: tensor `(r, k)`.
        kernel, bias: tensors `(k, d)` and `(d,)` of the same dtype.
        with_relu: bool.

    Returns:
        A tensor `(r, d)`.
    """

    @tf.custom_gradient
    def project(x, kernel, bias):
        y = tf.nn.bias_add(tf.matmul(x, kernel), bias)
        y = tf.nn.relu(y) if with_relu else y

        def gradient(dy):
            dy = tf.raw_ops.ReluGrad(gradients=dy, features=y) if with_relu else dy
            dx = tf.matmul(dy, kernel, transpose_b=True)
            return dx, tf.matmul(x, dy, transpose_a=True), column_sums(dy, bias)

        return y, gradient

    return project(*map(tf.convert_to_tensor, (x, kernel, bias)))


def mlp(x, first, second, function):
    """Returns `function(x @ kernel + bias) @ kernel + bias` of two dense layers.

    The activation is not kept: in the backward pass the kernel of its gradient computes it again.

    Args:
        x: tensor `(r, d)`.
        first, second: kernels and biases, tensors `(d, m)`, `(m,)` and `(m, e)`, `(e,)`, of the dtype of `x`.
        function: an elementwise activation, on float32.

    Returns:
        A tensor `(r, e)`.
    """
    kernels = activation_kernels(function)

    @tf.custom_gradient
    def project(x, kernel_1, bias_1, kernel_2, bias_2):
        inner = tf.matmul(x, kernel_1)  # (r, m)
        y = tf.nn.bias_add(tf.matmul(kernels.forward(inner, bias_1), kernel_2), bias_2)

        def gradient(dy):
            dactivated = tf.matmul(dy, kernel_2, transpose_b=True)
            dinner, activated = kernels.backward_and_output(dactivated, inner, bias_1)
            dkernel_2 = tf.matmul(activated, dy, transpose_a=True)
            dkernel_1 = tf.matmul(x, dinner, transpose_a=True)
            dx = tf.matmul(dinner, kernel_1, transpose_b=True)
            return dx, dkernel_1, column_sums(dinner, bias_1), dkernel_2, column_sums(dy, bias_2)

        return y, gradient

    return project(*map(tf.convert_to_tensor, (x, *first, *second)))


def fused_bias_activation(function, x, bias):
    """Returns function(x + bias); keeps only `x` and `bias` for the backward pass.

    Args:
        function: an elementwise activation, on float32.
        x: tensor `(..., d)`.
        bias: tensor `(d,)`.

    Returns:
        A tensor of the shape and dtype of `x`.
    """
    kernels = activation_kernels(function)

    @tf.custom_gradient
    def activate(x, bias):
        def gradient(dy):
            dx = kernels.backward(dy, x, bias)
            return dx, column_sums(dx, bias)

        return kernels.forward(x, bias), gradient

    return activate(*map(tf.convert_to_tensor, (x, bias)))


class ActivationKernels(NamedTuple):
    """Kernels of y = function(x + bias): `forward` gives y, `backward` dx, `backward_and_output` dx and y."""

    forward: Callable
    backward: Callable
    backward_and_output: Callable


@functools.cache
def activation_kernels(function):
    """Returns the `ActivationKernels` of an elementwise function, on float32."""
    function = XLA_REPLACEMENTS.get(function, function)

    @compiled
    def forward(x, bias):
        return reshape_cast_like(function(flatten_rows(x) + upcast(bias)), x)

    def backward_and_output(dy, x, bias):
        biased = flatten_rows(x) + upcast(bias)
        with tf.GradientTape() as tape:
            tape.watch(biased)
            y = function(biased)
        dx = tape.gradient(y, biased, output_gradients=flatten_rows(dy))
        return reshape_cast_like(dx, x), reshape_cast_like(y, x)

    @compiled
    def backward(dy, x, bias):
        return backward_and_output(dy, x, bias)[0]

    return ActivationKernels(forward, backward, compiled(backward_and_output))


def gelu(x):
    """The exact GELU by erf. XLA needs twice as long for Keras's, by erfc; the results differ by 1e-7."""
    return 0.5 * x * (1 + tf.math.erf(x * 0.5**0.5))


XLA_REPLACEMENTS = {keras.activations.gelu: gelu}


def flatten_rows(x):
    """Reshapes `(..., d)` to `(r, d)`, in float32 at least."""
    return upcast(tf.reshape(x, (-1, x.shape[-1])))


def upcast(x):
    """Casts to float32; float64 stays."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def reshape_cast_like(rows, x):
    """Gives rows the shape and the dtype of `x`."""
    return tf.cast(tf.reshape(rows, tf.shape(x)), x.dtype)


def row_means(rows):
    """Means of rows by a product with a vector: XLA's reductions need three times as long on a CPU."""
    width = rows.shape[-1]
    return tf.matmul(rows, tf.constant(1 / width, rows.dtype, (width, 1)))  # (r, 1)


def column_sums(x, like):
    """Sums over all axes but the last, in the dtype of `like`.

    On a CPU a product with a row of ones sums twice as fast as TensorFlow's gradient of a bias, whose kernel
    has one thread, and ten times as fast as XLA. It sums bfloat16 in float32; float16 it would not, and a GPU
    would round float32 to TF32.
    """
    if x.dtype == tf.float16 or tf.config.list_physical_devices("GPU"):
        return tf.cast(tf.raw_ops.BiasAddGrad(out_backprop=x), like.dtype)
    rows = tf.reshape(x, (-1, x.shape[-1]))  # (r, d)
    ones = tf.ones((1, tf.shape(rows)[0]), x.dtype)
    return tf.cast(tf.reshape(tf.matmul(ones, rows), (-1,)), like.dtype)
