"""Pictures: training curves, confusion, predictions, model sizes. Matplotlib is used here alone.

Every function returns a `matplotlib.figure.Figure` made without pyplot, so that nothing global changes.
Colours are Okabe and Ito's, which the colour-blind can tell apart; what colour says, text or line style
says too.
"""

import math

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from vit_tf.files import atomic_path

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}


def save(figure, path):
    """Writes a figure, whole or not at all; the ending of `path` chooses the format."""
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=150)


@rc_context(STYLE)
def curves(history, title):
    """Draws loss and accuracy of training and validation against epochs.

    Args:
        history: a list of one dict an epoch with `epoch`, `loss`, `accuracy`, `val_loss` and
            `val_accuracy` (accuracies in [0, 1]).
        title: str.

    Raises:
        ValueError: `history` is empty.
    """
    if not history:
        raise ValueError("`history` is empty: there is no epoch to draw")
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    epochs = [row["epoch"] for row in history]
    for axes, key, factor in zip(figure.subplots(1, 2), ("loss", "accuracy"), (1, 100)):
        lines = (("training", key, ORANGE, "--", "s"), ("validation", f"val_{key}", BLUE, "-", "o"))
        for label, column, colour, style, marker in lines:
            values = [factor * row[column] for row in history]
            axes.plot(epochs, values, style, color=colour, marker=marker, ms=3, label=label)
        axes.set_xlabel("epoch")
        axes.set_title("loss" if key == "loss" else "accuracy, %")
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="best")
        mark_best(axes, epochs, values, min if key == "loss" else max)
    return figure


def mark_best(axes, epochs, values, choose):
    """Writes the best validation value beside its point."""
    points = [(value, epoch) for value, epoch in zip(values, epochs) if math.isfinite(value)]
    if points:
        value, epoch = choose(points)
        axes.annotate(
            f"{value:.3g}", (epoch, value), (0, -14), textcoords="offset points", ha="center", color=BLUE
        )


@rc_context(STYLE)
def confusion(matrix, class_names, title):
    """Draws a confusion matrix; colours are shares of the true class, numbers are images.

    Args:
        matrix: int array (k, k), rows are the true classes.
        class_names: k names.
        title: str.

    Raises:
        ValueError: the matrix is not (k, k).
    """
    matrix, k = np.asarray(matrix), len(class_names)
    if matrix.shape != (k, k):
        raise ValueError(f"`matrix` must be ({k}, {k}) for {k} class names, got {matrix.shape}")
    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.spines[:].set_visible(False)
    if k <= 20:
        axes.set_xticks(range(k), class_names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(k), class_names)
        for (i, j), count in np.ndenumerate(matrix):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, count, ha="center", va="center", color=colour, fontsize=7)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(title, weight="bold")
    figure.colorbar(picture, label="share of the true class", shrink=0.7)
    return figure


@rc_context(STYLE)
def predictions(images, labels, probabilities, class_names, title):
    """Draws up to 24 images with what a model says of them.

    Args:
        images: uint8 array (n, h, w, c), c is 1, 3 or 4.
        labels: int array (n,), the true classes.
        probabilities: float array (n, k).
        class_names: k names.
        title: str.

    Raises:
        ValueError: the lengths differ, or there is no image.
    """
    images, probabilities = np.asarray(images), np.asarray(probabilities)
    if not 0 < len(images) == len(labels) == len(probabilities):
        raise ValueError(
            "images, labels and probabilities must be of one length from 1, got "
            f"{len(images)}, {len(labels)} and {len(probabilities)}"
        )
    n = min(24, len(images))
    rows = math.ceil(n / 8)
    figure = Figure(figsize=(10, 0.5 + 1.65 * rows), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    for i, axes in enumerate(figure.subplots(rows, 8, squeeze=False).flat):
        axes.axis("off")
        if i >= n:
            continue
        axes.imshow(images[i].squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        predicted = int(probabilities[i].argmax())
        text = f"{class_names[predicted]} {probabilities[i, predicted]:.0%}"
        if predicted == labels[i]:
            axes.set_title(text, color=BLUE, fontsize=8, loc="center")
        else:
            text = f"✗ {text}\nis {class_names[labels[i]]}"
            axes.set_title(text, color=VERMILION, fontsize=8, loc="center", weight="bold")
    return figure


@rc_context(STYLE)
def model_sizes(rows, title):
    """Draws parameters against multiply-adds, both on logarithmic axes.

    Args:
        rows: a list of (name, parameters, MACs an image).
        title: str.

    Raises:
        ValueError: `rows` is empty.
    """
    if not rows:
        raise ValueError("`rows` is empty: there is no model to draw")
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    for name, parameters, macs in rows:
        axes.plot(parameters / 1e6, macs / 1e9, "o", color=BLUE, ms=5)
        axes.annotate(
            name,
            (parameters / 1e6, macs / 1e9),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
        )
    axes.set(xscale="log", yscale="log", xlabel="parameters, millions", ylabel="GMACs an image")
    axes.margins(x=0.2, y=0.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_title(title, weight="bold")
    return figure
