"""The style of all plots, text that is safe to draw, and writing figures to files."""

import io
import os
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import matplotlib.figure

from vit_tf.checks import cut, printable_lines
from vit_tf.files import atomic_path

BLUE, ORANGE, GREEN, INK = "#0072B2", "#D55E00", "#009E73", "#222222"
STYLE: dict[Any, Any] = {
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
    "text.parse_math": False,  # a $ in a name is drawn as it is
    "savefig.dpi": 160,
    "figure.dpi": 110,
}
FORMATS = (".png", ".svg", ".pdf")


class Figure(matplotlib.figure.Figure):
    """A Matplotlib figure that a notebook shows without `%matplotlib inline`."""

    def to_png(self, **options: Any) -> bytes:
        """Returns the bytes of a PNG file. Options are those of `savefig`."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", **options)
        return buffer.getvalue()

    def _repr_png_(self):
        return self.to_png()


Arguments = ParamSpec("Arguments")


def styled(function: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Decorates a function that draws: the style of this module applies while the function runs."""

    @wraps(function)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return wrapper


def printable_text(text, width=None, size=8):
    """Returns text of one or several lines that can be drawn: control characters are escaped.

    Args:
        text: str.
        width: float, the width in inches that is available. Longer lines are cut in their middle. None keeps
            them.
        size: float, the font size in points.
    """
    text = printable_lines(text).replace("\t", " ")
    if width is None:
        return text
    most = int(width * 72 / (0.55 * size))  # a character is about 0.55 of the font size wide
    return "\n".join(cut(line, most) for line in text.split("\n"))


def printable_name(name):
    """Returns `printable_text` of a name on one line: line breaks are escaped, too."""
    return printable_text(name).replace("\n", r"\n")


def draw_scale(image, label, **options):
    """Draws the colour scale of a matrix that `imshow` has drawn, and removes grid, ticks and frames."""
    axes = image.axes
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.figure.colorbar(image, ax=axes, label=label, **options).outline.set_visible(False)


def check_path(path: str | os.PathLike) -> Path:
    """Returns `path` as a `Path` where `save` can write to it.

    Raises:
        ValueError: the suffix is not that of an image format, or the folder does not exist.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"the name of a figure must end in {', '.join(FORMATS)}, got {str(path)!r}")
    if not path.parent.is_dir():
        raise ValueError(f"there is no folder {str(path.parent)!r} to write {path.name!r} to")
    return path


def save(figure: Figure, path: str | os.PathLike) -> None:
    """Writes a figure to a file (PNG, SVG or PDF), as a whole or not at all.

    Raises:
        ValueError: see `check_path`.
    """
    path = check_path(path)
    with matplotlib.rc_context(STYLE), atomic_path(path) as partial, warnings.catch_warnings():
        # Characters of class names that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(partial)
