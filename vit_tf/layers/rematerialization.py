"""Rematerialisation: the backward pass computes activations again instead of keeping them."""

import keras
from keras import ops


def rematerialize(layer, layer_call):
    """Returns a function like `layer_call` that does not keep its activations.

    Keras's own rematerialisation (3.15) cannot be compiled on TensorFlow and JAX if a layer takes `training`,
    and its second pass draws other dropout masks, which makes gradients wrong. Here weights are arguments,
    and both passes start from the same random states.

    Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost"
    (https://arxiv.org/abs/1604.06174).

    Args:
        layer: a built `keras.layers.Layer`.
        layer_call: the layer's `call`, whose first argument is a tensor.

    Returns:
        A function with the arguments of `layer_call`.
    """

    def call(inputs, *args, **kwargs):
        weights = layer.weights
        known = {id(weight) for weight in weights}
        states = [variable for variable in layer.variables if id(variable) not in known]
        before = [state.value * 1 for state in states]  # copies: the first pass advances the states

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
