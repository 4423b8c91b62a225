"""Layers that let someone look at what they compute, and change it."""

import keras


class Tapped(keras.layers.Layer):
    """A layer with a tap on one of its inner tensors; its docstring says which.

    Attributes:
        tap: None, or a function from that tensor to the one that takes its place, such as its sum with
            zeros whose gradient is asked for. `vit_tf.explain` sets it.
    """

    tap = None

    def tapped(self, x):
        return x if self.tap is None else self.tap(x)

    def is_tapped(self):
        """Whether someone looks at this layer, or at one inside."""
        return self.tap is not None

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """Keras asks for this in a `keras.RematScope`, out of which no gradient of what a tap adds comes."""
        if self.is_tapped():
            return layer_call
        return super().rematerialized_call(layer_call, *args, **kwargs)
