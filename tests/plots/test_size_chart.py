import numpy as np
from support.figures import texts

from vit_tf import plots


def test_model_sizes(tmp_path):
    rows = [("small", 1e6, 0.2), ("large", 3e8, 60)]
    figure = plots.model_sizes(rows, "models")
    (points,) = figure.axes[0].get_lines()
    np.testing.assert_allclose(points.get_xydata(), [[1e6, 0.2], [3e8, 60]])
    assert {"small", "large"} <= set(texts(figure))
    plots.save(figure, tmp_path / "models.pdf")
