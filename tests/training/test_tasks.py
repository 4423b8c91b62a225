from types import SimpleNamespace

import numpy as np
import pytest
from support.label_sets import TARGETS, make_files

from vit_tf.data import DataLoader, ImageFiles
from vit_tf.training import metrics, tasks
from vit_tf.training.loop.trainer import Progress, Trainer


def test_balanced_classes_weigh_positives():
    batches = DataLoader(np.zeros((12, 2, 2, 3), "uint8"), TARGETS, 4, 5)
    images, positives = tasks.MULTI_LABEL.class_weights(batches)
    assert images is None
    np.testing.assert_allclose(positives, [7 / 5, 7 / 5, 5 / 7, 12])


def test_the_labels_choose_the_task(tmp_path):
    several = make_files(tmp_path)
    single = ImageFiles(tmp_path, ("cat", "dog"), ("a", "b", "c"), np.array([0, 1, 1]), (None,) * 3)
    assert tasks.choose_task(several) is tasks.MULTI_LABEL and tasks.choose_task(single) is tasks.SINGLE_LABEL
    one_hot = tasks.MULTI_LABEL.prepare(single)
    np.testing.assert_array_equal(one_hot.labels, [[1, 0], [0, 1], [0, 1]])
    np.testing.assert_array_equal(tasks.SINGLE_LABEL.prepare(one_hot).labels, single.labels)
    np.testing.assert_array_equal(tasks.BINARY.encode(tasks.BINARY.prepare(one_hot).labels)[:, 0], [0, 1, 1])
    with pytest.raises(ValueError, match="one of 'single-label', 'multi-label', 'binary', got 'both'"):
        tasks.choose_task(single, "both")
    three = ImageFiles(tmp_path, ("a", "b", "c"), ("1", "2", "3"), np.arange(3), (None,) * 3)
    with pytest.raises(ValueError, match="--task binary needs two classes, got 3"):
        tasks.BINARY.prepare(three)


@pytest.mark.parametrize(
    ("task", "monitor", "is_best"),
    [("single-label", "accuracy", False), ("multi-label", "accuracy", True), ("multi-label", "loss", False)],
)
def test_the_best_weights_are_those_of_the_best_average_precision(task, monitor, is_best):
    row = {"val_loss": 0.4, "val_accuracy": 0.9, "val_map": 0.8}
    best = {"val_loss": 0.3, "val_accuracy": 0.95, "val_map": 0.7}
    trainer = SimpleNamespace(progress=Progress(best=best), monitor=monitor, task=tasks.TASKS[task])
    assert Trainer.is_best(trainer, row) == is_best


def test_binary_metrics_by_hand():
    """The threshold decides, not one half."""
    logits, targets = np.array([[2.0], [-1.0], [-0.5], [-3.0]]), np.array([[1.0], [1.0], [0.0], [0.0]])
    result = tasks.BINARY.evaluate(logits, targets, ("no", "yes"), [0.25])
    assert result["confusion"] == [[1, 1], [0, 2]] and result["accuracy"] == 3 / 4
    assert result["average_precision"] == pytest.approx((1 + 2 / 3) / 2) and result["roc_auc"] == 3 / 4
    assert result["classes"]["yes"]["precision"] == pytest.approx(2 / 3) and result["thresholds"] == [0.25]
    assert "top5_accuracy" not in result and metrics.per_class(result).count("\n") == 2
