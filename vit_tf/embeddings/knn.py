"""`knn_votes`: classification by the nearest labelled embeddings, as DINO measures its features.

Shapes: n gallery images, m queries, c classes, d width, k neighbours.
"""

from typing import Any

import numpy as np

from vit_tf.checks import check_int, check_number, require
from vit_tf.embeddings.neighbours import NearestNeighbours

TEMPERATURE = 0.07


def knn_votes(
    gallery: Any,
    labels: Any,
    queries: Any,
    k: int = 20,
    temperature: float = TEMPERATURE,
    num_classes: int | None = None,
) -> np.ndarray:
    """Returns the votes of the k nearest gallery images for each class, float64 (m, c).

    The neighbour at cosine similarity s votes for its class with the weight `exp(s / temperature)`. The
    class with the most votes is the prediction. The neighbours are exact.

    Reference: Caron et al., "Emerging Properties in Self-Supervised Vision Transformers"
    (https://arxiv.org/abs/2104.14294), `eval_knn.py`.

    Args:
        gallery: float array (n, d).
        labels: int array (n,), the class of each gallery image.
        queries: float array (m, d); None classifies each gallery image by all others.
        k: int, at most the number of images that may be neighbours.
        temperature: number, at least 0.002, so that no weight overflows.
        num_classes: int c; None takes the largest label.

    Raises:
        ValueError: an argument is out of range, or the arrays do not fit each other.
    """
    check_int("k", k, 1)
    check_number("temperature", temperature, "[0.002, inf)")
    neighbours, labels = NearestNeighbours(gallery, exact=True), np.asarray(labels)
    count = len(neighbours.vectors)
    require(labels.shape == (count,), f"`labels` must be {count} numbers, got the shape {labels.shape}")
    is_index = labels.dtype.kind in "iu" and labels.min(initial=0) >= 0
    require(is_index, f"`labels` must be non-negative integers, got {labels.dtype}")
    others = count - (queries is None)
    require(k <= others, f"`k` must be at most {others}, the number of gallery images, got {k}")
    num_classes = int(labels.max()) + 1 if num_classes is None else num_classes
    require(labels.max() < num_classes, f"`labels` has {labels.max()}, expected less than {num_classes}")
    similarities, indices = nearest(neighbours, queries, k)
    votes = np.zeros((len(indices), num_classes))
    rows = np.repeat(np.arange(len(indices)), k)
    weights = np.exp(similarities.astype("float64") / temperature)
    np.add.at(votes, (rows, labels[indices].ravel()), weights.ravel())
    return votes


def nearest(neighbours, queries, k):
    """Returns (similarities, indices) (m, k); without queries those of each vector to all others."""
    if queries is not None:
        return neighbours.search(queries, k)
    similarities, indices = neighbours.search(neighbours.vectors, k + 1)
    is_other = indices != np.arange(len(indices))[:, None]
    is_other[is_other.all(axis=1), -1] = False  # itself is behind k + 1 copies
    return similarities[is_other].reshape(-1, k), indices[is_other].reshape(-1, k)
