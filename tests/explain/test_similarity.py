import numpy as np
import pytest

import vit_tf

pytestmark = pytest.mark.every_backend


def test_cka():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(40, 5)), rng.normal(size=(40, 2, 3))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert vit_tf.linear_cka(x, 3 * x @ rotation + 7) == pytest.approx(1)
    y = noise.reshape(40, 6) - noise.reshape(40, 6).mean(0)
    c = x - x.mean(0)
    expected = np.sum((y.T @ c) ** 2) / np.linalg.norm(c.T @ c) / np.linalg.norm(y.T @ y)
    assert vit_tf.linear_cka(x, noise) == pytest.approx(expected) and expected < 0.5
    matrix = vit_tf.linear_cka({"a": x, "b": noise}, {"c": noise})
    np.testing.assert_allclose(matrix, [[expected], [1]])
    assert vit_tf.linear_cka(x, np.ones((40, 3))) == 0
    wide = rng.normal(size=(40, 50))  # more features than images: by their inner products
    found = vit_tf.linear_cka({"x": x, "wide": wide}, {"x": x, "noise": noise})
    np.testing.assert_allclose(found[0], [1, expected])
    c = wide - wide.mean(0)
    assert found[1, 1] == pytest.approx(
        np.sum((y.T @ c) ** 2) / np.linalg.norm(c.T @ c) / np.linalg.norm(y.T @ y)
    )
    both = {"x": x, "wide": wide}
    np.testing.assert_allclose(vit_tf.linear_cka(both, both), vit_tf.linear_cka(both, dict(both)))
