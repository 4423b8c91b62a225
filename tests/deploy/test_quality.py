"""What quantization is judged by: accuracy, agreement and speed."""

import keras
import numpy as np
import pytest

from vit_tf.classifier import Classifier
from vit_tf.deploy import quality
from vit_tf.deploy.quality import Quality
from vit_tf.labels import MULTI_LABEL


class FewImages:
    """Ten images of three classes, each its own logits."""

    def __init__(self, targets, activation=None, **fields):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation)])
        self.classifier = Classifier(model, None, ("a", "b", "c"), **fields)
        self.targets = np.asarray(targets, "float32")

    def batches(self, batch_size):
        for i in range(0, len(self.targets), 4):
            yield np.arange(i, min(i + 4, len(self.targets))), self.targets[i : i + 4]


def test_accuracy_and_agreement():
    truth = np.eye(3)[np.arange(10) % 3]
    before, after = truth.copy(), truth.copy()
    before[0] = [0, 1, 0]  # wrong before, right after
    after[1] = after[2] = [1, 0, 0]  # right before, wrong after
    measure = Quality(FewImages(truth)).measure
    first = measure(lambda images: (before[images],))
    assert first == {"score": 0.9, "drop": 0, "drop_error": 0, "top1_agreement": 1}
    second = measure(lambda images: (after[images],))
    assert second["score"] == 0.8 and second["drop"] == pytest.approx(10)
    assert second["top1_agreement"] == 0.7
    assert second["drop_error"] == pytest.approx(100 * np.std([-1, 1, 1, *[0] * 7]) / 10**0.5)


def test_several_labels_per_image():
    truth = np.eye(3)[np.arange(9) % 3]
    truth[0] = [1, 1, 0]
    images = FewImages(truth, problem_type=MULTI_LABEL, thresholds=(0.5, 0.9, 0.5))
    quality = Quality(images)
    assert quality.metric == "mAP"
    logits = 8 * truth - 4
    assert quality.measure(lambda batch: (logits[batch],))["score"] == 1
    worse = logits.copy()
    worse[0, 1] = 1  # below the threshold of 0.9, and still ranked before the others
    results = quality.measure(lambda batch: (worse[batch],))
    assert results["drop"] == 0 and results["drop_error"] is None
    assert results["top1_agreement"] == pytest.approx(8 / 9)


def test_a_head_that_ends_in_sigmoid():
    truth = np.eye(3)[np.arange(10) % 3]
    quality = Quality(FewImages(truth, "sigmoid", problem_type=MULTI_LABEL))
    outputs = 0.05 + 0.9 * truth
    assert quality.measure(lambda batch: (outputs[batch],))["top1_agreement"] == 1
    worse = outputs.copy()
    worse[0, 0] = 0.3
    assert quality.measure(lambda batch: (worse[batch],))["top1_agreement"] == 0.9


def test_no_image_has_a_label():
    with pytest.raises(ValueError, match="no image to measure on has a label of the model"):
        Quality(FewImages(np.zeros((10, 3)), problem_type=MULTI_LABEL)).measure(
            lambda batch: (np.eye(10, 3)[batch],)
        )


def test_speed_of_models_that_take_turns(monkeypatch):
    calls = []
    runs = {name: lambda batch, name=name: calls.append(name) for name in ("float32", "int8")}
    monkeypatch.setattr(quality, "SECONDS", 0)
    seconds = quality.compare_speed(runs, np.zeros(3))
    assert calls[:4] == ["float32", "int8"] * 2 and set(seconds) == set(runs)
    assert len(calls) == 2 * (quality.WARM_UP + quality.FEWEST_ROUNDS + 1)
