"""The outputs of a classifier in its config.json: class names, problem type, thresholds."""

import functools
from pathlib import Path

from vit_tf.checks import check_choice, is_number, listing, require, shown
from vit_tf.hub.config_values import config_value

# The meaning of a model's outputs, in transformers' terms: logits of mutually exclusive classes, logits of
# classes of which an image may have several or none, and plain values.
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")
SINGLE_LABEL, MULTI_LABEL, REGRESSION = PROBLEM_TYPES


def imagenet_classes() -> tuple[str, ...]:
    """Returns the names of ImageNet-1k's 1,000 classes in the order of the logits.

    The names are WordNet's, taken from timm (tools/make_timm_tables.py): "tench, Tinca tinca". Only "crane"
    occurs twice, for the bird and the machine.
    """
    return imagenet_table()[1]


def imagenet_ids():
    """Returns the WordNet IDs of ImageNet-1k's classes in the order of the logits: "n01440764"."""
    return imagenet_table()[0]


@functools.cache
def imagenet_table():
    """Returns (IDs, names), each a tuple of 1,000 strings."""
    lines = (Path(__file__).parent / "assets" / "imagenet1k_classes.txt").read_text("utf-8").splitlines()
    return tuple(zip(*(line.split("\t") for line in lines)))


def labels_from_config(config):
    """Returns the class names in a config.json of timm or of transformers; None if there are none.

    timm has "label_names", and optionally "label_descriptions", which take precedence. transformers has
    "id2label". Placeholders like LABEL_0 are ignored.

    Raises:
        ValueError: the names are not text, or their numbers have a gap.
    """
    config = {**config_value(config, "pretrained_cfg", dict, {}), **config}
    keys = ("label_names", "labels", "id2label")
    names = next(filter(None, (config_value(config, key, (list, tuple, dict)) for key in keys)), None)
    if not names:
        return None
    if isinstance(names, dict):
        by_index = {int(index): name for index, name in names.items() if str(index).isdecimal()}
        missing = [i for i in range(len(names)) if i not in by_index]
        expected = f"the labels must be numbered from 0 to {len(names) - 1}"
        require(not missing, f"{expected}, there is no {listing(missing)}")
        names = [by_index[i] for i in range(len(names))]
    if all(name == f"LABEL_{i}" for i, name in enumerate(names)):
        return None
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"config.json must have text as labels, got {shown(names[:3])}, ...")
    descriptions = config_value(config, "label_descriptions", dict, {})
    return tuple(str(descriptions.get(name, name)) for name in names)


def problem_type_from_config(config):
    """Returns the problem type in a config.json: one of `PROBLEM_TYPES`.

    The key is transformers' "problem_type". The default is single-label classification.

    Raises:
        ValueError: the problem type is unknown.
    """
    return check_problem_type(config_value(config, "problem_type", str, SINGLE_LABEL))


def check_problem_type(problem_type):
    """Returns a problem type; raises a ValueError if the problem type is unknown."""
    check_choice("problem_type", problem_type, PROBLEM_TYPES)
    return problem_type


def thresholds_from_config(config, num_classes):
    """Returns the probability at which each class counts as present; None if config.json has no thresholds.

    Raises:
        ValueError: "thresholds" of a multi-label or binary model are not `num_classes` numbers from 0 to 1.
    """
    if problem_type_from_config(config) != MULTI_LABEL and num_classes > 1:
        return None
    thresholds = config_value(config, "thresholds", (list, tuple))
    return None if thresholds is None else check_thresholds(thresholds, num_classes)


def check_thresholds(thresholds, num_classes):
    """Returns thresholds as floats; raises a ValueError unless they are `num_classes` numbers in [0, 1]."""
    expected = f"{num_classes} numbers from 0 to 1, one per class"
    got = f"{len(thresholds)} values: {str(list(thresholds[:3]))[:80]} ..."
    is_valid = len(thresholds) == num_classes and all(is_number(t) and 0 <= t <= 1 for t in thresholds)
    require(is_valid, f"`thresholds` must be {expected}, got {got}")
    return tuple(map(float, thresholds))
