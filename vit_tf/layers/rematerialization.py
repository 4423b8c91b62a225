"""Rematerialisation: activations that are computed again in the backward pass rather than kept."""

import keras
from keras import ops


def rematerialize(layer, layer_call):
    """Returns `layer_call` so that its activations are not kept; the same masks are drawn both times.

    Keras's own way (3.15) cannot be compiled on TensorFlow and JAX when a layer takes `training`, and its
    second pass draws other dropout masks, which makes wrong gradients. Here weights go in as arguments, and
    random states from before the first pass, so that the second is the same.

    Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost"
    (https://arxiv.org/abs/1604.06174).

    Args:
        layer: a built `keras.layers.Layer`.
        layer_call: its `call`, whose first argument is a tensor.
    """

    def call(inputs, *args, **kwargs):
        weights = layer.weights
        known = {id(weight) for weight in weights}
        states = [variable for variable in layer.variables if id(variable) not in known]
        before = [state.value * 1 for state in states]  # copies: the first pass moves the states on

        def forward(inputs, *values):
            mapping = [*zip(weights, values), *zip(states, before)]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                outputs = layer_call(inputs, *args, **kwargs)
                return outputs, [scope.get_current_value(state) for state in states]

        values = [ops.convert_to_tensor(weight.value) for weight in weights]
        outputs, after = keras.remat(forward)(inputs, *values)
        for state, value in zip(states, after):
            state.assign(value)
        return outputs

    return call
