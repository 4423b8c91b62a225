import numpy as np
import pytest

from vit_tf.data import DataLoader
from vit_tf.training import metrics


def test_evaluate_by_hand():
    """Classes a, b, c; true a a a b b, taken for a a b b a; none of c."""
    logits = np.eye(3)[[0, 0, 1, 1, 0]] + np.random.default_rng(0).normal(0, 0.01, (5, 3))
    result = metrics.evaluate(logits, np.array([0, 0, 0, 1, 1]), list("abc"))
    assert result["accuracy"] == pytest.approx(3 / 5) and result["top5_accuracy"] == 1
    assert result["confusion"] == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert result["classes"]["a"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "images": 3}
    )
    assert result["classes"]["b"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "images": 2}
    )
    assert result["classes"]["c"] == {"precision": None, "recall": None, "f1": None, "images": 0}


def test_top5():
    logits = np.array([[3, 2, 1, 0, -1, -2], [0, 9, 1, 2, 3, 4], [9, 8, 7, 6, 5, 4]], "float32")
    result = metrics.evaluate(logits, np.array([0, 0, 5]), list("abcdef"))
    assert result["top5_accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_keras_s(smoothing):
    import keras

    generator = np.random.default_rng(0)
    logits = generator.normal(0, 5, (7, 4)).astype("float32")
    targets = generator.dirichlet(np.ones(4), 7).astype("float32")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)(targets, logits)
    # float32 against float64
    assert metrics.cross_entropy(logits, targets, smoothing) == pytest.approx(float(loss), rel=1e-5)


def test_confident_mistakes():
    logits = np.array([[0.0, 5.0], [9.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    labels = np.array([0, 0, 0, 1])
    assert metrics.confident_mistakes(logits, labels).tolist() == [0, 3, 2]
    assert metrics.confident_mistakes(logits, labels, count=1).tolist() == [0]
    assert metrics.confident_mistakes(logits[:1], np.array([1])).tolist() == []


class LeftMinusRight:
    """Logits that a mirror image turns round: what is left brighter is class 0."""

    def predict_on_batch(self, images):
        difference = images[:, :, 0, 0].mean(1) - images[:, :, -1, 0].mean(1)
        return np.stack([difference, -difference, difference**2], axis=1)


def test_predict_and_its_mirror():
    generator = np.random.default_rng(0)
    images = generator.normal(size=(5, 3, 4, 1)).astype("float32")
    labels = np.array([0, 2, 1, 1, 0])
    batches, done = DataLoader(images, labels, 3, 2), []
    logits, targets = metrics.predict(LeftMinusRight(), batches, after_batch=lambda: done.append(1))
    np.testing.assert_array_equal(targets.argmax(-1), labels)
    np.testing.assert_allclose(logits, LeftMinusRight().predict_on_batch(images))
    assert len(done) == 3
    mirrored, _ = metrics.predict(LeftMinusRight(), batches, flip_tta=True)
    np.testing.assert_allclose(mirrored[:, :2], 0, atol=1e-7)
    np.testing.assert_allclose(mirrored[:, 2], logits[:, 2], atol=1e-6)


def test_expected_calibration_error_by_hand():
    """Three images of confidence 0.9, two of them right; one of 0.6, which is right."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    expected = 3 / 4 * abs(2 / 3 - 0.9) + 1 / 4 * abs(1 - 0.6)
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(expected)
    assert metrics.expected_calibration_error(np.eye(2)[[0, 1]], np.array([0, 1])) == 0
    assert metrics.expected_calibration_error(np.eye(2)[[0, 1]], np.array([1, 0])) == 1


def test_expected_calibration_error_bin_by_bin():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(5), 300)
    labels = np.array([rng.choice(5, p=row) for row in probabilities])
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    total = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.expected_calibration_error(probabilities, labels) == pytest.approx(total)
    assert total < 0.1  # the labels are drawn by these probabilities
