"""Plots of training, confusion matrices and predictions of single-label classification."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vit_tf.plots.grids import axes_grid, show_judged
from vit_tf.plots.style import BLUE, INK, ORANGE, Figure, draw_scale, printable_name, printable_text, styled


@styled
def curves(history: Sequence[dict[str, Any]], title: str) -> Figure:
    """Draws loss and accuracy against epochs, for training and validation.

    If all rows have `val_map`, the mean average precision of the validation images is drawn, too.

    Args:
        history: list of dicts, one per epoch, with the keys `epoch`, `loss`, `accuracy`, `val_loss`
            and `val_accuracy`; accuracies from 0 to 1. None and NaN leave a gap.
        title: str.

    Raises:
        ValueError: `history` is empty, or a key is missing.
    """
    keys = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    missing = [key for key in keys if not history or any(key not in row for row in history)]
    if missing:
        raise ValueError(
            f"`history` must be a list of dicts with {', '.join(keys)}, and lacks "
            f"{', '.join(missing) if history else 'every epoch'}"
        )
    has_map = all("val_map" in row for row in history)
    keys += ["val_map"] * has_map
    values = {key: np.array([row[key] for row in history], dtype=float) for key in keys}
    panels = {"loss": "Loss", "accuracy": "Accuracy"}
    if has_map:
        panels["map"] = "Mean average precision"
    figure = Figure(figsize=(4.5 * len(panels), 3.6), layout="constrained")
    figure.suptitle(printable_text(title))
    for axes, (key, name) in zip(figure.subplots(1, len(panels)), panels.items()):
        best = np.nanargmin if key == "loss" else np.nanargmax
        axes.set(title=name, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.ticklabel_format(useOffset=False)
        if key != "loss":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        if key in values:
            draw_curve(axes, values["epoch"], values[key], "train", BLUE, "--", None)
        draw_curve(axes, values["epoch"], values[f"val_{key}"], "validation", ORANGE, "-", best)
        axes.legend(handlelength=2.6)
    return figure


def draw_curve(axes, epochs, values, name, color, line, best):
    """Draws a curve; its legend shows the last value and, if `best` is a function, the best value.

    Args:
        best: `np.nanargmin` or `np.nanargmax`; None marks no best value.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    formatted = "{:.1%}".format if axes.get_title() != "Loss" else "{:.3f}".format
    label = f"{name}: no values"
    if len(known):
        label = f"{name}: last {formatted(values[known[-1]])}"
    if len(known) and best:
        i = best(values)
        label += f", best {formatted(values[i])} (epoch {epochs[i]:g})"
        axes.plot(epochs[i], values[i], "o", color=color, markersize=8, fillstyle="none")
    has_dots = len(known) == 1 or len(epochs) < 15
    axes.plot(epochs, values, line, color=color, label=label, marker="." if has_dots else None)


@styled
def confusion(matrix: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draws a confusion matrix, coloured by the share of each true class.

    Args:
        matrix: int array `(k, k)`: the number of samples of the row's class that were predicted as the
            column's class.
        class_names: k strings.
        title: str. The overall accuracy is drawn below the title.

    Raises:
        ValueError: `matrix` is not (k, k) or has a negative number.
    """
    matrix, class_names = np.asarray(matrix), [printable_name(name) for name in class_names]
    k = len(class_names)
    if matrix.shape != (k, k) or not k or (matrix < 0).any():
        raise ValueError(
            f"`matrix` must be ({k}, {k}) counts, as there are {k} class names, got an array of "
            f"shape {matrix.shape}" + (" with negative numbers" if (matrix < 0).any() else "")
        )
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    is_dense = k > 20
    side = 10 if is_dense else 3 + 0.45 * k
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    draw_scale(image, "share of the true class", shrink=0.6, format=PercentFormatter(1))
    total = matrix.sum()
    accuracy = np.trace(matrix) / max(1, total)
    axes.set_title(f"{printable_text(title)}\n{accuracy:.1%} of {total:,} correct")
    axes.set(xlabel="predicted class", ylabel="true class")
    size = max(4, min(9, 500 / k)) if is_dense else 9
    axes.set_xticks(range(k), class_names, rotation=90 if is_dense or k > 4 else 0, fontsize=size)
    axes.set_yticks(range(k), class_names, fontsize=size)
    for row, column in np.ndindex(k, k) if not is_dense else ():
        color = "white" if shares[row, column] > 0.5 else INK
        axes.text(column, row, str(matrix[row, column]), color=color, ha="center", va="center", size=8)
    return figure


@styled
def predictions(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    title: str,
    predicted: np.ndarray | None = None,
) -> Figure:
    """Draws up to 24 images with the predicted class, and the true class if the prediction is wrong.

    Args:
        images: uint8 array `(n, h, w, c)`, c 1, 3 or 4.
        labels: int array `(n,)`, the true classes.
        probabilities: float array `(n, k)`.
        class_names: k strings.
        title: str.
        predicted: int array `(n,)`, the predicted classes. Defaults to those of the highest probability.

    Raises:
        ValueError: the shapes do not fit each other, or a label is not in [0, k).
    """
    images, labels, probabilities = map(np.asarray, (images, labels, probabilities))
    class_names = [printable_name(name) for name in class_names]
    n, k = len(images), len(class_names)
    shapes = (images.ndim == 4 and images.shape[-1] in (1, 3, 4), labels.shape == (n,))
    if not n or not all(shapes) or probabilities.shape != (n, k):
        raise ValueError(
            "`images` (n, h, w, 1, 3 or 4), `labels` (n,), `probabilities` (n, k) and k class names "
            f"must fit each other, got {images.shape}, {labels.shape}, {probabilities.shape} and {k}"
        )
    if labels.min() < 0 or labels.max() >= k:
        raise ValueError(f"`labels` must be from 0 to {k - 1}, got {labels.min()} to {labels.max()}")
    predicted = probabilities.argmax(axis=1) if predicted is None else predicted
    figure, cells = axes_grid(n, title)
    for i, axes in enumerate(cells):
        draw_prediction(axes, images[i], labels[i], predicted[i], probabilities[i], class_names)
    return figure


def draw_prediction(axes, image, label, guess, probabilities, class_names):
    is_correct = guess == label
    caption = f"{class_names[guess]} {probabilities[guess]:.0%}"
    if not is_correct:
        caption += f"\ntrue: {class_names[label]}"
    show_judged(axes, image, is_correct, caption, fontsize=8, fontweight="normal" if is_correct else "bold")
