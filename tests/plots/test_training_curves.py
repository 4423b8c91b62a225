import math

import numpy as np
import pytest
from support.figures import history, texts

from vit_tf import plots


def curve_lines(axes):
    """Returns the lines of training and validation, without the mark of the best value."""
    return [line for line in axes.get_lines() if line.get_fillstyle() == "full"]


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


@pytest.mark.parametrize("n", [1, 2, 30])
def test_curves(n, tmp_path):
    figure = plots.curves(history(n), "a run")
    lines = curve_lines(figure.axes[1])
    np.testing.assert_allclose(lines[0].get_ydata(), [row["accuracy"] for row in history(n)])
    np.testing.assert_allclose(lines[1].get_ydata(), [row["val_accuracy"] for row in history(n)])
    assert lines[0].get_linestyle() != lines[1].get_linestyle()  # not by colour alone
    assert "a run" in texts(figure)
    plots.save(figure, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_curves_with_nan(tmp_path):
    """A missing value is a gap, neither zero nor a line from neighbour to neighbour."""
    rows = history(3)
    for missing in (math.nan, None, math.inf):
        rows[1]["val_loss"] = missing
        figure = plots.curves(rows, "a run")
        values = [rows[0]["val_loss"], math.nan, rows[2]["val_loss"]]
        train, validation = curve_lines(figure.axes[0])
        np.testing.assert_array_equal(validation.get_ydata(), values)
        np.testing.assert_array_equal(train.get_ydata(), [row["loss"] for row in rows])
        assert legend_texts(figure.axes[0])[1] == "validation: last 0.733, best 0.733 (epoch 3)"
    figure = plots.curves([dict(row, val_loss=math.nan) for row in rows], "a run")
    assert np.isnan(curve_lines(figure.axes[0])[1].get_ydata()).all()
    assert legend_texts(figure.axes[0])[1] == "validation: no values"
    plots.save(figure, tmp_path / "curves.svg")


@pytest.mark.fast_cases(1)
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
