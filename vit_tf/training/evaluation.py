"""What `vit-tf evaluate` measures: images of a data set, classes matched with labels, metrics."""

import os
import re
import sys
from collections import Counter
from dataclasses import dataclass, replace
from itertools import compress
from pathlib import Path

import numpy as np

from vit_tf import files, terminal
from vit_tf.checks import listing, printable, require, shown, suggestion
from vit_tf.training.datasets import is_array_source


# ---------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class ArrayImages:
    """Labelled images in memory, with the attributes of `vit_tf.data.ImageFiles` that are used here."""

    pixels: np.ndarray  # (n, h, w, c)
    labels: np.ndarray  # (n,)
    class_names: tuple[str, ...]
    is_multi_label = False

    def subset(self, indices):
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])


def load_images(source, part, weights, notes=True):
    """Returns labelled images, `ImageFiles` or `ArrayImages`, and the name of their part.

    Without a `part` they are the first of test, validation and all. If `weights` is a run on the same data,
    the run decides which image is in which part. `notes` on the data are printed on stderr.
    """
    from vit_tf import data

    if is_array_source(source):
        part = part or "test"
        if part not in ("test", "train"):
            raise ValueError(f"{shown(source)} has the parts test and train, got --part {part}")
        arrays = data.load_cifar(source)
        x, y = (getattr(arrays, f"{name}_{part}") for name in "xy")
        return ArrayImages(x, y, arrays.class_names), part
    images = parts_of_run(data.find_images(source), source, weights)
    for note in images.notes if notes else ():
        print(f"note: {printable(note)}", file=sys.stderr)
    parts = [split or "train" for split in images.splits]
    part = part or next((part for part in ("test", "validation") if part in parts), "all")
    indices = [i for i, own in enumerate(parts) if part in ("all", own)]
    if not indices:
        raise ValueError(f"{shown(source)} has no part {part}, only {', '.join(sorted(set(parts)))}")
    return images.subset(indices), part


def parts_of_run(images, source, weights):
    """Returns images with the parts of a run, if `weights` is the folder of a run on the same images."""
    from vit_tf.data import read_split

    run = run_of(weights)
    split, config = run / "split.csv", run / "config.json"
    if not split.is_file():
        return images
    command = files.read_json(config).get("command")
    is_same = isinstance(command, dict) and command.get("data") == os.path.abspath(source)
    return read_split(images, split, cached=True) if is_same else images


def run_of(weights):
    """Returns the folder of a run for itself and for `model` or `last` in it; other paths as they are."""
    folder = Path(weights)
    inside = folder.resolve()
    is_part = folder.is_dir() and inside.name in ("model", "last")
    return inside.parent if is_part and (inside.parent / "config.json").is_file() else folder


def readable(images, max_bad):
    """Returns the images that can be decoded, and names the others on stderr."""
    if isinstance(images, ArrayImages):
        return images
    from vit_tf.data import check_images

    images, bad = check_images(images, max_bad, cached=True)
    for name, reason in bad:
        print(f"left out: {printable(name)}: {printable(reason)}", file=sys.stderr)
    return images


# ---------------------------------------------------------------------------------------------------
# Classes
# ---------------------------------------------------------------------------------------------------
def task_of(loaded):
    """Returns the task of a `Classifier`, whose metrics are computed."""
    from vit_tf.labels import MULTI_LABEL, REGRESSION
    from vit_tf.training import tasks

    if loaded.problem_type == REGRESSION:
        raise ValueError("these weights are a regression model: vit-tf evaluate is for classifiers")
    if loaded.model.output_shape[-1] == 1:
        return tasks.BINARY
    return tasks.MULTI_LABEL if loaded.problem_type == MULTI_LABEL else tasks.SINGLE_LABEL


def label_names(loaded):
    """Returns the names of a classifier's labels, each once: a second crane is "crane (517)"."""
    from vit_tf.predictions import check_labels

    names = list(check_labels(loaded.labels, loaded.model.output_shape[-1]))
    if len(names) == 1:  # of a single logit, which has a second class
        names.insert(0, f"not {names[0]}")
    return [name if names.index(name) == i else f"{name} ({i})" for i, name in enumerate(names)]


def match_classes(class_names, labels, how="name"):
    """Returns the index of the label of each class, -1 for a class that is left out: int (k,).

    `how` is "name", "known" or "order", see --match. A ValueError names a class that does not match.
    """
    if how == "order":
        if len(class_names) > len(labels):
            raise ValueError(f"DATA has {len(class_names)} classes, and the model {len(labels)} labels")
        return np.arange(len(class_names))
    known = known_names(labels)
    indices = np.array([known.get(simple(name), -1) for name in class_names])
    unknown = [name for name, index in zip(class_names, indices) if index < 0]
    if len(unknown) == len(class_names) or (unknown and how == "name"):
        raise ValueError(
            f"{len(unknown)} of {len(class_names)} classes of DATA are not among the labels of the model: "
            f"{shown(unknown[0])}{suggestion(unknown[0], labels)}, ...; the model has {listing(labels, 5)}. "
            "Rename the classes, or add --match known to leave them out, or --match order"
        )
    return indices


def known_names(labels):
    """Returns a dict from names to indices of labels: simplified names, unique synonyms, IDs of ImageNet."""
    from vit_tf.labels import imagenet_classes, imagenet_ids

    synonyms = [(name, i) for i, label in enumerate(labels) if ", " in label for name in label.split(", ")]
    if len(labels) == 1000 and labels[:2] == list(imagenet_classes()[:2]):
        synonyms += zip(imagenet_ids(), range(1000))
    counts = Counter(simple(name) for name, _ in synonyms)
    known = {simple(name): i for name, i in synonyms if counts[simple(name)] == 1}
    return known | {simple(label): i for i, label in enumerate(labels)}


def simple(name):
    return " ".join(re.split(r"[\s_-]+", name.casefold().strip()))


def encode(images, outputs, num_labels, task):
    """Returns the images whose classes the model has, and their labels as `DataLoader` takes them.

    `outputs` is what `match_classes` returned.
    """
    if not images.is_multi_label:
        labels = outputs[images.labels]
        images, labels = images.subset(np.flatnonzero(labels >= 0)), labels[labels >= 0]
        is_single = task.name != "multi-label"
        return images, task.encode(labels) if is_single else np.eye(num_labels, dtype=bool)[labels]
    targets = np.zeros((len(images.labels), num_labels), bool)
    for column in np.flatnonzero(outputs >= 0):
        targets[:, outputs[column]] |= images.labels[:, column]
    if task.name == "multi-label":
        return images, targets
    problem = "the model takes one class per image, and some images of DATA have several or none"
    require((targets.sum(axis=1) == 1).all(), problem)
    return images, task.encode(targets.argmax(axis=1))


# ---------------------------------------------------------------------------------------------------
# Metrics
# ---------------------------------------------------------------------------------------------------
def measure(loaded, images, targets, labels, task, batch_size, flip_tta=False):
    """Returns the metrics of a `Classifier` as a dict ready for JSON, with the classes that occur.

    `images` and `targets` are what `encode` returned; with `flip_tta` logits are the mean over an image and
    its mirror image.
    """
    import keras

    from vit_tf import data
    from vit_tf.predictions import DEFAULT_THRESHOLD, as_logits, output_activation, probabilities
    from vit_tf.training.metrics import expected_calibration_error, predict

    source = images.pixels if isinstance(images, ArrayImages) else data.DecodedImages(images)
    view, num_outputs = data.EvalTransform(loaded.preprocessing), loaded.model.output_shape[-1]
    batches = data.DataLoader(source, targets, num_outputs, batch_size, transform=view)
    pixels = keras.Input(loaded.model.input_shape[1:])
    model = keras.Model(pixels, loaded.model(loaded.preprocessing.normalization()(pixels)))
    bar = terminal.track(range(len(batches)), "evaluating")
    logits, targets = predict(model, batches, flip_tta, after_batch=lambda: next(bar, None))
    bar.close()
    logits = as_logits(logits, output_activation(loaded.model))
    thresholds = loaded.thresholds or [DEFAULT_THRESHOLD] * num_outputs
    metrics = {"task": task.name, **task.evaluate(logits, targets, labels, thresholds)}
    if task.name == "single-label":
        scores = probabilities(logits, "softmax")
        metrics["expected_calibration_error"] = expected_calibration_error(scores, targets.argmax(axis=1))
    classes = metrics["classes"]
    occurs = [values["images"] > 0 or values["precision"] is not None for values in classes.values()]
    if "confusion" in metrics:
        metrics["confusion"] = np.array(metrics["confusion"])[occurs][:, occurs].tolist()
    metrics["classes"] = dict(compress(classes.items(), occurs))
    return metrics
