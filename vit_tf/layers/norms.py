"""The norms, and the choice between them."""

import keras
from keras import ops

from vit_tf.checks import check_choice
from vit_tf.layers.composite import register


def use_kernels(training):
    """Whether a layer uses `tensorflow_kernels`: in training, with TensorFlow."""
    return bool(training) and keras.backend.backend() == "tensorflow"


@register
class LayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` of the last axis, in fewer passes over memory on TensorFlow.

    Args:
        epsilon, gamma_initializer, name, dtype: those of `keras.layers.LayerNormalization`. Its other
            arguments must keep their defaults: the last axis, a scale and an offset.

    Input and output shape: `(..., d)`.
    """

    def call(self, inputs, training=None):
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs)
        if use_kernels(training):
            from vit_tf.layers.tensorflow_kernels import layer_norm

            return ops.cast(layer_norm(inputs, self.gamma, self.beta, self.epsilon), self.compute_dtype)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        x = ops.cast(inputs, dtype)
        x = x - ops.mean(x, axis=-1, keepdims=True)
        x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(x * ops.cast(self.gamma, dtype) + ops.cast(self.beta, dtype), self.compute_dtype)


@register
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` of the last axis of maps, in one kernel when TensorFlow trains.

    Args:
        momentum, epsilon, name, dtype: those of `keras.layers.BatchNormalization`. Its other arguments must
            keep their defaults: the last axis, a scale and an offset.

    Input and output shape: `(b, h, w, c)`.
    """

    def call(self, inputs, training=None, mask=None):
        is_half_or_single = keras.backend.standardize_dtype(inputs.dtype) != "float64"
        if not (use_kernels(training) and self.trainable and mask is None and is_half_or_single):
            return super().call(inputs, training=training, mask=mask)
        from vit_tf.layers.tensorflow_kernels import batch_norm

        x, mean, variance = batch_norm(inputs, self.gamma, self.beta, self.epsilon)
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + ops.cast(new, moving.dtype) * (1 - self.momentum))
        return x


def make_norm(kind, epsilon, dtype, name, initial_scale=None):
    """Returns a norm over the last axis.

    Args:
        kind: "layer" (`LayerNormalization`) or "rms" (`keras.layers.RMSNormalization`).
        epsilon: float, added to the variance or the mean square.
        dtype: dtype or dtype policy.
        name: name of the layer.
        initial_scale: float, the scale factors at the start; None for 1. Only for "layer".

    Raises:
        ValueError: another `kind`; "rms" with an `initial_scale`, which Keras does not support.
    """
    check_choice("norm", kind, ("layer", "rms"))
    if kind == "layer":
        initializer = "ones" if initial_scale is None else keras.initializers.Constant(initial_scale)
        return LayerNormalization(epsilon=epsilon, gamma_initializer=initializer, dtype=dtype, name=name)
    if initial_scale is not None:
        raise ValueError('a norm that starts at `layer_scale_init` must be `norm="layer"`')
    return keras.layers.RMSNormalization(epsilon=epsilon, dtype=dtype, name=name)
