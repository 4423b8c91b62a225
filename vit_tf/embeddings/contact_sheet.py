"""Images of search results on an HTML page of one file, which loads nothing else and can be mailed."""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from vit_tf.checks import printable
from vit_tf.preprocessing.decode import read_image

LONGEST_SIDE = 320  # pixels of a thumbnail
QUALITY = 80  # of its JPEG
STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2128; --faint: #57606a; --card: #f3f4f6;
  --line: #d8dce1; --accent: #3949ab }
@media (prefers-color-scheme: dark) { :root { --page: #14171c; --ink: #e4e7eb; --faint: #9aa4b0;
  --card: #1f242b; --line: #323941; --accent: #9fa8da } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 80rem; padding: 1.25rem 1rem 3rem; background: var(--page);
  color: var(--ink); font: 16px/1.45 system-ui, sans-serif }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; overflow-wrap: anywhere }
h2 { font-size: 1rem; margin: 2rem 0 .7rem; padding-top: 1rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere }
p { color: var(--faint); margin: 0; max-width: 48rem; overflow-wrap: anywhere }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(10.5rem, 44%), 1fr)); gap: .8rem }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  overflow: hidden; display: flex; flex-direction: column }
figure.first { outline: 2px solid var(--accent); outline-offset: -1px }
figure a, .none { display: block; aspect-ratio: 1 }
.none { display: grid; place-items: center; color: var(--faint); font-size: .8rem; padding: .5rem;
  text-align: center }
img { width: 100%; height: 100%; object-fit: contain; display: block }
figcaption { padding: .45rem .6rem .55rem; font-size: .8rem; border-top: 1px solid var(--line) }
figcaption b { font-variant-numeric: tabular-nums; margin-right: .4rem }
figcaption span { color: var(--accent) }
figcaption small { display: block; color: var(--faint); overflow-wrap: anywhere; font-size: .75rem;
  margin-top: .1rem }
@media print { figure { break-inside: avoid } }
"""


@dataclass(frozen=True)
class Card:
    """An image on the page.

    Args:
        file: the path of the image file, which need not exist any more.
        name: what stands under the image.
        value, label: optional text before the name, such as a similarity and a class.
        is_first: bool, whether the card has a frame.
    """

    file: Path
    name: str
    value: str = ""
    label: str = ""
    is_first: bool = False


def contact_sheet(
    title: str, text: str, sections: Iterable[tuple[str, Sequence[Card]]], folder: str | os.PathLike
) -> str:
    """Returns an HTML document with embedded thumbnails.

    Args:
        title, text: the heading of the page, and the line below.
        sections: pairs of a heading and the cards below.
        folder: where the page will be. Each image links to its file, relative to this folder.
    """
    parts = [f"<h1>{escape(title)}</h1><p>{escape(text)}</p>"]
    for heading, cards in sections:
        figures = "".join(figure(card, folder) for card in cards)
        parts.append(f'<h2>{escape(heading)}</h2><div class="sheet">{figures}</div>')
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def figure(card, folder):
    try:
        data = base64.b64encode(thumbnail(card.file)).decode()
    except (ValueError, OSError):
        picture = '<div class="none">the file is not there any more, or is no image</div>'
    else:
        source = f"data:image/jpeg;base64,{data}"
        picture = f'<a href="{link(card.file, folder)}"><img alt="{escape(card.name)}" src="{source}"></a>'
    words = [f"<b>{escape(card.value)}</b>" if card.value else ""]
    words.append(f"<span>{escape(card.label)}</span>" if card.label else "")
    caption = f"<figcaption>{''.join(words)}<small>{escape(card.name)}</small></figcaption>"
    kind = ' class="first"' if card.is_first else ""
    return f"<figure{kind}>{picture}{caption}</figure>"


def thumbnail(path):
    """Returns the bytes of a small JPEG of an image file."""
    image = read_image(path)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def link(path, folder):
    """Returns the address of a file, relative to the folder of the page, as the value of an attribute."""
    try:
        address = os.path.relpath(path, folder)
    except ValueError:  # another drive of Windows
        return html.escape(Path(path).absolute().as_uri())
    return html.escape(quote(os.fsencode(address.replace(os.sep, "/"))))


def escape(text):
    return html.escape(printable(text))
