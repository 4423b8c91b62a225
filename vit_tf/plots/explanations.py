"""Plots of the results of `vit_tf.explain`: attention, relevance, features, positions, filters."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from vit_tf.plots.grids import show_image, to_uint8
from vit_tf.plots.style import BLUE, ORANGE, Figure, draw_scale, printable_text, styled

COLOUR_MAP = "viridis"
GAP = 1  # blank pixels between tiles


@styled
def attention_heads(image: np.ndarray, maps: np.ndarray, title: str) -> Figure:
    """Draws an image, and the attention of every head of a layer as maps over the image.

    Each head has its own scale. Its title shows the largest value.

    Args:
        image: array `(h, w, c)` in [0, 255], c 1 or 3.
        maps: array `(heads, grid_h, grid_w)`.
        title: str.

    Raises:
        ValueError: an array has another shape.
    """
    (image,), maps = check_images([image]), check_maps(maps)
    columns = min(len(maps) + 1, 4 if len(maps) < 8 else 5)
    rows = math.ceil((len(maps) + 1) / columns)
    size = (max(3.2, 1.9 * columns), 0.45 + rows * (0.25 + 1.9 * image.shape[0] / image.shape[1]))
    figure, grid = hidden_axes(rows, columns, size, title)
    show_image(grid[0, 0], image)
    grid[0, 0].set_title("image", fontsize=8)
    for i, (axes, values) in enumerate(zip(grid.flat[1:], maps)):
        show_map(axes, image, values)
        axes.set_title(f"head {i}, up to {values.max():.1%}", fontsize=8)
    return figure


@styled
def saliency_maps(
    images: np.ndarray | Sequence[np.ndarray],
    maps: np.ndarray | dict[str, np.ndarray],
    captions: Sequence[str],
    title: str,
) -> Figure:
    """Draws each image, and beside it the maps of this image over a grey copy, each on its own scale.

    Args:
        images: n arrays `(h, w, c)` in [0, 255], c 1 or 3.
        maps: array `(n, grid_h, grid_w)`; or a dict from names to such arrays, one column per name.
        captions: n strings.
        title: str.

    Raises:
        ValueError: an array has another shape, or the numbers of images, maps and captions differ.
    """
    columns = maps if isinstance(maps, dict) else {"": maps}
    images = check_images(images)
    columns = {name: check_maps(values, len(images)) for name, values in columns.items()}
    if len(captions) != len(images) or not columns:
        raise ValueError(f"expected maps, and {len(images)} captions for as many images, got {len(captions)}")
    height, width = images[0].shape[:2]
    count = len(columns) + 1
    size = (2.1 * count, 0.7 + len(images) * (0.3 + 2.05 * height / width))
    figure, grid = hidden_axes(len(images), count, size, title)
    for i, (row, image, caption) in enumerate(zip(grid, images, captions)):
        show_image(row[0], image)
        row[0].set_title(printable_text(caption, 1.9), fontsize=8)
        for axes, (name, values) in zip(row[1:], columns.items()):
            show_map(axes, image, values[i])
            axes.set_title(printable_text(name, 1.9), fontsize=8)
    figure.supxlabel("each map from its smallest value (dark) to its largest (bright)", fontsize=8)
    return figure


@styled
def attention_distances(distances: np.ndarray, title: str, side: float | None = None) -> Figure:
    """Draws the mean attention distance of each head, and the mean over the heads, against the depth.

    Args:
        distances: array `(layers, heads)` in pixels.
        title: str.
        side: float, the upper end of the scale in pixels, such as the larger side of the image. None fits
            the scale to the distances.

    Raises:
        ValueError: `distances` has another shape.
    """
    distances = np.asarray(distances)
    if distances.ndim != 2 or not distances.size:
        raise ValueError(f"`distances` must be (layers, heads), got {distances.shape}")
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    depth = np.arange(len(distances))
    dots = axes.plot(depth, distances, "o", color=BLUE, markersize=5, alpha=0.65)
    dots[0].set_label("one head")
    axes.plot(depth, distances.mean(axis=1), "-", color=ORANGE, label="mean of the heads")
    axes.set(title=printable_text(title), xlabel="block", ylabel="mean attention distance, pixels")
    axes.set_ylim(0, side)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()
    return figure


@styled
def position_similarities(similarity: np.ndarray, title: str, most: int = 8) -> Figure:
    """Draws the similarity of each position embedding to all others, one small map per patch.

    Args:
        similarity: array `(grid_h, grid_w, grid_h, grid_w)` of cosines.
        title: str.
        most: int, the maximum number of maps per side. Of a larger grid, evenly spaced patches are drawn.

    Raises:
        ValueError: `similarity` has another shape.
    """
    similarity = np.asarray(similarity)
    if similarity.ndim != 4 or similarity.shape[:2] != similarity.shape[2:]:
        raise ValueError(f"`similarity` must be (h, w, h, w), got {similarity.shape}")
    rows, columns = (spaced_indices(size, most) for size in similarity.shape[:2])
    scale = math.ceil(8 / max(similarity.shape))  # so that the gaps are thin beside maps of few patches
    maps = similarity[np.ix_(rows, columns)].repeat(scale, axis=2).repeat(scale, axis=3)
    tiles = tile(maps)
    width = 5.6
    size = (width + 1.4, 0.65 + width * tiles.shape[0] / tiles.shape[1])
    figure = Figure(figsize=size, layout="compressed")  # "constrained" cuts the label of the rows
    axes = figure.subplots()
    drawn = axes.imshow(tiles, cmap=COLOUR_MAP, interpolation="nearest")
    axes.set(title=printable_text(title, width, 10), xlabel="column of the patch", ylabel="row of the patch")
    for axis, indices, size in (
        (axes.xaxis, columns, maps.shape[3] + GAP),
        (axes.yaxis, rows, maps.shape[2] + GAP),
    ):
        axis.set_ticks([(i + 0.5) * size - 1 for i in range(len(indices))], indices)
    draw_scale(drawn, "cosine similarity", fraction=0.04, shrink=0.8)
    return figure


@styled
def filters(values: np.ndarray, title: str) -> Figure:
    """Draws filters of pixels, each on its own scale. Grey is zero.

    Args:
        values: array `(k, h, w, c)`. Unless c is 3, the mean over the channels is drawn.
        title: str.

    Raises:
        ValueError: `values` has another shape.
    """
    values = np.asarray(values)
    if values.ndim != 4 or not values.size:
        raise ValueError(f"`values` must be (k, h, w, c), got {values.shape}")
    if values.shape[-1] != 3:
        values = values.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    largest = np.abs(values).max(axis=(1, 2, 3), keepdims=True)
    values = 0.5 + 0.5 * values / np.maximum(largest, 1e-12)
    columns = min(len(values), 7)
    rows = math.ceil(len(values) / columns)
    blank = np.full((rows * columns - len(values), *values.shape[1:]), np.nan)
    tiles = tile(np.concatenate([values, blank]).reshape(rows, columns, *values.shape[1:]))
    tiles = np.where(np.isnan(tiles), 1.0, tiles)
    width = 0.8 * columns
    height = width * tiles.shape[0] / tiles.shape[1]
    figure = Figure(figsize=(max(3.2, width), 0.4 + height), layout="constrained")
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_title(printable_text(title))
    axes.imshow(tiles, interpolation="nearest")
    return figure


@styled
def feature_colours(
    images: np.ndarray | Sequence[np.ndarray],
    colours: np.ndarray,
    title: str,
    captions: Sequence[str] | None = None,
) -> Figure:
    """Draws images, at most six per row, and below each image the features of its patches as colours.

    Args:
        images: n arrays `(h, w, c)` in [0, 255], c 1 or 3.
        colours: array `(n, grid_h, grid_w, 3)` in [0, 1], see `vit_tf.features_to_rgb`.
        title: str.
        captions: n strings, or None.

    Raises:
        ValueError: an array has another shape, or the numbers of images, colours and captions differ.
    """
    images, colours = check_images(images), np.asarray(colours)
    if colours.ndim != 4 or colours.shape[-1] != 3 or len(colours) != len(images):
        raise ValueError(f"`colours` must be ({len(images)}, grid_h, grid_w, 3), got {colours.shape}")
    captions = [""] * len(images) if captions is None else captions
    if len(captions) != len(images):
        raise ValueError(f"expected {len(images)} captions for as many images, got {len(captions)}")
    height, width = images[0].shape[:2]
    columns = min(len(images), 6)
    rows = math.ceil(len(images) / columns)
    size = (max(3.2, 2 * columns), 0.5 + rows * (0.2 + 4 * height / width))
    figure, grid = hidden_axes(2 * rows, columns, size, title)
    for i, (image, values, caption) in enumerate(zip(images, colours, captions)):
        above, below = grid[2 * (i // columns) :, i % columns][:2]
        show_image(above, image)
        above.set_title(printable_text(caption, 1.8), fontsize=8)
        below.imshow(values, interpolation="nearest")
    return figure


@styled
def similarity_matrix(
    matrix: np.ndarray, row_names: Sequence[str], column_names: Sequence[str], title: str
) -> Figure:
    """Draws similarities from 0 to 1, such as CKA between layers.

    Args:
        matrix: array `(rows, columns)`.
        row_names, column_names: one string per row and column.
        title: str.

    Raises:
        ValueError: the numbers of names are not those of rows and columns.
    """
    matrix = np.asarray(matrix)
    if matrix.shape != (len(row_names), len(column_names)) or not matrix.size:
        raise ValueError(
            f"`matrix` must be ({len(row_names)}, {len(column_names)}), the numbers of names, "
            f"got {matrix.shape}"
        )
    side = 2 + 0.32 * max(matrix.shape)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    axes = figure.subplots()
    drawn = axes.imshow(matrix, cmap=COLOUR_MAP, vmin=0, vmax=1)
    axes.set_title(printable_text(title))
    axes.set_xticks(range(len(column_names)), map(printable_text, column_names), rotation=90)
    axes.set_yticks(range(len(row_names)), map(printable_text, row_names))
    if matrix.size <= 200:
        for (row, column), value in np.ndenumerate(matrix):
            color = "black" if value > 0.6 else "white"
            axes.text(column, row, f"{value:.2f}", color=color, ha="center", va="center", size=6.5)
    draw_scale(drawn, "similarity", shrink=0.6)
    return figure


def show_map(axes, image, values):
    """Draws a map over a grey copy of the image, of low contrast so that the map sets the brightness."""
    height, width = image.shape[:2]
    grey = image.mean(axis=-1)
    axes.imshow(grey, cmap="gray", vmin=-128, vmax=255 + 128)
    axes.imshow(
        values,
        cmap=COLOUR_MAP,
        alpha=0.62,
        interpolation="bilinear",
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )


def hidden_axes(rows, columns, size, title):
    """Returns a figure of a size in inches, and its hidden axes, an array `(rows, columns)`."""
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(printable_text(title, size[0], 11))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    return figure, grid


def tile(values):
    """Returns arrays `(rows, columns, h, w, ...)` side by side in one array, with gaps of NaN."""
    rows, columns, h, w = values.shape[:4]
    large = np.full((rows * (h + GAP) - GAP, columns * (w + GAP) - GAP, *values.shape[4:]), np.nan)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (h + GAP), column * (w + GAP)
            large[top : top + h, left : left + w] = values[row, column]
    return large


def spaced_indices(size, most):
    """Returns at most `most` evenly spaced indices of an axis, the first and the last included."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).round().astype(int)).tolist()


def check_images(images):
    """Returns images of the same shape `(h, w, 1 or 3)` as a list of uint8 arrays."""
    images = [np.asarray(image) for image in images]
    shapes = {image.shape for image in images}
    if len(shapes) != 1 or images[0].ndim != 3 or images[0].shape[-1] not in (1, 3):
        raise ValueError(f"images must be (h, w, 1 or 3), all of one size, got {sorted(shapes)}")
    return [to_uint8(image) for image in images]


def check_maps(maps, count=None):
    """Returns maps as a float32 array `(count, grid_h, grid_w)`."""
    maps = np.asarray(maps, "float32")
    if maps.ndim != 3 or not maps.size or len(maps) != (count or len(maps)):
        raise ValueError(f"`maps` must be ({count or 'n'}, grid_h, grid_w), got {maps.shape}")
    return maps
