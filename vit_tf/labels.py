"""What the logits of a classifier mean: names of classes, and the best of them for each image."""

import functools
import os
from pathlib import Path

import keras
import numpy as np

# What the outputs of a model are, in transformers' words: logits of classes that exclude each other, logits
# of classes of which an image may have several or none, and plain values.
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


@functools.cache
def imagenet_classes():
    """Returns the names of ImageNet-1k's 1,000 classes in the order of the logits.

    They are WordNet's, by way of timm (scripts/make_timm_tables.py): "tench, Tinca tinca". Only "crane"
    is there twice, the bird and the machine.
    """
    lines = (Path(__file__).parent / "assets" / "imagenet1k_classes.txt").read_text("utf-8").splitlines()
    return tuple(line.split("\t")[1] for line in lines)


def decode_predictions(logits, top=5, labels=None):
    """Returns the likeliest classes of each image: a list an image of (label, probability), highest first.

    Args:
        logits: (b, num_classes), or (num_classes,) for one image: what a model gives before a softmax.
        top: int, how many classes of each image; all of them if there are fewer.
        labels: The names of the classes, or the source of the weights, a folder or "hf:owner/name", whose
            config.json may have them. Default: ImageNet's if there are 1,000 classes, else "class 0",
            "class 1" and so on.

    Raises:
        ValueError: logits of another rank or not finite, `top` below 1, or another number of labels.
    """
    if keras.ops.is_tensor(logits):
        logits = keras.ops.convert_to_numpy(logits)
    logits = np.asarray(logits, "float64")
    if logits.ndim not in (1, 2) or not logits.shape[-1]:
        raise ValueError(f"`logits` must be (b, num_classes) or (num_classes,), got the shape {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("`logits` have NaN or infinite values: look at the weights and the images")
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise ValueError(f"`top` must be an int from 1, got {top!r}")
    num_classes = logits.shape[-1]
    if isinstance(labels, (str, os.PathLike)):
        from vit_tf.weights.checkpoint import read_config

        labels = labels_from_config(read_config(labels)[0])
    if labels is None:
        names = imagenet_classes() if num_classes == 1000 else [f"class {i}" for i in range(num_classes)]
    elif len(labels) != num_classes:
        raise ValueError(f"`labels` must be {num_classes} names, one a logit, got {len(labels)}")
    else:
        names = list(labels)
    logits = np.atleast_2d(logits)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top]
    return [[(names[i], float(row[i])) for i in best] for row, best in zip(probabilities, order)]


def labels_from_config(config):
    """Returns the names of the classes in a config.json of timm or of transformers, None if there are none.

    timm has "label_names", perhaps with "label_descriptions" of them, which are taken then; transformers
    has "id2label". Names like LABEL_0 count as none.

    Raises:
        ValueError: the names do not go from 0 on without a gap.
    """
    from vit_tf.weights.config import read

    config = {**read(config, "pretrained_cfg", dict, {}), **config}
    kinds = (list, tuple, dict)
    names = (
        read(config, "label_names", kinds) or read(config, "labels", kinds) or read(config, "id2label", kinds)
    )
    if not names:
        return None
    if isinstance(names, dict):
        by_index = {int(index): name for index, name in names.items() if str(index).isdecimal()}
        missing = [i for i in range(len(names)) if i not in by_index]
        if missing:
            raise ValueError(
                f"the labels must be numbered from 0 to {len(names) - 1}, there is no {missing[0]}"
            )
        names = [by_index[i] for i in range(len(names))]
    if all(name == f"LABEL_{i}" for i, name in enumerate(names)):
        return None
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"config.json must have text as labels, got {names[:3]!r}, ...")
    descriptions = read(config, "label_descriptions", dict, {})
    return tuple(str(descriptions.get(name, name)) for name in names)


def problem_type_from_config(config):
    """Returns what the outputs of a config.json's model are: one of `PROBLEM_TYPES`.

    The key is "problem_type" of transformers. Without it the classes exclude each other.

    Raises:
        ValueError: another problem type.
    """
    from vit_tf.weights.config import read

    problem_type = read(config, "problem_type", str, PROBLEM_TYPES[0])
    if problem_type not in PROBLEM_TYPES:
        raise ValueError(
            f"config.json must have {', '.join(PROBLEM_TYPES)} as 'problem_type', got {problem_type[:80]!r}"
        )
    return problem_type


def thresholds_from_config(config, num_classes):
    """Returns the probability from which on each class counts as present, None if config.json has none.

    Raises:
        ValueError: "thresholds" are not `num_classes` numbers from 0 to 1.
    """
    from vit_tf.weights.config import read

    thresholds = read(config, "thresholds", (list, tuple))
    return None if thresholds is None else check_thresholds(thresholds, num_classes)


def check_thresholds(thresholds, num_classes):
    """Returns thresholds as floats; a ValueError unless they are `num_classes` numbers from 0 to 1."""
    numbers = [
        float(t) for t in thresholds if isinstance(t, (int, float, np.number)) and not isinstance(t, bool)
    ]
    if len(thresholds) != num_classes or not all(0 <= t <= 1 for t in numbers) or len(numbers) != num_classes:
        raise ValueError(
            f"`thresholds` must be {num_classes} numbers from 0 to 1, one per class, got {len(thresholds)} "
            f"values: {str(list(thresholds[:3]))[:80]} ..."
        )
    return tuple(numbers)
