"""Metrics, losses and splits of images with several labels, against scikit-learn's numbers and by hand."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from vit_tf.data import DataLoader, ImageFiles, read_split, split_files, write_split
from vit_tf.data.augment.mixing import CutMix, MixUp
from vit_tf.training import label_metrics as multi_label
from vit_tf.training import metrics, ranking, tasks
from vit_tf.training.loop.trainer import Progress, Trainer
from vit_tf.training.losses import WeightedBinaryCrossentropy, label_accuracy

# Drawn by default_rng(7) and rounded, so that scores are tied; the last class has no image.
LOGITS = np.array(
    [
        *([0.0, 0.8, -0.3, -0.4], [0.0, -0.5, 0.6, 1.3], [0.0, -0.6, 0.5, 0.4], [0.1, -0.9, 0.5, 0.7]),
        *([-0.8, -0.5, -1.4, -1.3], [-1.3, -0.2, -0.8, 0.3], [0.2, 0.3, -2.5, -0.5], [0.0, 0.1, -1.0, 0.0]),
        *([-1.0, -0.8, 1.6, -0.8], [0.0, 0.9, -0.1, -0.1], [0.6, 0.6, -1.2, 0.1], [1.4, -1.0, 0.9, 0.6]),
    ]
)
ROWS = "0100 1110 1000 0010 1010 1010 0100 0010 0010 0010 1100 0100".split()
TARGETS = np.array([[int(digit) for digit in row] for row in ROWS], bool)


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


@pytest.mark.parametrize(
    ("scores", "targets", "ap", "auc"),
    [
        ([4, 3, 2, 1], [1, 0, 1, 0], (1 + 2 / 3) / 2, 3 / 4),
        ([1, 1, 1, 1], [1, 0, 1, 0], 1 / 2, 1 / 2),  # all tied: one threshold
        ([2, 2, 1, 1], [1, 0, 1, 0], (1 / 2 + 2 / 4) / 2, 1 / 2),
        ([2, 2, 1, 0], [0, 1, 1, 0], (1 / 2 + 2 / 3) / 2, 5 / 8),
        ([3, 2, 1], [1, 1, 1], 1, None),
        ([3, 2, 1], [0, 0, 0], None, None),
    ],
)
def test_ranking_by_hand(scores, targets, ap, auc):
    scores, targets = np.array(scores, float), np.array(targets, bool)
    for order in (np.arange(len(scores)), np.arange(len(scores))[::-1]):
        assert ranking.average_precision(scores[order], targets[order]) == pytest.approx(ap)
        assert ranking.roc_auc(scores[order], targets[order]) == pytest.approx(auc)


@pytest.mark.parametrize(
    ("probabilities", "targets", "both", "threshold"),
    [
        ([0.9, 0.8, 0.1, 0.05], [1, 1, 0, 0], False, 0.45),  # the middle of the gap
        ([0.2, 0.15, 0.1, 0.0], [1, 1, 0, 0], False, 0.125),  # far below one half
        ([0.9, 0.7, 0.5, 0.3], [1, 0, 1, 0], False, 0.4),  # F1 4/5 against 2/3
        ([0.9, 0.9, 0.1], [1, 0, 0], False, 0.5),
        ([0.9, 0.1], [0, 0], False, 0.5),
        ([0.9, 0.1], [1, 1], True, 0.5),
        ([0.9, 0.8, 0.6, 0.5, 0.2], [1, 1, 1, 0, 1], False, 0.1),  # F1 8/9: take all
        ([0.9, 0.8, 0.6, 0.5, 0.2], [1, 1, 1, 0, 1], True, 0.55),  # 6/7 and 2/3 against 8/9 and 0
    ],
)
def test_thresholds_by_hand(probabilities, targets, both, threshold):
    found = ranking.choose_threshold(np.array(probabilities), np.array(targets, bool), both)
    assert found == pytest.approx(threshold)


def test_a_class_that_validation_lacks_has_the_usual_threshold():
    thresholds = multi_label.choose_thresholds(LOGITS, TARGETS)
    assert thresholds[3] == 0.5 and thresholds[:3] != [0.5] * 3


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_agree(smoothing):
    """Keras's, the weighted one with weights of one, and that of the validation."""
    targets = TARGETS.astype("float32")
    ours = multi_label.sigmoid_cross_entropy(5 * LOGITS, targets, smoothing)
    for loss in (tasks.MULTI_LABEL.loss(smoothing), tasks.MULTI_LABEL.loss(smoothing, np.ones(4))):
        assert float(loss(targets, 5 * LOGITS.astype("float32"))) == pytest.approx(ours, rel=1e-5)


def test_weighted_loss_by_hand():
    """Positive terms alone are weighted; the loss is read back from its configuration."""
    loss = WeightedBinaryCrossentropy([3.0, 0.5])
    loss = WeightedBinaryCrossentropy.from_config(loss.get_config())
    logits = np.array([[1.0, -2.0], [0.5, 3.0]], "float32")
    p = 1 / (1 + np.exp(-logits))
    terms = [[-3 * np.log(p[0, 0]), -np.log(1 - p[0, 1])], [-np.log(1 - p[1, 0]), -0.5 * np.log(p[1, 1])]]
    assert float(loss(np.array([[1, 0], [0, 1]]), logits)) == pytest.approx(np.mean(terms), rel=1e-5)


def test_balanced_classes_weigh_positives():
    batches = DataLoader(np.zeros((12, 2, 2, 3), "uint8"), TARGETS, 4, 5)
    images, positives = tasks.MULTI_LABEL.class_weights(batches)
    assert images is None
    np.testing.assert_allclose(positives, [7 / 5, 7 / 5, 5 / 7, 12])


def test_accuracy_counts_decisions():
    targets, logits = np.array([[1, 0, 0.7, 0.2]], "float32"), np.array([[2, 1, 3, -1]], "float32")
    assert float(keras.ops.mean(label_accuracy(targets, logits))) == pytest.approx(3 / 4)


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
    text = multi_label.per_class_multi_label(result)
    assert len(text.splitlines()) == 22 and "the 20 weakest of 25" in text and r"class7\n" in text


def test_batches_of_several_labels_and_their_mixing():
    """Each class's share is that of the images that have it."""
    images = np.arange(4 * 8 * 8 * 3).reshape(4, 8, 8, 3).astype("uint8")
    labels = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 1], [0, 1, 0]], bool)
    plain = DataLoader(images, labels, 3, 4)
    np.testing.assert_array_equal(next(plain.epoch())[1], labels.astype("float32"))
    for mix in (MixUp(), CutMix()):
        mixed, shares = DataLoader(images, labels, 3, 4, mix=mix, seed=5).batch(0, 0)
        kept = shares[0, 0]  # only the first of the first pair has this class
        assert 0 < kept < 1
        np.testing.assert_allclose(shares, kept * labels + (1 - kept) * labels[::-1], atol=1e-6)
        assert (mixed[0] != images[0]).any()
    with pytest.raises(
        ValueError, match=r"bool labels of shape \(4, 2\), one column per class, got 4 .* \(4, 3\)"
    ):
        DataLoader(images, labels, 2, 4)


# ---------------------------------------------------------------- splits


def make_files(root, n=400, seed=0):
    """ImageFiles whose classes are frequent and rare, and go together."""
    generator = np.random.default_rng(seed)
    labels = generator.random((n, 5)) < (0.5, 0.3, 0.1, 0.05, 0.0)
    labels[:, 1] |= labels[:, 2]
    labels[[3, 50, 99], 4] = True
    names = tuple(f"{i:04}.jpg" for i in range(n))
    return ImageFiles(root, tuple("abcde"), names, labels, (None,) * n)


def counts_of(files):
    splits = np.array(files.splits)
    return np.array([files.labels[splits == s].sum(axis=0) for s in ("train", "validation", "test")])


def test_a_split_keeps_the_share_of_every_class(tmp_path):
    files = make_files(tmp_path)
    split = split_files(files, 0.2, 0.1, seed=3)
    counts, total = counts_of(split), files.labels.sum(axis=0)
    np.testing.assert_allclose(counts[1], 0.2 * total, atol=1.01)
    np.testing.assert_allclose(counts[2], 0.1 * total, atol=1.01)
    assert counts[:, 4].tolist() == [1, 1, 1]  # three images: one for each part
    sizes = [split.splits.count(part) for part in ("train", "validation", "test")]
    np.testing.assert_allclose(sizes, [280, 80, 40], atol=4)
    assert split_files(make_files("elsewhere"), 0.2, 0.1, seed=3).splits == split.splits
    assert split_files(files, 0.2, 0.1, seed=4).splits != split.splits


def test_a_split_refuses_a_class_of_too_few_images(tmp_path):
    files = make_files(tmp_path)
    with pytest.raises(ValueError, match="1 classes have too few .*'e' has 2"):
        split_files(files.subset(range(98)))


def test_a_split_of_several_labels_is_read_back(tmp_path):
    files = split_files(make_files(tmp_path))
    write_split(files, tmp_path / "split.csv")
    labels = np.concatenate([np.zeros((400, 1), bool), files.labels], axis=1)
    grown = ImageFiles(tmp_path, ("a new one", *files.class_names), files.names, labels, files.splits)
    back = read_split(grown, tmp_path / "split.csv")
    assert (back.names, back.splits, back.class_names) == (files.names, files.splits, files.class_names)
    np.testing.assert_array_equal(back.labels, files.labels)
    labels[3, 1:] ^= True
    with pytest.raises(ValueError, match="'0003.jpg' was of the class .* and is now of"):
        read_split(grown, tmp_path / "split.csv")


# ---------------------------------------------------------------- tasks


def test_the_labels_choose_the_task(tmp_path):
    several = make_files(tmp_path)
    single = ImageFiles(tmp_path, ("cat", "dog"), ("a", "b", "c"), np.array([0, 1, 1]), (None,) * 3)
    assert tasks.choose_task(several) is tasks.MULTI_LABEL and tasks.choose_task(single) is tasks.SINGLE_LABEL
    one_hot = tasks.MULTI_LABEL.prepare(single)
    np.testing.assert_array_equal(one_hot.labels, [[1, 0], [0, 1], [0, 1]])
    np.testing.assert_array_equal(tasks.SINGLE_LABEL.prepare(one_hot).labels, single.labels)
    np.testing.assert_array_equal(tasks.BINARY.encode(tasks.BINARY.prepare(one_hot).labels)[:, 0], [0, 1, 1])
    with pytest.raises(ValueError, match="must be single-label, multi-label, binary, got 'both'"):
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
