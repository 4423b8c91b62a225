"""Nearest neighbours, near-duplicates and k-NN votes against plain loops."""

import numpy as np
import pytest

from vit_tf.embeddings import NearestNeighbours, knn_votes, near_duplicates, neighbours, normalized

RNG = np.random.default_rng(4)
VECTORS = RNG.normal(size=(300, 24)).astype("float32")


def cosine(a, b):
    return float(a.astype("float64") @ b / (np.linalg.norm(a.astype("float64")) * np.linalg.norm(b)))


def test_exact_neighbours_equal_a_sort(monkeypatch):
    queries = RNG.normal(size=(7, 24)) * 50
    wanted = np.array([[cosine(v, q) for v in VECTORS] for q in queries])
    order = np.argsort(-wanted, axis=1)[:, :12]
    for block_bytes in (1, 3 * 4 * 300, 1 << 26):  # one query at a time, three, all
        monkeypatch.setattr(neighbours, "BLOCK_BYTES", block_bytes)
        similarities, indices = NearestNeighbours(VECTORS).search(queries, 12)
        np.testing.assert_array_equal(indices, order)
        np.testing.assert_allclose(similarities, np.take_along_axis(wanted, order, 1), atol=1e-5)
    similarities, indices = NearestNeighbours(VECTORS.astype("float16")).search(VECTORS[5], 1)
    assert indices.tolist() == [[5]] and similarities[0, 0] == pytest.approx(1, abs=1e-5)


def test_ties_and_small_numbers():
    same = NearestNeighbours(np.ones((5, 3), "float32"))
    assert same.search(np.ones(3), 3)[1].tolist() == [[0, 1, 2]]
    assert same.search(np.ones((2, 3)), 99)[0].shape == (2, 5)
    assert same.search(np.zeros((0, 3)), 2)[1].shape == (0, 2)
    zeros = NearestNeighbours(np.zeros((2, 3))).search(np.ones(3), 2)
    assert zeros[0].tolist() == [[0, 0]] and zeros[1].tolist() == [[0, 1]]
    assert NearestNeighbours(np.zeros((0, 3))).search(np.ones(3))[1].shape == (1, 0)
    np.testing.assert_allclose(normalized(np.array([[3, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])


@pytest.fixture
def centres():
    """Vectors around forty centres, with copies of some, in a random order."""
    rng = np.random.default_rng(6)
    centres = rng.normal(size=(40, 24)) * 3
    near = centres[rng.integers(0, 40, 2000)] + rng.normal(size=(2000, 24))
    copies = near[:80] + 0.01 * rng.normal(size=(80, 24))
    many = np.repeat(near[90:91], 60, axis=0)  # more than an index is asked for
    return rng.permutation(np.concatenate([near, copies, many])).astype("float32")


def test_an_index_finds_what_a_sort_finds(centres):
    pytest.importorskip("usearch")
    exact, index = (NearestNeighbours(centres, exact=exact) for exact in (True, False))
    wanted, found = (each.search(centres[:200], 10) for each in (exact, index))
    # Of more copies than are asked for, the index may find any.
    assert (np.abs(wanted[0] - found[0]) < 1e-5).mean() > 0.99
    similarities = np.einsum("md,mkd->mk", index.vectors[:200], index.vectors[found[1]])
    np.testing.assert_allclose(found[0], similarities, atol=1e-5)
    assert all(len(set(row)) == 10 for row in found[1])
    assert index.search(centres[0], 3)[1].shape == (1, 3)


def naive_groups(vectors, threshold):
    groups, taken = [], set()
    for i in range(len(vectors)):
        if i not in taken:
            later = [j for j in range(i + 1, len(vectors)) if j not in taken]
            members = [j for j in later if cosine(vectors[i], vectors[j]) >= threshold]
            taken.update(members)
            groups += [[i, *members]] if members else []
    return groups


def test_groups_of_near_duplicates(monkeypatch):
    few = np.concatenate([VECTORS[:60], VECTORS[10:40] + 0.2 * RNG.normal(size=(30, 24))])
    few = np.concatenate([few, few[80:] + 0.2 * RNG.normal(size=(10, 24))])
    for block_bytes in (1, 1 << 26):
        monkeypatch.setattr(neighbours, "BLOCK_BYTES", block_bytes)
        for threshold in (0.5, 0.95, 0.99):
            groups = near_duplicates(few, threshold)
            assert [indices.tolist() for indices, _ in groups] == naive_groups(few, threshold)
            for indices, similarities in groups:
                wanted = [cosine(few[indices[0]], few[i]) for i in indices]
                np.testing.assert_allclose(similarities, wanted, atol=1e-5)
    copies = near_duplicates(np.repeat(VECTORS[:2], 3, axis=0), 1.0)
    assert [indices.tolist() for indices, _ in copies] == [[0, 1, 2], [3, 4, 5]]
    assert near_duplicates(np.zeros((3, 4))) == near_duplicates(np.zeros((0, 4))) == []


def test_groups_by_an_index(centres):
    pytest.importorskip("usearch")
    exact, index = (near_duplicates(centres, 0.995, exact=exact) for exact in (True, False))
    assert len(exact) > 60 and max(len(indices) for indices, _ in exact) > 60
    assert [x.tolist() for x, _ in exact] == [x.tolist() for x, _ in index]


def test_votes_equal_those_of_dino():
    labels = RNG.integers(0, 5, 300)
    queries = RNG.normal(size=(9, 24)).astype("float32")
    votes = knn_votes(VECTORS, labels, queries, 20, num_classes=6)
    for query, row in zip(queries, votes):
        similarities = np.array([cosine(vector, query) for vector in VECTORS])
        wanted = np.zeros(6)
        for i in np.argsort(-similarities)[:20]:
            wanted[labels[i]] += np.exp(similarities[i] / 0.07)
        np.testing.assert_allclose(row, wanted, rtol=1e-4)


def test_each_image_by_all_others():
    labels = np.arange(300)
    votes = knn_votes(VECTORS, labels, None, 5)
    assert not votes.diagonal().any() and ((votes > 0).sum(axis=1) == 5).all()
    for i in range(0, 300, 50):
        others = np.delete(np.arange(300), i)
        alone = knn_votes(VECTORS[others], others, VECTORS[i : i + 1], 5, num_classes=300)
        np.testing.assert_allclose(votes[i], alone[0], rtol=1e-5)
    copies = knn_votes(np.ones((9, 3)), np.arange(9), None, 2)
    assert ((copies > 0).sum(axis=1) == 2).all() and not copies.diagonal().any()


def test_bad_arguments(monkeypatch):
    found = NearestNeighbours(VECTORS)
    for function, message in (
        (
            lambda: NearestNeighbours(np.ones(3)),
            r"`vectors` must be floats \(n, d\), got float64 of",
        ),
        (lambda: NearestNeighbours(np.ones((2, 3), int)), "must be floats"),
        (lambda: NearestNeighbours(np.full((2, 3), np.nan)), "NaN or infinite"),
        (lambda: found.search(np.ones(3)), "`queries` have 3 values, and the vectors 24"),
        (lambda: found.search(VECTORS, 0), "`k` must be a positive int"),
        (lambda: near_duplicates(VECTORS, 0), r"`threshold` must be a number in \(0, 1\]"),
        (lambda: knn_votes(VECTORS, np.zeros(5, int), VECTORS), "`labels` must be 300 numbers"),
        (lambda: knn_votes(VECTORS, np.zeros(300), VECTORS), "non-negative integers, got float64"),
        (lambda: knn_votes(VECTORS, np.zeros(300, int), None, 300), "`k` must be at most 299"),
        (lambda: knn_votes(VECTORS, np.full(300, 7), VECTORS, num_classes=7), "has 7, expected less than 7"),
        (lambda: knn_votes(VECTORS, np.zeros(300, int), VECTORS, temperature=0), "`temperature` must be"),
        (lambda: knn_votes(VECTORS, np.zeros(300, int), VECTORS, temperature=1e-3), "`temperature` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            function()
    monkeypatch.setattr("vit_tf.deploy.extras.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=r"an index of 300 vectors needs usearch: pip install 'vit_tf\[search\]'"
    ):
        NearestNeighbours(VECTORS, exact=False)
