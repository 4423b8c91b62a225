"""Plots of training, predictions, models and explanations. Each function returns a `Figure`.

No function uses pyplot, so the figures need no display and need not be closed. A notebook shows a figure that
is the last line of a cell. The colours, those of Okabe and Ito and viridis, are told apart by colour-blind
readers and keep their order in grey print. Except in `feature_colours`, nothing is shown by colour alone.
"""

from typing import TYPE_CHECKING

from vit_tf.lazy import lazy_exports

if TYPE_CHECKING:
    from vit_tf.plots.diagram import model_diagram
    from vit_tf.plots.explanations import (
        attention_distances,
        attention_heads,
        feature_colours,
        filters,
        position_similarities,
        saliency_maps,
        similarity_matrix,
    )
    from vit_tf.plots.grids import image_grid
    from vit_tf.plots.multi_label import average_precisions, multi_label_predictions
    from vit_tf.plots.size_chart import model_sizes
    from vit_tf.plots.style import BLUE, FORMATS, GREEN, INK, ORANGE, Figure, check_path, save, styled
    from vit_tf.plots.training_curves import confusion, curves, predictions

__all__ = [
    "BLUE",
    "FORMATS",
    "GREEN",
    "INK",
    "ORANGE",
    "Figure",
    "attention_distances",
    "attention_heads",
    "average_precisions",
    "check_path",
    "confusion",
    "curves",
    "model_diagram",
    "feature_colours",
    "filters",
    "saliency_maps",
    "model_sizes",
    "multi_label_predictions",
    "image_grid",
    "position_similarities",
    "predictions",
    "save",
    "similarity_matrix",
    "styled",
]
__getattr__, __dir__ = lazy_exports(__name__)
