import numpy as np
import pytest
from support.figures import texts

from vit_tf import plots


@pytest.mark.parametrize("n, channels", [(1, 3), (8, 1), (30, 4)])
def test_predictions(n, channels, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 8, 8, channels)).astype("uint8")
    probabilities = np.tile([0.2, 0.7, 0.1], (n, 1))
    labels = np.arange(n) % 3
    figure = plots.predictions(images, labels, probabilities, ["a", "b", "c"], "test")
    shown = [text for text in texts(figure) if "70%" in text]
    assert len(shown) == min(24, n)
    wrong = [text for text in shown if "✗" in text and "true: " in text]
    assert len(wrong) == int((labels[:24] != 1).sum())
    plots.save(figure, tmp_path / "predictions.png")


@pytest.mark.slow
def test_pictures_and_what_a_notebook_shows():
    images = np.random.default_rng(0).uniform(0, 255, (30, 4, 6, 3))
    figure = plots.image_grid(images, [f"number {i}" for i in range(30)], "test")
    assert [text for text in texts(figure) if text.startswith("number")] == [f"number {i}" for i in range(24)]
    assert figure._repr_png_().startswith(b"\x89PNG")
