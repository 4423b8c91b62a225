"""What stands around attention and MLP in a residual branch: norms, LayerScale, DropPath."""

import keras
from keras import ops

from vit_tf.checks import shown

register = keras.saving.register_keras_serializable(package="vit_tf")


def use_kernels(training):
    """Whether a layer shall use `tensorflow_kernels`."""
    return bool(training) and keras.backend.backend() == "tensorflow"


@register
class LayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` of the last axis, in fewer passes over memory on TensorFlow.

    Args: those of `keras.layers.LayerNormalization`.

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


def make_norm(kind, epsilon, dtype, name, initial_scale=None):
    """Returns the norm of a `kind` over the last axis: "layer" (LayerNormalization) or "rms".

    Raises:
        ValueError: `kind` is neither, or is "rms" with an `initial_scale`, which Keras has not.
    """
    if kind == "layer":
        initializer = "ones" if initial_scale is None else keras.initializers.Constant(initial_scale)
        return LayerNormalization(epsilon=epsilon, gamma_initializer=initializer, dtype=dtype, name=name)
    if kind == "rms" and initial_scale is not None:
        raise ValueError('a norm that starts at `layer_scale_init` must be `norm="layer"`')
    if kind == "rms":
        return keras.layers.RMSNormalization(epsilon=epsilon, dtype=dtype, name=name)
    raise ValueError(f'`norm` must be "layer" or "rms", got {shown(kind)}')


@register
class DropPath(keras.layers.Layer):
    """Drops a residual branch for whole samples, and scales the others up by 1 / (1 - rate).

    Reference: Huang et al., "Deep Networks with Stochastic Depth" (https://arxiv.org/abs/1603.09382).

    Args:
        rate: float in [0, 1), the chance that a sample loses the branch.
        seed: int, for a repeatable choice.

    Call arguments:
        inputs: tensor `(b, ...)`.
        training: bool, whether branches are dropped.

    Output shape: as the input.

    Raises:
        ValueError: `rate` is outside [0, 1).
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"`rate` must be in [0, 1), got {shown(rate)}")
        self.rate = rate
        self.seed = seed
        self.supports_masking = True
        if rate:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, inputs, training=None):
        if not training or not self.rate:
            return inputs
        noise_shape = (ops.shape(inputs)[0],) + (1,) * (len(inputs.shape) - 1)
        return keras.random.dropout(inputs, self.rate, noise_shape, seed=self.seed_generator)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}


@register
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a learned factor that starts small.

    Reference: Touvron et al., "Going deeper with Image Transformers"
    (https://arxiv.org/abs/2103.17239), section 2.

    Args:
        initial_value: float, the factors at the start.

    Input and output shape: `(..., d)`.
    """

    def __init__(self, initial_value=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.initial_value = initial_value
        self.supports_masking = True

    def build(self, input_shape):
        self.gamma = self.add_weight(
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_value),
            name="gamma",
        )

    def call(self, inputs):
        return inputs * self.gamma

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "initial_value": self.initial_value}
