"""What a classifier's logits are worth: accuracy, precision and recall, the confusion matrix."""

import numpy as np

from vit_tf.checks import printable
from vit_tf.predictions import probabilities

MAX_SHOWN = 20  # classes


def predict(model, batches, flip_tta=False, after_batch=lambda: None):
    """Returns a model's logits of a data set, and its labels.

    Args:
        model: a `keras.Model` from images (b, h, w, c) to logits (b, k).
        batches: a `vit_tf.data.DataLoader` that does not shuffle.
        flip_tta: bool, whether logits are the mean of an image's and its mirror image's.
        after_batch: is called when a batch is done.

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
        label_smoothing: float in [0, 1), the share of each row that goes to all classes alike.
    """
    logits = np.asarray(logits, "float64")
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    targets = targets * (1 - label_smoothing) + label_smoothing / targets.shape[1]
    return float(-(targets * log_probabilities).sum(axis=1).mean())


def evaluate(logits, labels, class_names):
    """Returns accuracies, precision and recall of each class, and the confusion matrix.

    Args:
        logits: float array (n, k).
        labels: int array (n,).
        class_names: k names.

    Returns:
        A dict ready for JSON: `accuracy` and `top5_accuracy` in [0, 1]; `classes`, by name, with
        `precision` (of the images taken for the class, how many are; None where none was taken for it),
        `recall` (of the class's images, how many were found; None where it has none), `f1` and `images`;
        `confusion` as k rows of the true class.
    """
    k = len(class_names)
    predicted = logits.argmax(-1)
    top5 = np.argsort(-logits, axis=-1)[:, :5]
    confusion = np.zeros((k, k), int)
    np.add.at(confusion, (labels, predicted), 1)
    right, taken, there = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    return {
        "accuracy": float((predicted == labels).mean()),
        "top5_accuracy": float((top5 == labels[:, None]).any(-1).mean()),
        "classes": {
            name: {
                "precision": share(right[i], taken[i]),
                "recall": share(right[i], there[i]),
                "f1": share(2 * right[i], taken[i] + there[i]),
                "images": int(there[i]),
            }
            for i, name in enumerate(class_names)
        },
        "confusion": confusion.tolist(),
    }


def per_class(metrics):
    """Returns precision and recall of each class as lines of text, those of the lowest f1 if there are many.

    Args:
        metrics: what `evaluate` returns.
    """
    classes = {printable(name): values for name, values in metrics["classes"].items()}
    rows = sorted(classes.items(), key=lambda item: item[1]["f1"] or 0)
    shown = rows[:MAX_SHOWN] if len(rows) > MAX_SHOWN else list(classes.items())
    width = max(len("class"), *(len(name) for name, _ in shown))
    lines = [f"{'class':{width}}  precision  recall  images"]
    for name, values in shown:
        precision, recall = (
            "-" if values[key] is None else f"{values[key]:.1%}" for key in ("precision", "recall")
        )
        lines.append(f"{name:{width}}  {precision:>9}  {recall:>6}  {values['images']:>6,}")
    if len(rows) > MAX_SHOWN:
        lines.append(f"... the {MAX_SHOWN} weakest of {len(rows)} classes; metrics.json has all")
    return "\n".join(lines)


def share(part, whole):
    return float(part / whole) if whole else None


def confident_mistakes(logits, labels, count=24):
    """Returns the indices of the wrong predictions, the most confident first, at most `count`."""
    wrong = np.flatnonzero(logits.argmax(-1) != labels)
    confidence = probabilities(logits[wrong], "softmax").max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")[:count]]
