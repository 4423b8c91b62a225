"""Losses and metrics of multi-label classification.

Shapes: b images, k classes.
"""

import keras
from keras import ops


class WeightedBinaryCrossentropy(keras.losses.Loss):
    """Sigmoid cross-entropy with a weight for the positive targets of each class.

    The same as `pos_weight` of PyTorch's BCEWithLogitsLoss and `tf.nn.weighted_cross_entropy_with_logits`.
    With weights of 1 it is `keras.losses.BinaryCrossentropy(from_logits=True)`.

    Args:
        positive_weights: k floats.
        label_smoothing: float in [0, 1), how far targets are moved towards 0.5.

    Input: targets and logits (b, k). Output: (b,) before the reduction, in nats.
    """

    def __init__(self, positive_weights, label_smoothing=0.0, name="weighted_binary_crossentropy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.positive_weights = [float(weight) for weight in positive_weights]
        self.label_smoothing = label_smoothing

    def call(self, targets, logits):
        logits = ops.convert_to_tensor(logits)
        targets = ops.cast(targets, logits.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        weights = ops.convert_to_tensor(self.positive_weights, logits.dtype)
        positive = weights * targets * ops.softplus(-logits)
        return ops.mean(positive + (1 - targets) * ops.softplus(logits), axis=-1)

    def get_config(self):
        config = {"positive_weights": self.positive_weights, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **config}


def label_accuracy(targets, logits):
    """Returns the fraction of correct decisions at probability 0.5, (b,); mixed targets are rounded."""
    return ops.mean(ops.cast(ops.equal(targets >= 0.5, logits > 0), "float32"), axis=-1)
