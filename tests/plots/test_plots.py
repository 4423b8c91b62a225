import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from support.figures import history

from vit_tf import plots


def test_names_of_classes_may_be_anything(tmp_path):
    names = ["$x^$", "$\\frac$", "caf\udce9", "猫"]
    figure = plots.confusion(np.eye(4, dtype=int), names, "$\\frac$ \udce9")
    plots.save(figure, tmp_path / "confusion.png")
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[:3] == ["$x^$", "$\\frac$", r"caf\udce9"]
    images = np.zeros((4, 2, 2, 3), "uint8")
    figure = plots.predictions(images, np.arange(4), np.eye(4)[::-1], names, "$^")
    plots.save(figure, tmp_path / "predictions.png")


@pytest.mark.slow
@pytest.mark.fast_cases(1)
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
