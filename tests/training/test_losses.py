import keras
import numpy as np
import pytest
from support.label_sets import LOGITS, TARGETS

from vit_tf.training import label_metrics as multi_label
from vit_tf.training import tasks
from vit_tf.training.losses import WeightedBinaryCrossentropy, label_accuracy


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_agree(smoothing):
    """Keras's, the weighted one with weights of one, and that of the validation."""
    targets = TARGETS.astype("float32")
    ours = multi_label.sigmoid_cross_entropy(5 * LOGITS, targets, smoothing)
    for loss in (tasks.MULTI_LABEL.loss(smoothing), tasks.MULTI_LABEL.loss(smoothing, np.ones(4))):
        assert float(loss(targets, 5 * LOGITS.astype("float32"))) == pytest.approx(ours, rel=1e-5)


def test_weighted_loss_by_hand():
    """Positive terms alone are weighted; the loss is read back from its configuration."""
    loss = WeightedBinaryCrossentropy([3.0, 0.5])
    loss = WeightedBinaryCrossentropy.from_config(loss.get_config())
    logits = np.array([[1.0, -2.0], [0.5, 3.0]], "float32")
    p = 1 / (1 + np.exp(-logits))
    terms = [[-3 * np.log(p[0, 0]), -np.log(1 - p[0, 1])], [-np.log(1 - p[1, 0]), -0.5 * np.log(p[1, 1])]]
    assert float(loss(np.array([[1, 0], [0, 1]]), logits)) == pytest.approx(np.mean(terms), rel=1e-5)


def test_accuracy_counts_decisions():
    targets, logits = np.array([[1, 0, 0.7, 0.2]], "float32"), np.array([[2, 1, 3, -1]], "float32")
    assert float(keras.ops.mean(label_accuracy(targets, logits))) == pytest.approx(3 / 4)
