"""Dropout."""

import keras

from vit_tf.config import Tensor
from vit_tf.layers.composite import register
from vit_tf.layers.norms import use_kernels


@register
class Dropout(keras.layers.Dropout):
    """`keras.layers.Dropout`; when TensorFlow trains, in one pass over memory that keeps no mask.

    The random numbers are a hash of the position and of the layer's seed, which takes a fraction of the time
    of TensorFlow's generators. A mask depends on the state of the seed alone, as Keras's does.

    Args: those of `keras.layers.Dropout`.

    Input and output shape: any.
    """

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if not (use_kernels(training) and self.rate > 0 and self.noise_shape is None):
            return super().call(inputs, training=training)
        from vit_tf.layers.tensorflow_kernels import dropout

        return dropout(inputs, self.rate, self.seed_generator.next())
