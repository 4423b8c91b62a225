import numpy as np
import pytest

from vit_tf import plots


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
    assert "49.0%, the 40 lowest of 51 classes" in figure.axes[0].get_title()
    plots.save(figure, tmp_path / "classes.png")
    with pytest.raises(ValueError, match="must fit each other"):
        plots.multi_label_predictions(images, labels, shares, [0.5], ["a", "b", "c"], "t")
    with pytest.raises(ValueError, match="lacks f1"):
        plots.average_precisions({"a": {"average_precision": 1, "images": 1}}, "t")
