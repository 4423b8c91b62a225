"""Splits of a data set by class."""

import numpy as np

from vit_tf.data.cifar10 import _flat_labels, _require


def stratified_split(labels, fraction, seed):
    """Splits a data set so that every class keeps its share in both parts.

    Validation has round(n * fraction) members, shared out by largest remainder; a class of two or more
    has at least one in each part, and the only member of a class stays in training.

    Args:
        labels: integers [n] or [n, 1]; at least one class must have two members, else a ValueError.
        fraction: the validation part's share, between 0 and 1, both excluded, else a ValueError.
        seed: an integer >= 0, else a ValueError; equal seeds give equal splits.

    Returns:
        (train_indices, validation_indices): sorted, disjoint int64 arrays, together 0 .. n - 1.
    """
    labels = _flat_labels(labels, "labels")
    is_share = isinstance(fraction, (int, float, np.floating)) and 0 < fraction < 1
    _require(is_share, f"fraction is {fraction!r}: expected a number between 0 and 1, such as 0.1")
    _require(isinstance(seed, (int, np.integer)) and seed >= 0, f"seed is {seed!r}: expected an integer >= 0")
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    _require(counts.max() > 1, "no class of labels has two members: a split needs one in each part")
    quotas = counts * float(fraction)
    taken = np.floor(quotas).astype(np.int64)
    num_left = max(round(quotas.sum()) - taken.sum(), 0)
    taken[np.argsort(taken - quotas, kind="stable")[:num_left]] += 1
    taken = np.clip(taken, np.minimum(counts - 1, 1), counts - 1)
    members = np.split(np.argsort(classes, kind="stable"), np.cumsum(counts)[:-1])
    generator = np.random.default_rng(seed)
    validation = np.concatenate([generator.permutation(m)[:k] for m, k in zip(members, taken)])
    is_validation = np.isin(np.arange(len(labels), dtype=np.int64), validation)
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)
