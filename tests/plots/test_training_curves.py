import math

import numpy as np
import pytest
from support.figures import history, texts

from vit_tf import plots


@pytest.mark.parametrize("n", [1, 2, 30])
def test_curves(n, tmp_path):
    figure = plots.curves(history(n), "a run")
    lines = [line for line in figure.axes[1].get_lines() if line.get_fillstyle() == "full"]
    np.testing.assert_allclose(lines[0].get_ydata(), [row["accuracy"] for row in history(n)])
    np.testing.assert_allclose(lines[1].get_ydata(), [row["val_accuracy"] for row in history(n)])
    assert lines[0].get_linestyle() != lines[1].get_linestyle()  # not by colour alone
    assert "a run" in texts(figure)
    plots.save(figure, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_curves_with_nan(tmp_path):
    rows = history(3)
    rows[1]["val_loss"] = math.nan
    plots.save(plots.curves(rows, "a run"), tmp_path / "curves.svg")
    rows = [dict(row, val_loss=math.nan) for row in rows]
    plots.save(plots.curves(rows, "a run"), tmp_path / "curves.svg")


@pytest.mark.parametrize("k, numbers", [(3, 9), (10, 100), (100, 0)])
def test_confusion(k, numbers, tmp_path):
    matrix = np.random.default_rng(0).integers(0, 50, (k, k))
    matrix[0] = 0  # a class without images
    figure = plots.confusion(matrix, [f"class {i}" for i in range(k)], "test")
    assert len(figure.axes[0].texts) == numbers
    plots.save(figure, tmp_path / "confusion.png")
    shares = figure.axes[0].images[0].get_array()
    assert shares[0].sum() == 0
    np.testing.assert_allclose(shares[1:].sum(1), 1)
