"""Plots of multi-label predictions: several classes may apply to an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from vit_tf.plots.grids import axes_grid, show_judged
from vit_tf.plots.style import BLUE, ORANGE, Figure, printable_name, printable_text, styled

MOST_BARS = 40
MOST_NAMES = 3  # in a caption


@styled
def average_precisions(classes: dict[str, dict[str, Any]], title: str) -> Figure:
    """Draws the average precision of each class as a bar, and the F1 of each class as a dot.

    Of more than 40 classes, the 40 with the lowest average precision are drawn.

    Args:
        classes: dict from class names to dicts with `average_precision`, `f1` (floats from 0 to 1, or None)
            and `images` (int), as in metrics.json.
        title: str.

    Raises:
        ValueError: `classes` is empty, or a key is missing.
    """
    keys = ("average_precision", "f1", "images")
    missing = [key for key in keys if not classes or any(key not in values for values in classes.values())]
    if missing:
        raise ValueError(f"`classes` must be a dict of dicts with {', '.join(keys)}, it lacks {missing[0]}")
    rows = sorted(classes.items(), key=lambda item: item[1]["average_precision"] or 0)[:MOST_BARS]
    ap, f1 = (np.array([values[key] for _, values in rows], dtype=float) for key in keys[:2])
    y = np.arange(len(rows))
    figure = Figure(figsize=(7, 1.6 + 0.24 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.barh(y, np.nan_to_num(ap), color=BLUE, height=0.7, label="average precision")
    axes.plot(f1, y, "o", color=ORANGE, markersize=5, label="F1 at the threshold")
    names = [f"{printable_name(name)} ({values['images']:,})" for name, values in rows]
    axes.set_yticks(y, names, fontsize=8)
    axes.set(xlim=(0, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    known = [x["average_precision"] for x in classes.values() if x["average_precision"] is not None]
    mean = f"mean average precision {np.mean(known):.1%}" if known else "no class has an image"
    hidden = f", the {MOST_BARS} lowest of {len(classes)} classes" if len(classes) > MOST_BARS else ""
    axes.set_title(f"{printable_text(title)}\n{mean}{hidden}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.45 / figure.get_figheight()), ncols=2)
    return figure


@styled
def multi_label_predictions(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    thresholds: Sequence[float] | np.ndarray,
    class_names: Sequence[str],
    title: str,
) -> Figure:
    """Draws up to 24 images with the predicted, the missed and the wrong classes.

    Args:
        images: uint8 array `(n, h, w, c)`, c 1, 3 or 4.
        labels: bool array `(n, k)`, the true classes.
        probabilities: float array `(n, k)`.
        thresholds: k floats, the lowest probability at which each class is predicted.
        class_names: k strings.
        title: str.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    images, labels, probabilities = map(np.asarray, (images, labels, probabilities))
    n, k = len(images), len(class_names)
    fits = images.ndim == 4 and images.shape[-1] in (1, 3, 4) and n and len(thresholds) == k
    if not fits or labels.shape != (n, k) or probabilities.shape != (n, k):
        raise ValueError(
            "`images` (n, h, w, 1, 3 or 4), `labels` and `probabilities` (n, k), k thresholds and k class "
            f"names must fit each other, got {images.shape}, {labels.shape}, {probabilities.shape}, "
            f"{len(thresholds)} and {k}"
        )
    names = np.array([printable_name(name) for name in class_names], dtype=object)
    figure, cells = axes_grid(n, title)
    for image, true, shares, axes in zip(images, labels.astype(bool), probabilities, cells):
        predicted = shares >= thresholds
        lines = [f"{names[i]} {shares[i]:.0%}" for i in np.argsort(-shares) if predicted[i]]
        lines = [*shortened(lines), *errors("missed", names[true & ~predicted])]
        lines = [*(lines or ["nothing"]), *errors("wrong", names[predicted & ~true])]
        show_judged(axes, image, (predicted == true).all(), "\n".join(lines), fontsize=7)
    return figure


def errors(kind, names):
    """Returns a line with the names, or none if there are no names."""
    return [f"{kind}: {', '.join(shortened(list(names)))}"] if len(names) else []


def shortened(words):
    """Returns the first words, and the number of the rest."""
    rest = len(words) - MOST_NAMES
    return [*words[:MOST_NAMES], f"and {rest} more"] if rest > 0 else words
