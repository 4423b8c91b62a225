"""What quantization changes: accuracy and answers on the same images, and speed in the same run.

Shapes: n images, k outputs.
"""

import time

import numpy as np

from vit_tf.checks import require
from vit_tf.predictions import DEFAULT_THRESHOLD, as_logits, output_activation, probabilities
from vit_tf.training import evaluation

BATCH_SIZE = 50
WARM_UP, FEWEST_ROUNDS, MOST_ROUNDS, SECONDS = 3, 7, 100, 4.0


class Quality:
    """Measures models on labelled images; the first one is the reference of the others.

    Args:
        images: `vit_tf.deploy.calibration.LabelledImages`.

    Attributes:
        metric: text, what "score" is: "accuracy", or "mAP" for several labels per image.
    """

    def __init__(self, images):
        self.images = images
        self.task = evaluation.task_of(images.classifier)
        self.labels = evaluation.label_names(images.classifier)
        count = images.classifier.model.outputs[0].shape[-1]
        self.thresholds = list(images.classifier.thresholds or [DEFAULT_THRESHOLD] * count)
        self.metric = "mAP" if self.task.name == "multi-label" else "accuracy"
        self.last = output_activation(images.classifier.model)
        self.reference = None

    def measure(self, run):
        """Returns "score", "drop" (points), "drop_error" (standard error or None) and "top1_agreement".

        Args:
            run: function from a batch of images to a tuple of outputs (b, k).
        """
        outputs, targets = [], []
        for images, labels in self.images.batches(BATCH_SIZE):
            outputs.append(run(images)[0])
            targets.append(labels)
        logits, targets = as_logits(np.concatenate(outputs), self.last), np.concatenate(targets)
        answers = self.answers(logits)
        is_right = same_rows(answers, self.truth(targets))
        metrics = self.task.evaluate(logits, targets, self.labels, self.thresholds)
        score = metrics["mean_average_precision" if self.metric == "mAP" else "accuracy"]
        require(score is not None, "no image to measure on has a label of the model: raise --held-out")
        if self.reference is None:
            self.reference = score, answers, is_right
        before, expected, was_right = self.reference
        losses = 100.0 * (was_right.astype(float) - is_right)  # points per image
        error = float(losses.std() / len(losses) ** 0.5) if self.metric == "accuracy" else None
        return {
            "score": score,
            "drop": round(100 * (before - score), 9),  # 0.5 points are no more than 0.5
            "drop_error": error,
            "top1_agreement": float(same_rows(answers, expected).mean()),
        }

    def answers(self, logits):
        """Returns the predicted labels (n, m): the index of one, or bools for several labels per image."""
        if self.task.name == "single-label":
            return logits.argmax(axis=1)[:, None]
        return probabilities(logits, "sigmoid") >= np.array(self.thresholds)

    def truth(self, targets):
        """Returns the true labels as `answers` has the predicted ones."""
        return targets.argmax(axis=1)[:, None] if self.task.name == "single-label" else targets > 0.5


def same_rows(first, second):
    """Returns which rows of two arrays are equal, bool (n,)."""
    return (first == second).all(axis=1)


def compare_speed(runs, batch):
    """Returns the median seconds of a batch of images, a dict from the names of `runs`.

    The models take turns, so that other work on the machine meets all of them.

    Args:
        runs: dict from names to functions of a batch of images.
        batch: images as the models take them.
    """
    seconds = {name: [] for name in runs}
    start = time.perf_counter()
    for turn in range(WARM_UP + MOST_ROUNDS):
        for name, run in runs.items():
            began = time.perf_counter()
            run(batch)
            seconds[name].append(time.perf_counter() - began)
        if turn == WARM_UP:
            start = time.perf_counter()
        if turn >= WARM_UP + FEWEST_ROUNDS and time.perf_counter() - start > SECONDS * len(runs):
            break
    return {name: float(np.median(values[WARM_UP:])) for name, values in seconds.items()}
