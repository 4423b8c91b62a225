"""`model_sizes`: the cost of models against their parameters."""

from collections.abc import Sequence

import matplotlib
import numpy as np

from vit_tf.plots.style import BLUE, Figure, styled


@styled
def model_sizes(rows: Sequence[tuple[str, float, float]], title: str) -> Figure:
    """Draws the GMACs per image of models against their parameters, both on a logarithmic scale.

    Args:
        rows: list of (name, parameters, GMACs per image).
        title: str.

    Raises:
        ValueError: `rows` is empty, or a number is not positive.
    """
    if not rows or not all(len(row) == 3 and row[1] > 0 and row[2] > 0 for row in rows):
        raise ValueError("`rows` must be (name, parameters, GMACs), with positive numbers")
    names, parameters, gmacs = zip(*rows)
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel="parameters", ylabel="GMACs per image")
    axes.set(xscale="log", yscale="log")
    axes.margins(0.12)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.plot(parameters, gmacs, "o", color=BLUE, markersize=6)
    figure.draw_without_rendering()  # after which the sizes of labels are known
    place_labels(axes, names, parameters, gmacs)
    return figure


def place_labels(axes, names, xs, ys):
    """Puts each name beside its point, at the offset where it covers the least of points and other names.

    Among more than 30 points, a name that would cover something is left out.
    """
    offsets = [(7, 0, "left", "center"), (-7, 0, "right", "center")]
    offsets += [(0, 8, "center", "bottom"), (0, -8, "center", "top")]
    offsets += [(6, 7, "left", "bottom"), (6, -7, "left", "top")]
    points = axes.transData.transform(np.column_stack([xs, ys]))
    inside = axes.get_window_extent()
    taken = [matplotlib.transforms.Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in points]
    for name, x, y in zip(names, xs, ys):
        options = []
        for dx, dy, horizontal, vertical in offsets:
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
    """Returns the area in square pixels that two boxes share."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(0, width) * max(0, height)
