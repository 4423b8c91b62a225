"""The dense layer that is applied to each token."""

import keras
from keras import ops

from vit_tf.layers.composite import register
from vit_tf.layers.norms import use_kernels


@register
class TokenDense(keras.layers.Dense):
    """`keras.layers.Dense` as one product of two matrices, the tokens of all images being the rows of one.

    TensorFlow adds the bias and takes GELU or ReLU within a product of matrices, and not within the
    `tensordot` that Keras has for tokens `(b, n, d)`.

    Args, attributes and methods: those of `keras.layers.Dense`.

    Input shape: `(..., d)`.
    Output shape: `(..., units)`.
    """

    def call(self, inputs, training=None):
        *leading, width = ops.shape(inputs)
        rows = ops.reshape(inputs, (-1, width))
        if use_kernels(training) and self.bias is not None and self.has_costly_activation:
            from vit_tf.layers.tensorflow_kernels import fused_bias_activation

            rows = ops.matmul(rows, self.kernel)
            rows = fused_bias_activation(self.activation, rows, self.bias)
        else:
            rows = super().call(rows)
        return ops.reshape(rows, (*leading, self.units))

    def quantized_call(self, inputs, training=None):
        *leading, width = ops.shape(inputs)
        rows = super().quantized_call(ops.reshape(inputs, (-1, width)), training=training)
        return ops.reshape(rows, (*leading, self.units))

    def quantize(self, mode=None, type_check=True, config=None):
        """Quantizes the kernel; see `keras.Model.quantize`, which calls this.

        Args:
            mode: "int8", "int4" or "float8".
            type_check: ignored. Keras refuses subclasses of `Dense`, whose calls may differ; this one's does
                not.
            config: a `keras.quantizers.QuantizationConfig` or None.

        Raises:
            ValueError: a mode that needs calibration ("gptq", "awq").
        """
        if mode in ("gptq", "awq"):
            raise ValueError(
                f'{mode!r} calibrates on text, which a ViT does not take: choose "int8", "int4" or "float8"'
            )
        return super().quantize(mode, type_check=False, config=config)

    @property
    def has_costly_activation(self):
        return self.activation not in (None, keras.activations.linear, keras.activations.relu)
