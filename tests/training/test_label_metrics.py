"""Metrics, losses and splits of images with several labels, against scikit-learn's numbers and by hand."""

import numpy as np
import pytest
from support.label_sets import LOGITS, TARGETS

from vit_tf.training import label_metrics as multi_label
from vit_tf.training import per_class


def test_evaluation_is_scikit_learn_s():
    """average_precision_score, precision_recall_fscore_support and f1_score of scikit-learn, no NaN."""
    result = multi_label.evaluate_multi_label(LOGITS, TARGETS, list("abcd"), [0.5, 0.4, 0.6, 0.5])
    classes = result["classes"]
    expected = {
        "average_precision": [0.3966666666666666, 0.5666666666666667, 0.6944805194805195, None],
        "precision": [0.33333333, 0.5, 0.6, 0.0],
        "recall": [0.6, 0.6, 0.42857143, None],
        "f1": [0.42857143, 0.54545455, 0.5, 0.0],
        "images": [5, 5, 7, 0],
        "threshold": [0.5, 0.4, 0.6, 0.5],
    }
    for key, values in expected.items():
        assert [classes[name][key] for name in "abcd"] == pytest.approx(values), key
    assert result["mean_average_precision"] == pytest.approx(np.mean(expected["average_precision"][:3]))
    assert result["micro_f1"] == pytest.approx(0.4090909090909091)
    assert result["macro_f1"] == pytest.approx(0.3685064935064935)
    assert multi_label.mean_average_precision(LOGITS, TARGETS) == result["mean_average_precision"]


def test_a_class_that_validation_lacks_has_the_usual_threshold():
    thresholds = multi_label.choose_thresholds(LOGITS, TARGETS)
    assert thresholds[3] == 0.5 and thresholds[:3] != [0.5] * 3


def test_wrong_images_by_hand():
    logits = np.array([[4.0, -4.0], [-4.0, 0.5], [0.5, -4.0], [3.0, 3.0]])
    targets = np.array([[1, 0], [0, 0], [0, 0], [0, 1]], bool)
    assert multi_label.wrong_images(logits, targets, [0.5, 0.5]).tolist() == [3, 1, 2]
    assert multi_label.wrong_images(logits, targets, [0.5, 0.9]).tolist() == [3, 2]


def test_the_weakest_classes_are_shown():
    names = [f"class{i}\n" for i in range(25)]
    generator = np.random.default_rng(0)
    targets = generator.random((40, 25)) < 0.3
    targets[:, 7] = False
    result = multi_label.evaluate_multi_label(generator.normal(size=(40, 25)), targets, names, [0.5] * 25)
    text = per_class(result)
    assert len(text.splitlines()) == 22 and "the 20 weakest of 25" in text and r"class7\n" in text
