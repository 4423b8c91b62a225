"""The page of search results: names that could break it, links, and files that are gone."""

import base64
import io
import re
from urllib.parse import unquote

import numpy as np
from PIL import Image

from vit_tf.embeddings.contact_sheet import Card, contact_sheet


def test_names_and_links(tmp_path):
    names = ['a "quoted" <b>&amp;.png', "50% #1?.png", "ü\u202e.png", "deep/it's.png"]
    (tmp_path / "images" / "deep").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (300, 900, 3), "uint8")
    for name in names:
        Image.fromarray(pixels).save(tmp_path / "images" / name)
    cards = [Card(tmp_path / "images" / name, name, "0.912", "<i>cat</i>") for name in names]
    cards += [Card(tmp_path / "gone.png", "gone.png"), Card(tmp_path, "folder", is_first=True)]
    page = contact_sheet("<Title>", "a & b", [("Like <x>", cards)], tmp_path / "pages")
    assert page.count("<figure") == page.count("</figure>") == 6 and page.count("<b>0.912</b>") == 4
    assert "<i>" not in page and "<Title>" not in page and "Like &lt;x&gt;" in page and "\u202e" not in page
    assert page.count("is no image") == 2 and page.count('class="first"') == 1
    assert not re.search(r"(src|href)=\"(?!data:image/jpeg;base64,|\.\./images/)", page)  # nothing is loaded
    links = re.findall(r'href="([^"]+)"', page)
    assert [unquote(link) for link in links] == [f"../images/{name}" for name in names]
    data = re.search(r"base64,([\w+/=]+)", page)[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (320, 107)
