import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.figures import texts

from vit_tf import plots


def history(n):
    return [
        dict(epoch=i + 1, loss=2 / (i + 1), accuracy=i / n, val_loss=2.2 / (i + 1), val_accuracy=i / (n + 1))
        for i in range(n)
    ]


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


def test_pictures_and_what_a_notebook_shows():
    images = np.random.default_rng(0).uniform(0, 255, (30, 4, 6, 3))
    figure = plots.image_grid(images, [f"number {i}" for i in range(30)], "test")
    assert [text for text in texts(figure) if text.startswith("number")] == [f"number {i}" for i in range(24)]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_names_of_classes_may_be_anything(tmp_path):
    names = ["$x^$", "$\\frac$", "caf\udce9", "猫"]
    figure = plots.confusion(np.eye(4, dtype=int), names, "$\\frac$ \udce9")
    plots.save(figure, tmp_path / "confusion.png")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:3] == ["$x^$", "$\\frac$", "caf?"]
    images = np.zeros((4, 2, 2, 3), "uint8")
    figure = plots.predictions(images, np.arange(4), np.eye(4)[::-1], names, "$^")
    plots.save(figure, tmp_path / "predictions.png")


@pytest.mark.parametrize("name", ["a\x1b[2J\x07", "cat\n100 % dog", "\u202egpj", "\x9b", "$x$\t"])
def test_control_characters_in_names_are_escaped(name, tmp_path):
    images, probabilities = np.zeros((2, 4, 4, 3), "uint8"), np.eye(2)
    for figure in (
        plots.confusion(np.eye(2, dtype=int), [name, "b"], "title"),
        plots.predictions(images, np.array([1, 0]), probabilities, [name, "b"], "title"),
        plots.curves(history(2), name),
    ):
        drawn = [text for text in figure.findobj(Text) if text.get_text()]
        assert not any(text.get_parse_math() for text in drawn)
        words = [word for text in drawn for word in text.get_text().split("\n")]
        assert all(map(str.isprintable, words))
        assert "100 % dog" not in words or "Loss" in words  # a title may have lines, a class may not
        plots.save(figure, tmp_path / "figure.png")


def test_model_sizes(tmp_path):
    rows = [("small", 1e6, 0.2), ("large", 3e8, 60)]
    figure = plots.model_sizes(rows, "models")
    (points,) = figure.axes[0].get_lines()
    np.testing.assert_allclose(points.get_xydata(), [[1e6, 0.2], [3e8, 60]])
    assert {"small", "large"} <= set(texts(figure))
    plots.save(figure, tmp_path / "models.pdf")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: plots.curves([], "a"), "lacks every epoch"),
        (lambda: plots.curves([dict(epoch=1, loss=1, accuracy=0.5)], "a"), "lacks val_loss, val_accuracy"),
        (lambda: plots.confusion(np.zeros((2, 3)), ["a", "b"], "t"), r"must be \(2, 2\)"),
        (lambda: plots.confusion([[1, -1], [0, 1]], ["a", "b"], "t"), "negative"),
        (lambda: plots.predictions(np.zeros((0, 2, 2, 3)), [], [], ["a"], "t"), "must fit each other"),
        (lambda: plots.predictions(np.zeros((1, 2, 2, 3)), [1], [[1]], ["a"], "t"), "from 0 to 0"),
        (lambda: plots.image_grid(np.zeros((2, 2, 2)), ["a", "b"], "t"), r"must be \(n, h, w"),
        (lambda: plots.image_grid(np.zeros((2, 2, 2, 1)), ["a"], "t"), "one caption for each of 2 images"),
        (lambda: plots.model_sizes([], "t"), "positive numbers"),
        (lambda: plots.save(Figure(), "figure.nonsense"), "must end in .png, .svg, .pdf"),
        (lambda: plots.save(Figure(), "missing/figure.png"), "no folder 'missing'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_classes_that_do_not_exclude_each_other(tmp_path):
    """Captions of sets of classes, and bars that leave out what has no average precision."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), "uint8")
    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]], bool)
    shares = np.array([[0.9, 0.6, 0.1], [0.8, 0.3, 0.2], [0.1, 0.2, 0.3]])
    figure = plots.multi_label_predictions(images, labels, shares, [0.5, 0.5, 0.5], ["a", "b", "c"], "t")
    captions = [axes.get_title() for axes in figure.axes[:3]]
    assert captions == ["✓ a 90%\nb 60%", "✗ a 80%\nmissed: b\nwrong: a", "✓ nothing"]
    plots.save(figure, tmp_path / "predictions.png")
    classes = {f"class {i}": {"average_precision": i / 50, "f1": None, "images": i} for i in range(50)}
    classes["none"] = {"average_precision": None, "f1": None, "images": 0}
    figure = plots.average_precisions(classes, "t")
    assert "49.0%, the weakest 40 of 51 classes" in figure.axes[0].get_title()
    plots.save(figure, tmp_path / "classes.png")
    with pytest.raises(ValueError, match="must fit each other"):
        plots.multi_label_predictions(images, labels, shares, [0.5], ["a", "b", "c"], "t")
    with pytest.raises(ValueError, match="lacks f1"):
        plots.average_precisions({"a": {"average_precision": 1, "images": 1}}, "t")
