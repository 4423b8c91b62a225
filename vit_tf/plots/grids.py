"""Images with captions, on a grid."""

import math
from collections.abc import Sequence

import numpy as np

from vit_tf.plots.style import INK, ORANGE, Figure, printable_text, styled


@styled
def image_grid(images: np.ndarray | Sequence[np.ndarray], captions: Sequence[str], title: str) -> Figure:
    """Draws up to 24 images with their captions.

    Args:
        images: uint8 or float array `(n, h, w, c)` in [0, 255], c 1, 3 or 4.
        captions: n strings.
        title: str.

    Raises:
        ValueError: `images` is empty or has another shape or other values, or the number of captions is not
            that of the images.
    """
    images = np.asarray(images)
    if not len(images) or images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(f"`images` must be (n, h, w, 1, 3 or 4), got {images.shape}")
    if len(captions) != len(images):
        raise ValueError(f"expected one caption for each of {len(images)} images, got {len(captions)}")
    figure, cells = axes_grid(len(images), title)
    for axes, image, caption in zip(cells, to_uint8(images), captions):
        show_image(axes, image)
        axes.spines[:].set_visible(False)
        axes.set_title(printable_text(caption, 1.5), fontsize=8)
    return figure


def to_uint8(images):
    """Returns images in [0, 255] as uint8.

    Raises:
        ValueError: the values are in another range, or seem to be in [0, 1].
    """
    images = np.asarray(images)
    low, high = (images.min(), images.max()) if images.dtype.kind in "uif" else (np.nan, np.nan)
    is_int = images.dtype.kind in "ui"
    if not (-0.5 <= low and high <= 255.5) or (not is_int and 0.1 < high <= 1):
        raise ValueError(
            f"images to draw must have values in [0, 255], got {low:.3g} to {high:.3g}: convert normalised "
            "images by 255 * (images * std + mean), and images in [0, 1] by 255 * images"
        )
    return np.clip(np.round(images), 0, 255).astype("uint8")


def axes_grid(n, title):
    """Returns a figure, and its axes for up to 24 images."""
    shown = min(n, 24)
    columns = min(shown, 6)
    rows = math.ceil(shown / columns)
    figure = Figure(figsize=(max(3, 1.6 * columns), 0.5 + 1.95 * rows), layout="constrained")
    figure.suptitle(printable_text(title))
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes in grid:
        axes.set(xticks=[], yticks=[])
    for axes in grid[shown:]:
        axes.set_axis_off()
    return figure, grid[:shown]


def show_image(axes, image):
    """Draws an image `(h, w, c)` in [0, 255]."""
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)  # the options are those of grey images


def show_judged(axes, image, is_correct, caption, **options):
    """Draws an image with a caption that says whether its prediction is correct; a wrong one has a frame."""
    mark, colour = ("✓", INK) if is_correct else ("✗", ORANGE)
    show_image(axes, image)
    axes.spines[:].set(visible=not is_correct, color=ORANGE, linewidth=3)
    axes.set_title(f"{mark} {caption}", color=colour, **options)
