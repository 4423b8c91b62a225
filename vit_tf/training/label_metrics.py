"""Metrics of multi-label classifiers: average precision, F1, thresholds.

Shapes: n images, k classes.
"""

import numpy as np

from vit_tf.predictions import probabilities
from vit_tf.training.metrics import class_quality, ratio
from vit_tf.training.ranking import average_precision, choose_threshold


def sigmoid_cross_entropy(logits, targets, label_smoothing=0.0):
    """Returns the mean sigmoid cross-entropy over images and classes, in nats.

    Args:
        logits, targets: (n, k).
        label_smoothing: float in [0, 1), how far targets are moved towards 0.5, as in Keras.
    """
    logits = np.asarray(logits, "float64")
    targets = targets * (1 - label_smoothing) + label_smoothing / 2
    return float((np.logaddexp(0, logits) - targets * logits).mean())


def mean_average_precision(logits, targets):
    """Returns the mean of the classes' average precisions; classes without images are left out.

    Args:
        logits: float array (n, k).
        targets: bool array (n, k).

    Returns:
        A float, or None if no class has images.
    """
    values = [average_precision(logits[:, i], targets[:, i]) for i in range(targets.shape[1])]
    return mean(values)


def choose_thresholds(logits, targets):
    """Returns the probability threshold of each class that maximises its F1.

    Args:
        logits: float array (n, k), of validation images.
        targets: bool array (n, k).
    """
    scores = probabilities(logits, "sigmoid")
    return [choose_threshold(scores[:, i], targets[:, i]) for i in range(targets.shape[1])]


def evaluate_multi_label(logits, targets, class_names, thresholds):
    """Returns average precision, precision, recall and F1, per class and over all classes.

    Args:
        logits: float array (n, k).
        targets: bool array (n, k).
        class_names: k names.
        thresholds: k probabilities; a class is predicted from its threshold on.

    Returns:
        A dict ready for JSON: `mean_average_precision` and `macro_f1`, means over the classes for which they
        are defined; `micro_f1`, over all decisions; `exact_match`, the fraction of images with all classes
        correct; `thresholds`; `classes`, by name, with `average_precision`, `precision`, `recall`, `f1` (None
        if not defined), `threshold` and `images`, the number of images with the class.
    """
    predicted = probabilities(logits, "sigmoid") >= thresholds
    correct, predictions, images = (predicted & targets).sum(0), predicted.sum(0), targets.sum(0)
    classes = {
        name: {
            "average_precision": average_precision(logits[:, i], targets[:, i]),
            **class_quality(correct[i], predictions[i], images[i]),
            "threshold": float(thresholds[i]),
            "images": int(images[i]),
        }
        for i, name in enumerate(class_names)
    }
    return {
        "mean_average_precision": mean([values["average_precision"] for values in classes.values()]),
        "micro_f1": ratio(2 * correct.sum(), predictions.sum() + images.sum()),
        "macro_f1": mean([values["f1"] for values in classes.values()]),
        "exact_match": float((predicted == targets).all(axis=1).mean()),
        "thresholds": [float(threshold) for threshold in thresholds],
        "classes": classes,
    }


def mean(values):
    """Returns the mean of the values that are not None, None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def wrong_images(logits, targets, thresholds, count=24):
    """Returns the indices of at most `count` images with a wrong class, the most confident errors first.

    The confidence of an error is the distance of its probability from the threshold of the class.
    """
    distances = probabilities(logits, "sigmoid") - thresholds
    errors = np.where((distances >= 0) != targets, np.abs(distances), -1.0).max(axis=1)
    wrong = np.flatnonzero(errors >= 0)
    return wrong[np.argsort(-errors[wrong], kind="stable")[:count]]
