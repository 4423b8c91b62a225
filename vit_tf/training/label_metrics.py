"""What the logits of a multi-label classifier are worth: average precision, F1, thresholds.

Shapes: n images, k classes.
"""

import numpy as np

from vit_tf.checks import printable
from vit_tf.predictions import probabilities
from vit_tf.training.metrics import MAX_SHOWN, share
from vit_tf.training.ranking import average_precision, choose_threshold


def sigmoid_cross_entropy(logits, targets, label_smoothing=0.0):
    """Returns the mean sigmoid cross-entropy over images and classes, in nats.

    Args:
        logits, targets: (n, k).
        label_smoothing: float in [0, 1), how far targets are moved to 0.5, as Keras does.
    """
    logits = np.asarray(logits, "float64")
    targets = targets * (1 - label_smoothing) + label_smoothing / 2
    return float((np.logaddexp(0, logits) - targets * logits).mean())


def mean_average_precision(logits, targets):
    """Returns the mean of the classes' average precisions; classes without an image do not count.

    Args:
        logits: float array (n, k).
        targets: bool array (n, k).

    Returns:
        A float, or None where no class has an image.
    """
    values = [average_precision(logits[:, i], targets[:, i]) for i in range(targets.shape[1])]
    return mean(values)


def choose_thresholds(logits, targets):
    """Returns the probability from which on each class counts as present: that of its best F1.

    Args:
        logits: float array (n, k), of validation images.
        targets: bool array (n, k).
    """
    scores = probabilities(logits, "sigmoid")
    return [choose_threshold(scores[:, i], targets[:, i]) for i in range(targets.shape[1])]


def evaluate_multi_label(logits, targets, class_names, thresholds):
    """Returns average precisions, precision, recall and F1 of the classes and of all together.

    Args:
        logits: float array (n, k).
        targets: bool array (n, k).
        class_names: k names.
        thresholds: k probabilities from which on a class is predicted.

    Returns:
        A dict ready for JSON: `mean_average_precision` and `macro_f1`, means over the classes for which they
        are defined; `micro_f1`, of all decisions together; `exact_match`, the share of images whose classes
        are all right; `thresholds`; `classes`, by name, with `average_precision`, `precision`, `recall`, `f1`
        (None where they are not defined), `threshold` and `images`, the number that has the class.
    """
    predicted = probabilities(logits, "sigmoid") >= thresholds
    hits, taken, there = (predicted & targets).sum(0), predicted.sum(0), targets.sum(0)
    classes = {
        name: {
            "average_precision": average_precision(logits[:, i], targets[:, i]),
            "precision": share(hits[i], taken[i]),
            "recall": share(hits[i], there[i]),
            "f1": share(2 * hits[i], taken[i] + there[i]),
            "threshold": float(thresholds[i]),
            "images": int(there[i]),
        }
        for i, name in enumerate(class_names)
    }
    return {
        "mean_average_precision": mean([values["average_precision"] for values in classes.values()]),
        "micro_f1": share(2 * hits.sum(), taken.sum() + there.sum()),
        "macro_f1": mean([values["f1"] for values in classes.values()]),
        "exact_match": float((predicted == targets).all(axis=1).mean()),
        "thresholds": [float(threshold) for threshold in thresholds],
        "classes": classes,
    }


def mean(values):
    """Returns the mean of the values that are not None, None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def percentage(value):
    """Returns a share as text, "-" for None."""
    return "-" if value is None else f"{value:.1%}"


def per_class_multi_label(metrics):
    """Returns a line of text per class, those of the lowest average precision if there are many.

    Args:
        metrics: what `evaluate_multi_label` returns.
    """
    rows = list(metrics["classes"].items())
    hidden = len(rows) > MAX_SHOWN
    if hidden:
        rows = sorted(rows, key=lambda item: item[1]["average_precision"] or 0)[:MAX_SHOWN]
    rows = [(printable(name), values) for name, values in rows]
    width = max(len("class"), *(len(name) for name, _ in rows))
    keys = ("average_precision", "precision", "recall", "f1", "threshold")
    lines = [f"{'class':{width}}     AP  precision  recall      F1  threshold  images"]
    for name, values in rows:
        ap, precision, recall, f1, threshold = (percentage(values[key]) for key in keys)
        lines.append(
            f"{name:{width}} {ap:>6}  {precision:>9}  {recall:>6}  {f1:>6}  {threshold:>9}  "
            f"{values['images']:>6,}"
        )
    if hidden:
        lines.append(
            f"... the {MAX_SHOWN} weakest of {len(metrics['classes'])} classes; metrics.json has all"
        )
    return "\n".join(lines)


def wrong_images(logits, targets, thresholds, count=24):
    """Returns the indices of images with a wrong class, at most `count`, the most confident errors first.

    An error's confidence is how far its probability lies from the class's threshold.
    """
    distances = probabilities(logits, "sigmoid") - thresholds
    errors = np.where((distances >= 0) != targets, np.abs(distances), -1.0).max(axis=1)
    wrong = np.flatnonzero(errors >= 0)
    return wrong[np.argsort(-errors[wrong], kind="stable")[:count]]
