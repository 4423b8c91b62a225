"""Pictures of training, of predictions and of models: each function returns a matplotlib Figure.

Nothing here touches pyplot, so the figures need no display and no closing; in a notebook the last
line of a cell shows one. Colours are Okabe and Ito's, which the colour-blind tell apart, and nothing
is said by colour alone.
"""

import io
import math
import warnings
from functools import wraps
from pathlib import Path

import matplotlib
import matplotlib.figure
import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vit_tf.files import atomic_path

BLUE, ORANGE, GREEN, INK = "#0072B2", "#D55E00", "#009E73", "#222222"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "text.parse_math": False,  # a $ in a name is a $
    "savefig.dpi": 160,
    "figure.dpi": 110,
}
FORMATS = (".png", ".svg", ".pdf")


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows by itself, without `%matplotlib inline`."""

    def _repr_png_(self):
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def styled(function):
    @wraps(function)
    def wrapper(*args, **kwargs):
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return wrapper


@styled
def curves(history, title):
    """Draws loss and accuracy against epochs, for training and validation.

    Args:
        history: list of dicts, one an epoch, with the keys `epoch`, `loss`, `accuracy`, `val_loss`
            and `val_accuracy`; accuracies from 0 to 1. None and NaN leave a gap.
        title: str.

    Raises:
        ValueError: `history` is empty, or a key is missing.
    """
    keys = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy")
    missing = [key for key in keys if not history or any(key not in row for row in history)]
    if missing:
        raise ValueError(
            f"`history` must be a list of dicts with {', '.join(keys)}, and lacks "
            f"{', '.join(missing) if history else 'every epoch'}"
        )
    values = {key: np.array([row[key] for row in history], dtype=float) for key in keys}
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(legible(title))
    for axes, key, best in zip(figure.subplots(1, 2), ("loss", "accuracy"), (np.nanargmin, np.nanargmax)):
        axes.set(title=key.capitalize(), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if key == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        draw_curve(axes, values["epoch"], values[key], "train", BLUE, "--", None)
        draw_curve(axes, values["epoch"], values[f"val_{key}"], "validation", ORANGE, "-", best)
        axes.legend(handlelength=2.6)
    return figure


def draw_curve(axes, epochs, values, name, color, line, best):
    """Draws one curve; the legend tells its last value and, where `best` finds it, its best."""
    values = np.where(np.isfinite(values), values, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    shown = "{:.1%}".format if axes.get_title() == "Accuracy" else "{:.3f}".format
    label = f"{name}: no values"
    if len(known):
        label = f"{name}: last {shown(values[known[-1]])}"
    if len(known) and best:
        i = best(values)
        label += f", best {shown(values[i])} (epoch {epochs[i]:g})"
        axes.plot(epochs[i], values[i], "o", color=color, markersize=8, fillstyle="none")
    alone = len(known) == 1 or len(epochs) < 15
    axes.plot(epochs, values, line, color=color, label=label, marker="." if alone else None)


@styled
def confusion(matrix, class_names, title):
    """Draws a confusion matrix, coloured by the share of each true class.

    Args:
        matrix: int array (k, k): how many samples of the row's class were taken for the column's.
        class_names: k names.
        title: str. The overall accuracy is put under it.

    Raises:
        ValueError: `matrix` is not (k, k), has a negative number, or does not fit the names.
    """
    matrix, class_names = np.asarray(matrix), [legible(name) for name in class_names]
    k = len(class_names)
    if matrix.shape != (k, k) or not k or (matrix < 0).any():
        raise ValueError(
            f"`matrix` must be ({k}, {k}) counts, as there are {k} class names, got an array of "
            f"shape {matrix.shape}" + (" with negative numbers" if (matrix < 0).any() else "")
        )
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    small = k > 20
    side = 10 if small else 3 + 0.45 * k
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, format=PercentFormatter(1))
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    total = matrix.sum()
    accuracy = np.trace(matrix) / max(1, total)
    axes.set_title(f"{legible(title)}\n{accuracy:.1%} of {total:,} right")
    axes.set(xlabel="predicted class", ylabel="true class")
    size = max(4, min(9, 500 / k)) if small else 9
    axes.set_xticks(range(k), class_names, rotation=90 if small or k > 4 else 0, fontsize=size)
    axes.set_yticks(range(k), class_names, fontsize=size)
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(k, k) if not small else ():
        color = "white" if shares[row, column] > 0.5 else INK
        axes.text(column, row, matrix[row, column], color=color, ha="center", va="center", size=8)
    return figure


@styled
def predictions(images, labels, probabilities, class_names, title):
    """Draws up to 24 images with the predicted class, and the true one where that was wrong.

    Args:
        images: uint8 array (n, h, w, c), c 1, 3 or 4.
        labels: int array (n,), the true classes.
        probabilities: float array (n, k).
        class_names: k names.
        title: str.

    Raises:
        ValueError: the shapes do not fit each other, or a label is no class.
    """
    images, labels, probabilities = map(np.asarray, (images, labels, probabilities))
    class_names = [legible(name) for name in class_names]
    n, k = len(images), len(class_names)
    shapes = (images.ndim == 4 and images.shape[-1] in (1, 3, 4), labels.shape == (n,))
    if not n or not all(shapes) or probabilities.shape != (n, k):
        raise ValueError(
            "`images` (n, h, w, 1, 3 or 4), `labels` (n,), `probabilities` (n, k) and k class names "
            f"must fit each other, got {images.shape}, {labels.shape}, {probabilities.shape} and {k}"
        )
    if labels.min() < 0 or labels.max() >= k:
        raise ValueError(f"`labels` must be from 0 to {k - 1}, got {labels.min()} to {labels.max()}")
    figure, places = picture_grid(n, title)
    for i, axes in enumerate(places):
        draw_prediction(axes, images[i], labels[i], probabilities[i], class_names)
    return figure


@styled
def pictures(images, captions, title):
    """Draws up to 24 images with a caption each.

    Args:
        images: uint8 or float array (n, h, w, c) in [0, 255], c 1, 3 or 4.
        captions: n texts.
        title: str.

    Raises:
        ValueError: there are no images, they have another shape, or there is not one caption for each.
    """
    images = np.asarray(images)
    if not len(images) or images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(f"`images` must be (n, h, w, 1, 3 or 4), got {images.shape}")
    if len(captions) != len(images):
        raise ValueError(f"expected one caption for each of {len(images)} images, got {len(captions)}")
    figure, places = picture_grid(len(images), title)
    for axes, image, caption in zip(places, images, captions):
        show_picture(axes, image.round().astype("uint8"))
        axes.spines[:].set_visible(False)
        axes.set_title(legible(caption), fontsize=8)
    return figure


def legible(text):
    """Returns text that can be drawn: bytes of a file's name that are no text become question marks."""
    return str(text).encode("utf-8", "replace").decode()


def picture_grid(n, title):
    """Returns a figure and its axes for up to 24 pictures."""
    shown = min(n, 24)
    columns = min(shown, 6)
    rows = math.ceil(shown / columns)
    figure = Figure(figsize=(max(3, 1.6 * columns), 0.5 + 1.95 * rows), layout="constrained")
    figure.suptitle(legible(title))
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in grid:
        axes.set(xticks=[], yticks=[])
    for axes in grid[shown:]:
        axes.set_axis_off()
    return figure, grid[:shown]


def show_picture(axes, image):
    axes.imshow(image, cmap="gray", vmin=0, vmax=255) if image.shape[-1] == 1 else axes.imshow(image)


def draw_prediction(axes, image, label, probabilities, class_names):
    guess = probabilities.argmax()
    right = guess == label
    caption = f"{'✓' if right else '✗'} {class_names[guess]} {probabilities[guess]:.0%}"
    show_picture(axes, image)
    axes.spines[:].set_visible(not right)
    axes.spines[:].set(color=ORANGE, linewidth=3)
    axes.set_title(
        caption if right else f"{caption}\ntrue: {class_names[label]}",
        fontsize=8,
        color=INK if right else ORANGE,
        fontweight="normal" if right else "bold",
    )


@styled
def model_sizes(rows, title):
    """Draws the cost of an image against the parameters, both on a logarithmic scale.

    Args:
        rows: list of (name, parameters, GMACs an image).
        title: str.

    Raises:
        ValueError: there are no rows, or a number is not positive.
    """
    if not rows or not all(len(row) == 3 and row[1] > 0 and row[2] > 0 for row in rows):
        raise ValueError("`rows` must be (name, parameters, GMACs), with positive numbers")
    names, parameters, gmacs = zip(*rows)
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel="parameters", ylabel="GMACs an image")
    axes.set(xscale="log", yscale="log")
    axes.margins(0.12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.plot(parameters, gmacs, "o", color=BLUE, markersize=6)
    figure.draw_without_rendering()  # label sizes are known from here on
    place_labels(axes, names, parameters, gmacs)
    return figure


def place_labels(axes, names, xs, ys):
    """Puts each name beside its point, where it covers the least of points and other names.

    Among more than 30 points a name that would cover something is left out.
    """
    spots = [(7, 0, "left", "center"), (-7, 0, "right", "center")]
    spots += [(0, 8, "center", "bottom"), (0, -8, "center", "top")]
    spots += [(6, 7, "left", "bottom"), (6, -7, "left", "top")]
    points = axes.transData.transform(np.column_stack([xs, ys]))
    inside = axes.get_window_extent()
    taken = [matplotlib.transforms.Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in points]
    for name, x, y in zip(names, xs, ys):
        options = []
        for dx, dy, horizontal, vertical in spots:
            label = axes.annotate(
                name, (x, y), (dx, dy), textcoords="offset points", ha=horizontal, va=vertical, size=7.5
            )
            label.set_in_layout(False)
            box = label.get_window_extent()
            covered = sum(overlap(box, other) for other in taken)
            outside = box.width * box.height - overlap(box, inside)
            options.append((covered + outside, len(options), label, box))
        hidden, _, best, box = min(options)
        if hidden and len(points) > 30:
            best = None
        else:
            taken.append(box)
        for _, _, label, _ in options:
            if label is not best:
                label.remove()


def overlap(a, b):
    """Returns the area in pixels that two boxes share."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(0, width) * max(0, height)


def check_path(path):
    """Returns `path` as a `Path` where `save` can write to it.

    Raises:
        ValueError: its ending is no format for pictures, or its folder does not exist.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"a picture's name must end in {', '.join(FORMATS)}, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")
    return path


def save(figure, path):
    """Writes `figure` to `path` (PNG, SVG or PDF), whole or not at all.

    Raises:
        ValueError: see `check_path`.
    """
    path = check_path(path)
    with matplotlib.rc_context(STYLE), atomic_path(path) as partial, warnings.catch_warnings():
        # Names of classes may be in letters that the font lacks: those are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(partial)
