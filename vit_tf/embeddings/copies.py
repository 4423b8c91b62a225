"""`near_duplicates`: groups of images whose embeddings nearly agree. Shapes: n vectors, d width."""

from typing import Any

import numpy as np

from vit_tf.checks import check_number
from vit_tf.embeddings.neighbours import NearestNeighbours

CANDIDATES = 32  # neighbours per vector that an index is asked for


def near_duplicates(
    vectors: Any, threshold: float = 0.95, exact: bool | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns groups of vectors that are similar to the first vector of their group.

    The vectors are taken in their order. A vector that is in no group yet becomes the first of one, with all
    later vectors that are in no group and reach the threshold. So each vector is in one group at most, and no
    chain of small changes joins images that differ.

    Args:
        vectors: float array (n, d).
        threshold: the cosine similarity from which on two images count as near-duplicates.
        exact: bool or None, see `NearestNeighbours`.

    Returns:
        A list of (indices, similarities) of at least two vectors, by the first index: int64 in ascending
        order, and float32 similarities to the first vector, whose own is 1.

    Raises:
        ValueError: the vectors are not a matrix of finite floats, or the threshold is not in (0, 1].
    """
    check_number("threshold", threshold, "(0, 1]")
    neighbours = NearestNeighbours(vectors, exact)
    is_free = np.ones(len(neighbours.vectors), bool)
    groups = []
    for first, indices, similarities in similar_later(neighbours, threshold, is_free):
        is_member = is_free[indices]
        indices, similarities = indices[is_member], similarities[is_member]
        if len(indices):
            is_free[indices] = False
            members = np.concatenate([[first], indices]).astype(np.int64)
            groups.append((members, np.concatenate([[1], similarities.clip(-1, 1)]).astype("float32")))
    return groups


def similar_later(neighbours, threshold, is_free):
    """Yields (i, indices, similarities) of the later vectors that are similar to vector i, if i is free.

    Args:
        neighbours: a `NearestNeighbours`.
        is_free: bool (n,), which the caller changes meanwhile.
    """
    vectors, start = neighbours.vectors, 0
    # float32 sums of the same numbers in another order differ in their last digits.
    least = threshold - 1e-6
    for queries in neighbours.blocks(vectors):
        if neighbours.exact:
            block = queries @ vectors[start:].T
        else:
            found = neighbours.search(queries, CANDIDATES)
        for i in range(start, start + len(queries)):
            if not is_free[i]:
                continue
            if neighbours.exact:
                indices = i + 1 + np.flatnonzero(block[i - start, i - start + 1 :] >= least)
                yield i, indices, block[i - start, indices - start]
            else:
                yield i, *later(vectors, i, *(values[i - start] for values in found), least)
        start += len(queries)


def later(vectors, i, similarities, indices, least):
    """Returns the indices after i, and their similarities of at least `least`, of candidates of an index."""
    if similarities[-1] >= least:  # there may be more than the candidates
        similarities, indices = vectors @ vectors[i], np.arange(len(vectors))
    is_later = (indices > i) & (similarities >= least)
    order = np.argsort(indices[is_later])
    return indices[is_later][order], similarities[is_later][order]
