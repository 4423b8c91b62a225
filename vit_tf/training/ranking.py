"""Ranking metrics and thresholds of one class: average precision, ROC AUC, best F1."""

import numpy as np


def average_precision(scores, targets):
    """Returns the average precision of one class, as scikit-learn defines it; None without positives.

    It is the sum of the precision at each threshold times the recall that the threshold adds, without
    interpolation; equal scores share a threshold.

    Args:
        scores: float [n], higher for the class.
        targets: bool [n].
    """
    if not targets.any():
        return None
    hits, selected = counts_by_threshold(scores, targets)
    gains = np.diff(hits, prepend=0) / hits[-1]
    return float((gains * hits / selected).sum())


def roc_auc(scores, targets):
    """Returns the area under the ROC curve of one class; None unless there are positives and negatives.

    Args: as of `average_precision`.
    """
    if targets.all() or not targets.any():
        return None
    hits, selected = counts_by_threshold(scores, targets)
    false = selected - hits
    return float(np.trapezoid(np.append(0, hits / hits[-1]), np.append(0, false / false[-1])))


def counts_by_threshold(scores, targets):
    """Returns how many images reach each distinct score, from the highest: (positives, all), both [m]."""
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each group of equal scores
    return targets[order].cumsum()[last], last + 1


def choose_threshold(probabilities, targets, both=False):
    """Returns the threshold with the best F1 of one class; 0.5 without positives or without negatives.

    Thresholds lie in the middle between two probabilities. Of equally good thresholds, the one in the widest
    gap is chosen.

    Args:
        probabilities: float [n], in [0, 1].
        targets: bool [n].
        both: bool, whether to maximise the mean F1 of the class and of its absence.
    """
    n, positives = len(targets), np.count_nonzero(targets)
    if not 0 < positives < n:
        return 0.5
    hits, selected = (np.append(0, counts) for counts in counts_by_threshold(probabilities, targets))
    quality = f1(hits, selected, positives)
    if both:
        quality = quality + f1(n - positives - (selected - hits), n - selected, n - positives)
    levels = np.concatenate([[1.0], np.unique(probabilities)[::-1], [0.0]])
    gaps = levels[:-1] - levels[1:]
    best = np.lexsort((-gaps, -quality.round(12)))[0]
    return float((levels[best] + levels[best + 1]) / 2)


def f1(hits, selected, positives):
    """Returns the harmonic mean of precision and recall, 0 if both counts are 0."""
    return 2 * hits / np.maximum(selected + positives, 1)
