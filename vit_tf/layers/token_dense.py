"""A dense layer for tokens."""

import contextlib
from contextvars import ContextVar

import keras
from keras import ops

from vit_tf.layers.composite import register
from vit_tf.layers.norms import use_kernels

FUSED = (None, keras.activations.linear, keras.activations.relu)  # TensorFlow's own fusion serves these

STARTS_AT_ZERO = ContextVar("STARTS_AT_ZERO", default=False)


@contextlib.contextmanager
def without_initial_values():
    """A scope in which the kernel of a new `TokenDense` starts at zero, since it is loaded afterwards.

    These layers have nearly all weights of a ViT: random values for them take half the time to build one.
    """
    token = STARTS_AT_ZERO.set(True)
    try:
        yield
    finally:
        STARTS_AT_ZERO.reset(token)


@register
class TokenDense(keras.layers.Dense):
    """`keras.layers.Dense`, applied as one 2-D matrix product over all tokens.

    TensorFlow fuses a bias and GELU or ReLU with a matrix product, but not with the `tensordot` that
    `keras.layers.Dense` uses for tokens `(b, n, d)`.

    Args, attributes and methods: see `keras.layers.Dense`.

    Input shape: `(..., d)`.
    Output shape: `(..., units)`.
    """

    def add_weight(self, *args, **options):
        if STARTS_AT_ZERO.get() and options.get("name") == "kernel":
            options["initializer"] = "zeros"
        return super().add_weight(*args, **options)

    def call(self, inputs, training=None):
        *leading, width = ops.shape(inputs)
        rows = ops.reshape(inputs, (-1, width))
        if use_kernels(training) and self.bias is not None:
            rows = self.train_rows(rows)
        else:
            rows = super().call(rows)
        return ops.reshape(rows, (*leading, self.units))

    def train_rows(self, rows):
        """Returns the output of rows `(r, d)`, with faster gradients on TensorFlow."""
        from vit_tf.layers.tensorflow_kernels import dense, fused_bias_activation

        if self.activation in FUSED:
            return dense(rows, self.kernel, self.bias, self.activation is keras.activations.relu)
        return fused_bias_activation(self.activation, ops.matmul(rows, self.kernel), self.bias)

    def quantized_call(self, inputs, training=None):
        *leading, width = ops.shape(inputs)
        rows = super().quantized_call(ops.reshape(inputs, (-1, width)), training=training)
        return ops.reshape(rows, (*leading, self.units))

    def quantize(self, mode=None, type_check=True, config=None):
        """Quantizes the kernel; `keras.Model.quantize` calls this method.

        Args:
            mode: "int8", "int4" or "float8".
            type_check: ignored. Keras's check rejects subclasses of `Dense`, since their calls may compute
                something else; the call of this class does not.
            config: a `keras.quantizers.QuantizationConfig` or None.

        Raises:
            ValueError: `mode` needs calibration ("gptq", "awq").
        """
        if mode in ("gptq", "awq"):
            raise ValueError(
                f'{mode!r} calibrates on text, and a ViT takes images: choose "int8", "int4" or "float8"'
            )
        return super().quantize(mode, type_check=False, config=config)
