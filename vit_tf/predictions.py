"""Decodes the outputs of a classifier: probabilities, and the most probable classes of each image.

Importing this module does not import Keras.
"""

import os
from collections import namedtuple
from typing import Any

import numpy as np

from vit_tf.checks import check_choice, check_int, require, shown
from vit_tf.hub import read_source_config
from vit_tf.labels import (
    MULTI_LABEL,
    REGRESSION,
    check_thresholds,
    imagenet_classes,
    labels_from_config,
    problem_type_from_config,
    thresholds_from_config,
)
from vit_tf.preprocessing.images import to_array

ACTIVATIONS = ("softmax", "sigmoid", "none")
DEFAULT_THRESHOLD = 0.5
SUM_TOLERANCE = 1e-5  # enough for a float32 softmax over thousands of classes; logits hardly meet it


class Prediction(namedtuple("Prediction", ("label", "probability"))):
    """A label and its probability. Unpacks as a pair.

    Attributes:
        label: str.
        probability: float in [0, 1].
        selected: bool, whether the probability reaches the label's threshold; None for mutually exclusive
            classes.
        text: str, the probability as a percentage.
    """

    selected = None

    @property
    def text(self):
        return f"{self.probability:.1%}"

    def as_dict(self):
        """Returns a dict for JSON; includes "selected" unless it is None."""
        return self._asdict() | ({} if self.selected is None else {"selected": self.selected})


class Value(namedtuple("Value", ("label", "value"))):
    """An output of a regression: its label and its value. Unpacks as a pair."""

    selected = None

    @property
    def text(self):
        return f"{self.value:.5g}"

    def as_dict(self):
        """Returns a dict for JSON."""
        return self._asdict()


def decode_predictions(
    logits: Any, top: int = 5, labels: Any = None, *, activation: str | None = None, thresholds: Any = None
) -> list[list[Prediction]]:
    """Returns the most probable classes: per image a list of `Prediction`, highest first.

    A `Prediction` unpacks as (label, probability). Softmax gives the probabilities of mutually exclusive
    classes. Sigmoid gives an independent probability per class, and sets `selected`: all selected classes are
    returned, even if there are more than `top`. The sigmoid of a single logit with two labels is the
    probability of the second label.

    Args:
        logits: (b, num_classes), or (num_classes,) for one image: the outputs of a model.
        top: int, the number of classes per image; all classes if there are fewer.
        labels: the class names; or the source of the weights, a folder or "hf:owner/name" with a config.json.
            Default: ImageNet's names for 1,000 classes, else "class 0", "class 1" and so on.
        activation: "softmax", "sigmoid", or "none" if the outputs are probabilities. Default: as the
            config.json of `labels` says, else sigmoid for one logit and softmax for more. By default,
            outputs in [0, 1] whose rows sum to one are treated as probabilities.
        thresholds: the probability at which a class is selected: one number in [0, 1] per class, or one for
            all classes. Default: those of the config.json, else 0.5 with sigmoid, else no selection.

    Raises:
        ValueError: the logits have a wrong rank or are not finite, `top` is not positive, the number of
            labels is wrong, or the config.json says regression; or, without `activation`, all outputs are
            in [0, 1] but their rows do not sum to one, so they may be either logits or probabilities.
    """
    outputs = check_outputs(logits)
    check_int("top", top, 1)
    num_classes = outputs.shape[1]
    default = "sigmoid" if num_classes == 1 else "softmax"
    if isinstance(labels, (str, os.PathLike)):
        config = read_source_config(labels)[0]
        problem_type = problem_type_from_config(config)
        if problem_type == REGRESSION:
            raise ValueError("its config.json says regression: the outputs are values, not logits of classes")
        default = default_activation(problem_type, num_classes)
        labels = labels_from_config(config)
        thresholds = thresholds_from_config(config, num_classes) if thresholds is None else thresholds
    if activation is None:
        activation = detect_activation(outputs, default)
    names = check_labels(labels, num_classes)
    if thresholds is None:
        is_multi_label = activation == "sigmoid" and len(names) == num_classes
        thresholds = DEFAULT_THRESHOLD if is_multi_label else None
    if thresholds is not None:
        numbers = [thresholds] * num_classes if isinstance(thresholds, (int, float)) else thresholds
        thresholds = check_thresholds(numbers, num_classes)
    scores = probabilities(outputs, activation)
    return [ranked(*pair, names, top, thresholds) for pair in zip(outputs, scores)]


def decode_outputs(outputs, top, labels, problem_type, thresholds, last):
    """Returns the predictions of a model's outputs (b, k), per image a list of pairs, highest first.

    A multi-label model gives all labels that reach their threshold, marked as `selected`, and others up to
    `top`. A single logit with two labels gives the probability of the second label. A regression gives
    (label, value) for all outputs.

    Args:
        outputs: (b, k), the outputs of the model.
        top: int, the number of classes per image.
        labels: k names, two for a single logit, or None: see `decode_predictions`.
        problem_type: one of `vit_tf.labels.PROBLEM_TYPES`.
        thresholds: k numbers or None. None means 0.5 for a multi-label model.
        last: the activation that the model ends in, see `output_activation`.
    """
    if problem_type == REGRESSION:
        return decode_values(outputs, labels)
    if thresholds is None and problem_type == MULTI_LABEL:
        thresholds = DEFAULT_THRESHOLD
    outputs = check_outputs(outputs)
    activation = remaining_activation(outputs, problem_type, last)
    return decode_predictions(outputs, top, labels, activation=activation, thresholds=thresholds)


def remaining_activation(outputs, problem_type, last):
    """Returns how outputs (b, k) become probabilities: by "softmax", "sigmoid" or "none".

    Args: as for `decode_outputs`.
    """
    default = default_activation(problem_type, outputs.shape[1])
    if last == "linear":
        return default
    return "none" if last in ("softmax", "sigmoid") else detect_activation(outputs, default)


def decode_values(outputs, labels=None):
    """Returns the outputs of a regression: per image a list of `Value`, in the order of the outputs.

    Args:
        outputs: (b, k), or (k,) for one image.
        labels: k names. Default: "value 0", "value 1" and so on.

    Raises:
        ValueError: the outputs have a wrong rank or are not finite, or the number of labels is wrong.
    """
    outputs = check_outputs(outputs)
    names = labels or [f"value {i}" for i in range(outputs.shape[1])]
    names = check_labels(names, outputs.shape[1], pair_of_one=False)
    return [[Value(name, float(x)) for name, x in zip(names, row)] for row in outputs]


def as_logits(outputs, last):
    """Returns the logits of which the activation `last` makes a model's outputs; other outputs are logits.

    Args:
        outputs: array (b, k).
        last: the activation that the model ends in, see `output_activation`.
    """
    if last not in ("softmax", "sigmoid"):
        return outputs
    outputs = np.asarray(outputs, "float64")
    smallest = np.finfo("float32").tiny
    logits = np.log(np.maximum(outputs, smallest))
    return logits - np.log(np.maximum(1 - outputs, smallest)) if last == "sigmoid" else logits


def probabilities(outputs, activation):
    """Returns the probabilities of a model's outputs, float64 (b, k).

    Args:
        outputs: (b, k).
        activation: one of `ACTIVATIONS`.

    Raises:
        ValueError: an unknown activation, softmax of one logit, or "none" for outputs outside [0, 1].
    """
    outputs = np.asarray(outputs, "float64")
    if activation == "softmax":
        if outputs.shape[-1] == 1:
            raise ValueError('the softmax of one logit is always 1: use `activation="sigmoid"`')
        exponents = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
        return exponents / exponents.sum(axis=-1, keepdims=True)
    if activation == "sigmoid":
        small = np.exp(-np.abs(outputs))  # never overflows
        return np.where(outputs >= 0, 1, small) / (1 + small)
    check_choice("activation", activation, ACTIVATIONS)
    low, high = outputs.min(initial=0), outputs.max(initial=0)
    problem = f'`activation="none"` is for probabilities, and these outputs go from {low:.3g} to {high:.3g}'
    require(low >= -1e-3 and high <= 1 + 1e-3, f'{problem}: use "softmax" or "sigmoid" for logits')
    return outputs


def default_activation(problem_type, num_outputs):
    """Returns the activation that turns a classifier's logits into probabilities."""
    return "sigmoid" if problem_type == MULTI_LABEL or num_outputs == 1 else "softmax"


def detect_activation(outputs, default):
    """Returns "none" if finite outputs (b, k) are probabilities, `default` if they are logits.

    Raises:
        ValueError: the outputs may be either: all are in [0, 1], but the rows do not sum to one.
    """
    if outputs.min(initial=0) < 0 or outputs.max(initial=0) > 1:
        return default
    num_classes = outputs.shape[1]
    if num_classes > 1 and np.allclose(outputs.sum(axis=1), 1, rtol=0, atol=SUM_TOLERANCE):
        return "none"
    if num_classes > 1 and not outputs.any():  # a head that starts at zero
        return default
    raise ValueError(
        f"all outputs are from 0 to 1, so they may be probabilities or logits: add "
        f'`activation="none"` if they are probabilities, `activation="{default}"` if they are logits'
    )


def output_activation(model):
    """Returns the activation at the end of a model, as far as its graph shows it.

    Returns:
        "linear", "softmax", "sigmoid" or the name of another activation; None if the graph does not show it,
        as for a subclassed model or an unknown last layer.
    """
    import keras

    return common_activation(keras.tree.flatten(getattr(model, "outputs", None) or []))


def common_activation(tensors):
    """Returns the activation that produced all of some symbolic tensors, None if they differ."""
    activations = {activation_behind(tensor) for tensor in tensors}
    return activations.pop() if len(activations) == 1 else None


def activation_behind(tensor):
    """Returns the activation that produced a symbolic tensor, see `output_activation`."""
    import keras

    layer = tensor._keras_history.operation
    if isinstance(layer, keras.Model):
        return output_activation(layer)
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if isinstance(layer, keras.layers.Average):  # of the two heads of a distilled model
        return common_activation(layer.input)
    return getattr(getattr(layer, "activation", None), "__name__", None)


def ranked(outputs, scores, names, top, thresholds):
    """Returns the `Prediction`s of one image: the `top` most probable, and all others that are selected.

    Args: `outputs` (k,) rank the classes, since `scores` (k,), their probabilities, may be rounded to 0 or 1;
        `names` are k labels, or two for a single output; `thresholds` are k numbers or None.
    """
    selected = [None] * len(names) if thresholds is None else [bool(x) for x in scores >= thresholds]
    if len(names) > len(scores):  # one output with two names is the probability of the second
        scores = outputs = np.array([1 - scores[0], scores[0]])
        selected = selected if thresholds is None else [not selected[0], selected[0]]
    order = np.argsort(-outputs, kind="stable")
    if not any(selected):
        order = order[:top]
    predictions = []
    for rank, i in enumerate(order):
        if rank < top or selected[i]:
            predictions.append(Prediction(names[i], float(scores[i])))
            predictions[-1].selected = selected[i]
    return predictions


def check_outputs(outputs):
    """Returns outputs as float64 (b, k); raises a ValueError for a wrong rank, NaN or infinity."""
    try:
        outputs = np.asarray(to_array(outputs), "float64")
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"`logits` must be an array of numbers, got {shown(outputs)}") from error
    expected = "(b, num_classes) or (num_classes,)"
    has_outputs = outputs.ndim in (1, 2) and outputs.shape[-1]
    require(has_outputs, f"`logits` must be {expected}, got the shape {outputs.shape}")
    is_finite = np.isfinite(outputs).all()
    require(is_finite, "`logits` have NaN or infinite values: look at the weights and the images")
    return np.atleast_2d(outputs)


def check_labels(labels, num_outputs, pair_of_one=True):
    """Returns a list of one name per output, or two for a single output; raises a ValueError otherwise."""
    if labels is None:
        return imagenet_classes() if num_outputs == 1000 else [f"class {i}" for i in range(num_outputs)]
    if len(labels) != num_outputs and not (pair_of_one and (len(labels), num_outputs) == (2, 1)):
        raise ValueError(f"`labels` must be {num_outputs} names, one per logit, got {len(labels)}")
    return list(labels)
