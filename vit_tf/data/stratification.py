"""Stratified sampling: every class keeps its share, for one or several classes per image."""

import numpy as np


def draw_stratified(labels, fraction, generator, num_kept=1):
    """Returns which images are drawn, bool [n]: a `fraction` of the members of every class.

    At least one member of a class with more than `num_kept` members is drawn, and at least `num_kept` are
    kept. For images with several classes, this may be impossible for a few classes. The labels are int [n],
    one class per image, or bool [n, k].
    """
    draw = draw_iteratively if labels.ndim == 2 else draw_by_class
    return draw(labels, float(fraction), generator, num_kept)


def draw_by_class(labels, fraction, generator, num_kept):
    """Draws round(n * fraction) members, distributed over the classes by largest remainder."""
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    quotas = counts * fraction
    taken = np.floor(quotas).astype(np.int64)
    num_left = max(round(quotas.sum()) - taken.sum(), 0)
    taken[np.argsort(taken - quotas, kind="stable")[:num_left]] += 1
    most = np.maximum(counts - num_kept, 0)
    taken = np.clip(taken, np.minimum(most, 1), most)
    members = np.split(np.argsort(classes, kind="stable"), np.cumsum(counts)[:-1])
    drawn = np.concatenate([generator.permutation(m)[:k] for m, k in zip(members, taken)])
    return np.isin(np.arange(len(labels), dtype=np.int64), drawn)


def draw_iteratively(labels, fraction, generator, num_kept):
    """Draws by iterative stratification: the images of the rarest class are assigned first.

    Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data" (2011). Images without a
    class make up the rest.
    """
    n = len(labels)
    counts = labels.sum(axis=0)
    most = np.maximum(counts - num_kept, 0)
    quotas = np.clip(counts * fraction, np.minimum(most, 1), most)
    wanted = np.stack([counts - quotas, quotas])  # (2, k): members per class that each part still needs
    room = np.array([n * (1 - fraction), n * fraction])
    part = np.full(n, -1)
    order = generator.permutation(n)
    left = counts.astype(np.int64)
    while left.any():
        rarest = np.argmin(np.where(left > 0, left, n + 1))
        for i in order[labels[order, rarest] & (part[order] < 0)]:
            part[i] = np.lexsort((-room, -wanted[:, rarest]))[0]
            wanted[part[i], labels[i]] -= 1
            room[part[i]] -= 1
            left -= labels[i]
    unlabelled = order[part[order] < 0]
    num_left = round(n * fraction) - np.count_nonzero(part == 1)
    part[unlabelled] = 0
    part[unlabelled[: max(num_left, 0)]] = 1
    return part == 1


def class_counts(labels, num_classes):
    """Returns the number of images of each class, int [k], for the labels of `draw_stratified`."""
    return labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=num_classes)
