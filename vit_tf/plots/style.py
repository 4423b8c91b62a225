"""How every picture looks, and how it is written to a file."""

import io
import warnings
from functools import wraps
from pathlib import Path

import matplotlib
import matplotlib.figure

from vit_tf.checks import printable_lines
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


def printable_text(text, width=None, size=8):
    """Returns text that can be drawn: control characters are escaped, but for line breaks.

    Bytes of a file's name that are no text become question marks. With a width in inches, lines that are
    too long at a font's size are cut in their middle.
    """
    text = printable_lines(str(text).encode("utf-8", "replace").decode()).replace("\t", " ")
    if width is None:
        return text
    most = int(width * 72 / (0.55 * size))  # a letter is some 0.55 of the font's size wide
    return "\n".join(line if len(line) <= most else cut(line, most) for line in text.split("\n"))


def legible_name(name):
    """Returns `printable_text` of a name that stands in a line."""
    return printable_text(name).replace("\n", r"\n")


def cut(line, most):
    return f"{line[: most // 2]}…{line[len(line) - (most - most // 2 - 1) :]}"


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
