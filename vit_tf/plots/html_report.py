"""Figures on a self-contained HTML page: one file that loads nothing else, and can be mailed."""

import base64
import html
import io
from dataclasses import dataclass

from PIL import Image

from vit_tf.plots.style import printable_text

STYLE = """
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222;
  font: 16px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
img { max-width: 100%; height: auto; display: block }
p { max-width: 44rem } .seen { display: flex; flex-wrap: wrap; gap: 1.5rem }
figure { margin: 0; width: 11rem } figcaption { overflow-wrap: anywhere }
figure img { width: 100%; image-rendering: pixelated }
table { border-collapse: collapse; font-size: 0.85rem } td { padding: 0.1rem 1rem 0.1rem 0 }
@media print { img, figure { break-inside: avoid } h2 { break-after: avoid } }
"""


@dataclass
class Section:
    """A section of a page."""

    title: str
    text: str
    figures: dict  # from file names to pairs of a figure and its alternative text, for screen readers


def html_page(title, text, cards, sections):
    """Returns an HTML document with embedded images, a string.

    Args:
        title, text: str.
        cards: one triple per image: array `(h, w, c)` in [0, 255], name, and classes as pairs of strings.
        sections: list of `Section`.
    """
    parts = [f"<h1>{escape(title)}</h1><p>{escape(text)}</p>"]
    parts.append(f'<div class="seen">{"".join(card(*each) for each in cards)}</div>')
    for section in sections:
        figures = section.figures.values()
        images = [image_tag(figure.to_png(dpi=130), f"{section.title}: {alt}") for figure, alt in figures]
        parts += [f"<h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>", *images]
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def card(image, name, classes):
    """Returns the HTML of an image with its name and its classes."""
    buffer = io.BytesIO()
    Image.fromarray(image.round().astype("uint8")).save(buffer, format="png")
    rows = "".join(f"<tr><td>{escape(label)}</td><td>{escape(text)}</td></tr>" for label, text in classes)
    table = f"<table>{rows}</table>" if rows else ""
    caption = f"<figcaption>{escape(name)}{table}</figcaption>"
    return f"<figure>{image_tag(buffer.getvalue(), name)}{caption}</figure>"


def image_tag(data, alt):
    """Returns an <img> that contains the bytes of a PNG file."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def escape(text):
    return html.escape(printable_text(text))
