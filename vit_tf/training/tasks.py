"""Tasks of a classifier: one class per image, several classes per image, or two classes by one logit.

Shapes: n images, b images of a batch, k classes, o outputs of the model: k, or 1 of a binary one.
"""

from dataclasses import replace

import keras
import numpy as np
from keras import ops

from vit_tf.checks import check_choice
from vit_tf.data.stratification import class_counts
from vit_tf.labels import MULTI_LABEL as MULTI_LABEL_PROBLEM
from vit_tf.labels import SINGLE_LABEL as SINGLE_LABEL_PROBLEM
from vit_tf.predictions import probabilities
from vit_tf.training.label_metrics import (
    choose_thresholds,
    evaluate_multi_label,
    mean_average_precision,
    sigmoid_cross_entropy,
)
from vit_tf.training.losses import WeightedBinaryCrossentropy, label_accuracy
from vit_tf.training.metrics import cross_entropy, evaluate, percentage
from vit_tf.training.ranking import average_precision, choose_threshold, roc_auc


class SingleLabel:
    """One class per image: softmax; the best weights have the highest accuracy."""

    name = "single-label"
    problem_type = SINGLE_LABEL_PROBLEM
    score = "val_accuracy"  # of a row of the history

    def prepare(self, images):
        """Returns `ImageFiles` with labels for this task; a ValueError if they do not fit."""
        if not images.is_multi_label:
            return images
        several = np.count_nonzero(images.labels.sum(axis=1) != 1)
        if several:
            raise ValueError(
                f"--task {self.name} needs one class per image, and {several:,} of {len(images):,} images "
                "have several or none: choose --task multi-label, or correct the labels"
            )
        return replace(images, labels=images.labels.argmax(axis=1))

    def num_outputs(self, num_classes):
        """Returns o."""
        return num_classes

    def encode(self, labels):
        """Returns labels of `ImageFiles` as `vit_tf.data.DataLoader` takes them: int [n] or bool [n, o]."""
        return labels

    def loss(self, label_smoothing=0.0, positive_weights=None):
        """Returns the `keras.losses.Loss` of targets and logits (b, o)."""
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)

    def accuracy(self):
        """Returns the metric called "accuracy", for `keras.Model.compile`."""
        return "accuracy"

    def image_accuracy(self, targets, logits):
        """Returns the accuracy of each image, float32 tensor (b,), whose mean is that of `accuracy`."""
        return ops.cast(keras.metrics.categorical_accuracy(targets, logits), "float32")

    def class_weights(self, batches):
        """Returns (weights of images by class, weights of positive targets): float32 (k,) each, or None."""
        return balanced_weights(batches), None

    def validate(self, logits, targets, label_smoothing):
        """Returns the columns of the history that begin with val_.

        Args:
            logits, targets: float arrays (n, o).
            label_smoothing: float in [0, 1).
        """
        return {
            "val_loss": cross_entropy(logits, targets, label_smoothing),
            "val_accuracy": float(np.mean(logits.argmax(-1) == targets.argmax(-1))),
        }

    def thresholds(self, logits, targets):
        """Returns o thresholds chosen on validation images, None for a softmax."""
        return None

    def evaluate(self, logits, targets, class_names, thresholds):
        """Returns the metrics, a dict ready for JSON."""
        return evaluate(logits, targets.argmax(-1), class_names)

    def summary(self, metrics):
        """Returns the main metrics as text."""
        top5 = f", top-5 {metrics['top5_accuracy']:.2%}" if len(metrics["classes"]) > 5 else ""
        return f"accuracy {metrics['accuracy']:.2%}{top5}"


class MultiLabel(SingleLabel):
    """Any number of classes per image: sigmoid; the best weights have the highest mean average precision."""

    name = "multi-label"
    problem_type = MULTI_LABEL_PROBLEM
    score = "val_map"

    def prepare(self, images):
        if images.is_multi_label:
            return images
        return replace(images, labels=np.eye(len(images.class_names), dtype=bool)[images.labels])

    def loss(self, label_smoothing=0.0, positive_weights=None):
        if positive_weights is None:
            return keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=label_smoothing)
        return WeightedBinaryCrossentropy(positive_weights, label_smoothing)

    def accuracy(self):
        return keras.metrics.MeanMetricWrapper(label_accuracy, name="accuracy")

    def image_accuracy(self, targets, logits):
        return label_accuracy(targets, logits)

    def class_weights(self, batches):
        """See `SingleLabel`; for each class, images with and without it have the same total weight."""
        positives = batches.labels.sum(axis=0)
        weights = (len(batches.labels) - positives) / np.maximum(positives, 1)
        return None, np.maximum(weights, 1e-3).astype("float32")  # a gradient where all have the class

    def validate(self, logits, targets, label_smoothing):
        targets = targets.astype(bool)
        return {
            "val_loss": sigmoid_cross_entropy(logits, targets, label_smoothing),
            "val_accuracy": float(np.mean((logits > 0) == targets)),
            "val_map": mean_average_precision(logits, targets) or 0.0,
        }

    def thresholds(self, logits, targets):
        return choose_thresholds(logits, targets.astype(bool))

    def evaluate(self, logits, targets, class_names, thresholds):
        return evaluate_multi_label(logits, targets.astype(bool), class_names, thresholds)

    def summary(self, metrics):
        names = {"mean_average_precision": "mAP", "micro_f1": "micro F1", "macro_f1": "macro F1"}
        return ", ".join(f"{text} {percentage(metrics[name])}" for name, text in names.items())


class Binary(MultiLabel):
    """Two classes by one logit, whose sigmoid is the probability of the second class."""

    name = "binary"

    def prepare(self, images):
        images = SingleLabel.prepare(self, images)
        if len(images.class_names) != 2:
            raise ValueError(f"--task binary needs two classes, got {len(images.class_names)}")
        return images

    def num_outputs(self, num_classes):
        return 1

    def encode(self, labels):
        return (labels == 1)[:, None]

    def thresholds(self, logits, targets):
        """Returns the threshold of the best mean F1 of both classes."""
        scores = probabilities(logits, "sigmoid")[:, 0]
        return [choose_threshold(scores, targets[:, 0] > 0.5, both=True)]

    def evaluate(self, logits, targets, class_names, thresholds):
        positive = targets[:, 0] > 0.5
        decided = probabilities(logits, "sigmoid")[:, 0] >= thresholds[0]
        metrics = evaluate(np.eye(2)[decided.astype(int)], positive.astype(int), class_names)
        del metrics["top5_accuracy"]
        return {
            **metrics,
            "average_precision": average_precision(logits[:, 0], positive),
            "roc_auc": roc_auc(logits[:, 0], positive),
            "thresholds": [float(thresholds[0])],
        }

    def summary(self, metrics):
        ap, auc = (percentage(metrics[name]) for name in ("average_precision", "roc_auc"))
        return f"accuracy {metrics['accuracy']:.2%}, average precision {ap}, ROC AUC {auc}"


SINGLE_LABEL, MULTI_LABEL, BINARY = SingleLabel(), MultiLabel(), Binary()
TASKS = {task.name: task for task in (SINGLE_LABEL, MULTI_LABEL, BINARY)}


def choose_task(images, name=None):
    """Returns the task called `name`; without a name the task that fits the labels of `ImageFiles`.

    Raises:
        ValueError: there is no task of that name.
    """
    if name is None:
        return MULTI_LABEL if images.is_multi_label else SINGLE_LABEL
    check_choice("task", name, TASKS)
    return TASKS[name]


def balanced_weights(batches):
    """Returns the weight of an image of each class, float32 (k,), by which all classes have the same weight.

    The mean over the images is 1. King and Zeng, "Logistic Regression in Rare Events Data" (2001).
    """
    counts = class_counts(batches.labels, batches.num_classes)
    return (len(batches.labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype("float32")
