"""The similarity of the features of layers and of models."""

from typing import Any

import numpy as np


def linear_cka(x: Any, y: Any) -> float:
    """Returns the linear centred kernel alignment of two sets of features of the same images, from 0 to 1.

    CKA is 1 where one set is a rotated and scaled copy of the other. With far fewer images than features it
    is high for any two sets: then pass the patches of all images as rows, `(b * n, d)`.
    Reference: Kornblith et al., "Similarity of Neural Network Representations Revisited"
    (https://arxiv.org/abs/1905.00414), section 3.

    Args:
        x, y: arrays `(b, ...)`, flattened to vectors; or dicts of such arrays, as from `forward_features`.

    Returns:
        float; for dicts a float64 array `(len(x), len(y))`.

    Raises:
        ValueError: the numbers of images differ, or are below two.
    """
    sides = [list(z.values()) if isinstance(z, dict) else [z] for z in (x, y)]
    check_same_images(sides[0] + sides[1])
    widest = max(np.size(z) // len(z) for z in sides[0] + sides[1])
    reduced = [[centred(z, widest) for z in side] for side in (sides[:1] if y is x else sides)]
    first, second = reduced[0], reduced[-1]
    inner = inner_of_grams if len(sides[0][0]) < widest else inner_of_features
    lengths = [[inner(z, z) ** 0.5 for z in side] for side in (first, second)]
    products = np.array([[inner(a, b) for b in second] for a in first])
    norms = np.outer(*lengths)  # type: ignore[call-overload]
    alignment = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return alignment if isinstance(x, dict) or isinstance(y, dict) else float(alignment[0, 0])


def check_same_images(features):
    counts = {len(x) for x in features}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            f"CKA compares features of the same images, two or more of them, got {sorted(counts)}"
        )


def centred(features, widest):
    """Returns centred features `(b, d)`, or their inner products `(b, b)` where these are smaller."""
    rows = np.asarray(features, "float64").reshape(len(features), -1)
    rows = rows - rows.mean(axis=0)
    return rows @ rows.T if len(rows) < widest else rows


def inner_of_features(a, b):
    return np.sum((a.T @ b) ** 2)


def inner_of_grams(a, b):
    return np.sum(a * b)
