import numpy as np
import pytest

from vit_tf.training import ranking


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
