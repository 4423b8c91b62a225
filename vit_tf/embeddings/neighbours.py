"""Nearest neighbours by cosine similarity. Shapes: n vectors, m queries, d width, k neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_tf.checks import check_int, require
from vit_tf.deploy.extras import require_modules

MOST_EXACT = 50_000  # vectors
BLOCK_BYTES = 64 << 20  # of the similarities of a block of queries
EXPANSION = 128  # candidates that the graph of usearch keeps for a query: its recall


class NearestNeighbours:
    """Finds the vectors that are nearest to queries, by cosine similarity.

    Args:
        vectors: float array (n, d). A vector of zeros is similar to nothing.
        exact: bool. True compares all pairs with NumPy. False builds an index of usearch, the graph HNSW
            (https://arxiv.org/abs/1603.09320), which answers many queries faster and misses a few
            neighbours. None takes the index from 50,000 vectors on.

    Raises:
        ValueError: the vectors are not a matrix of finite floats, or usearch is not installed.

    Attributes:
        vectors: float32 (n, d), normalised.
    """

    def __init__(self, vectors: Any, exact: bool | None = None):
        self.vectors = normalized(check_vectors("vectors", vectors))
        self.exact = len(self.vectors) < MOST_EXACT if exact is None else exact
        self._index: Any = None
        if not self.exact:
            purpose = f"an index of {len(self.vectors):,} vectors"
            require_modules(["usearch"], "search", purpose)
            self._index = self._build()

    def search(self, queries: Any, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k nearest vectors of each query, the nearest first.

        Args:
            queries: float array (m, d), or (d,) for one.
            k: int; at most n neighbours are returned.

        Returns:
            (similarities, indices): float32 (m, k) in [-1, 1] and int64 (m, k). Of equal similarities the
            lower index is first.

        Raises:
            ValueError: the queries have another width, or k is not positive.
        """
        check_int("k", k, 1)
        queries = normalized(check_vectors("queries", np.atleast_2d(np.asarray(queries))))
        width = self.vectors.shape[1]
        problem = f"`queries` have {queries.shape[1]} values, and the vectors {width}"
        require(queries.shape[1] == width, f"{problem}: they are of another model or pooling")
        k = min(k, len(self.vectors))
        if not len(queries) or not k:
            return np.zeros((len(queries), k), "float32"), np.zeros((len(queries), k), np.int64)
        if self.exact:
            parts = [self._exact(part, k) for part in self.blocks(queries)]
            similarities, indices = (np.concatenate(values) for values in zip(*parts))
        else:
            indices = np.atleast_2d(self._index.search(queries, k).keys.astype(np.int64))
            similarities = np.einsum("md,mkd->mk", queries, self.vectors[indices])
        order = np.lexsort((indices, -similarities))
        ordered = (np.take_along_axis(values, order, axis=1) for values in (similarities, indices))
        similarities, indices = ordered
        return similarities.clip(-1, 1), indices

    def blocks(self, queries: np.ndarray) -> Iterator[np.ndarray]:
        """Yields parts of queries (m, d) whose similarities to all vectors fit into a block."""
        rows = max(BLOCK_BYTES // (4 * max(len(self.vectors), 1)), 1)
        for start in range(0, len(queries), rows):
            yield queries[start : start + rows]

    def _exact(self, queries, k):
        similarities = queries @ self.vectors.T
        # Of vectors that are as similar as the last one, any may be in: the lowest indices are wanted.
        last = np.partition(similarities, -k, axis=1)[:, -k, None]
        rank = np.where(similarities > last, 0, 2 - (similarities == last)).astype("int8")
        indices = np.argsort(rank, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(similarities, indices, axis=1), indices

    def _build(self):
        from usearch.index import Index

        index = Index(ndim=self.vectors.shape[1], metric="ip", dtype="f32", expansion_search=EXPANSION)
        # Threads that add at the same time lose links: graphs differ, and miss up to 7 % of neighbours.
        index.add(np.arange(len(self.vectors)), self.vectors, threads=1)
        return index


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors (n, d) divided by their L2 norms, float32. A vector of zeros stays."""
    vectors = np.asarray(vectors, "float32")
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def check_vectors(name, vectors):
    """Returns an array; raises a ValueError unless it is a matrix of finite floats."""
    vectors = np.asarray(vectors)
    is_matrix = vectors.ndim == 2 and vectors.dtype.kind == "f"
    require(is_matrix, f"`{name}` must be floats (n, d), got {vectors.dtype} of the shape {vectors.shape}")
    require(np.isfinite(vectors).all(), f"`{name}` have NaN or infinite values: look at the model")
    return vectors
