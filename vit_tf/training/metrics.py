"""Metrics of single-label classifiers: accuracy, precision, recall, confusion matrix, calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_tf.checks import printable
from vit_tf.predictions import probabilities

if TYPE_CHECKING:
    import keras

    from vit_tf.data import DataLoader

MAX_SHOWN = 20  # classes


def predict(
    model: keras.Model,
    batches: DataLoader,
    flip_tta: bool = False,
    after_batch: Callable[[], None] = lambda: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a model's logits of a data set, and its labels.

    Args:
        model: a `keras.Model` from images (b, h, w, c) to logits (b, k).
        batches: a `vit_tf.data.DataLoader` that does not shuffle.
        flip_tta: bool, whether logits are the mean of an image's and its mirror image's.
        after_batch: is called after each batch.

    Returns:
        float32 arrays (n, k): logits, and the labels as rows that sum to one.
    """
    logits, labels = [], []
    for images, targets in batches.epoch():
        outputs = model.predict_on_batch(images)
        if flip_tta:
            outputs = (outputs + model.predict_on_batch(images[:, :, ::-1])) / 2
        logits.append(outputs)
        labels.append(targets)
        after_batch()
    return np.concatenate(logits), np.concatenate(labels)


def cross_entropy(logits, targets, label_smoothing=0.0):
    """Returns the mean cross-entropy, in nats.

    Args:
        logits: (n, k).
        targets: (n, k), rows that sum to one.
        label_smoothing: float in [0, 1), the fraction of each row that is spread over all classes.
    """
    logits = np.asarray(logits, "float64")
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    targets = targets * (1 - label_smoothing) + label_smoothing / targets.shape[1]
    return float(-(targets * log_probabilities).sum(axis=1).mean())


def evaluate(logits: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Returns accuracies, per-class precision and recall, and the confusion matrix.

    Args:
        logits: float array (n, k).
        labels: int array (n,).
        class_names: k names.

    Returns:
        A dict ready for JSON: `accuracy` and `top5_accuracy` in [0, 1]; `classes`, by name, with `precision`
        (None if no image was predicted as the class), `recall` (None if the class has no images), `f1` and
        `images`; `confusion`, k rows, one per true class.
    """
    k = len(class_names)
    predicted = logits.argmax(-1)
    top5 = np.argsort(-logits, axis=-1)[:, :5]
    confusion = np.zeros((k, k), int)
    np.add.at(confusion, (labels, predicted), 1)
    correct, predictions, images = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    return {
        "accuracy": float((predicted == labels).mean()),
        "top5_accuracy": float((top5 == labels[:, None]).any(-1).mean()),
        "classes": {
            name: {**class_quality(correct[i], predictions[i], images[i]), "images": int(images[i])}
            for i, name in enumerate(class_names)
        },
        "confusion": confusion.tolist(),
    }


def class_quality(correct, predicted, images):
    """Returns precision, recall and F1 of a class by numbers of images; None for an undefined value."""
    f1 = ratio(2 * correct, predicted + images)
    return {"precision": ratio(correct, predicted), "recall": ratio(correct, images), "f1": f1}


def expected_calibration_error(probabilities, labels, num_bins=15):
    """Returns the expected calibration error: the mean gap between confidence and accuracy, over bins.

    The confidence of an image is the probability of its predicted class. Bins have equal widths, and the gap
    of each counts with its share of the images: Guo et al. 2017 (https://arxiv.org/abs/1706.04599), eq. 3.

    Args:
        probabilities: float array (n, k), rows that sum to one.
        labels: int array (n,).
        num_bins: int, number of bins in (0, 1].

    Returns:
        A float in [0, 1].
    """
    confidence, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.ceil(confidence * num_bins).astype(int) - 1
    gaps = np.zeros(num_bins)
    np.add.at(gaps, np.clip(bins, 0, num_bins - 1), is_right - confidence)
    return float(np.abs(gaps).sum() / len(labels))


SINGLE_LABEL_COLUMNS = ("precision", "recall")  # of `per_class`
MULTI_LABEL_COLUMNS = ("average_precision", "precision", "recall", "f1", "threshold")
HEADINGS = {"average_precision": "    AP", "f1": "    F1"}  # others: the name of the metric


def per_class(metrics: dict[str, Any]) -> str:
    """Returns a line of text per class; of many classes, those with the lowest F1 or average precision.

    Args:
        metrics: returned by `evaluate` or `evaluate_multi_label`.
    """
    rows = [(printable(name), values) for name, values in metrics["classes"].items()]
    is_multi_label = "average_precision" in rows[0][1]
    names = MULTI_LABEL_COLUMNS if is_multi_label else SINGLE_LABEL_COLUMNS
    columns = {name: HEADINGS.get(name, name) for name in names}
    num_hidden, order = len(rows) - MAX_SHOWN, "average_precision" if is_multi_label else "f1"
    if num_hidden > 0:
        rows = sorted(rows, key=lambda row: row[1][order] or 0)[:MAX_SHOWN]
    width = max(len("class"), *(len(name) for name, _ in rows))
    lines = ["  ".join([f"{'class':{width}}", *columns.values(), "images"])]
    for name, values in rows:
        cells = [f"{percentage(values[key]):>{len(heading)}}" for key, heading in columns.items()]
        lines.append("  ".join([f"{name:{width}}", *cells, f"{values['images']:>6,}"]))
    if num_hidden > 0:
        num_classes = len(metrics["classes"])
        lines.append(f"... the {MAX_SHOWN} weakest of {num_classes} classes; metrics.json has all")
    return "\n".join(lines)


def percentage(value):
    """Returns a fraction as a percentage, "-" for None."""
    return "-" if value is None else f"{value:.1%}"


def ratio(part, whole):
    return float(part / whole) if whole else None


def confident_mistakes(logits, labels, count=24):
    """Returns the indices of at most `count` wrong predictions, the most confident first."""
    wrong = np.flatnonzero(logits.argmax(-1) != labels)
    confidence = probabilities(logits[wrong], "softmax").max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")[:count]]
