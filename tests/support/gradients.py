"""One gradient of a scalar loss, on whichever backend is there."""

import keras
import numpy as np


def gradients(layer, inputs, loss):
    """Returns {variable path: gradient as NumPy} of `loss(layer(inputs))` in training mode."""
    variables = layer.trainable_variables
    if not variables:
        return {}
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss(layer(inputs, training=True))
        values = tape.gradient(value, [v.value for v in variables])
    elif backend == "jax":
        import jax

        def scalar(trainable):
            with keras.StatelessScope(state_mapping=list(zip(variables, trainable))):
                return loss(layer(inputs, training=True))

        # One program compiles faster than each of its operations alone.
        values = jax.jit(jax.grad(scalar))([v.value for v in variables])
    else:
        import torch

        with torch.enable_grad():
            loss(layer(inputs, training=True)).backward()
        values = [v.value.grad for v in variables]
    return {
        v.path: None if g is None else np.array(keras.ops.convert_to_numpy(g))
        for v, g in zip(variables, values)
    }
