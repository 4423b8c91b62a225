"""Readers of images and tables over damaged files: each returns, or raises one short ValueError."""

import csv
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.damage import (
    BUDGET,
    BYTE_EDITS,
    EDITS,
    damaged,
    damaged_bytes,
    survives,
)

from vit_tf.data import find_images, read_split
from vit_tf.preprocessing.decode import decode


def image_bytes(kind="PNG"):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
def test_pictures(kind):
    whole = image_bytes(kind)

    @settings(BUDGET, max_examples=20)
    @given(BYTE_EDITS)
    def check(edits):
        survives(decode, damaged_bytes(whole, edits))

    assert decode(whole).size == (7, 9)
    check()


def read_images(path):
    files = find_images(path)
    for i in range(len(files)):
        survives(files.read, i)


def test_zip_of_pictures(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
            archive.writestr(name, image_bytes())
    whole = path.read_bytes()

    @BUDGET
    @given(BYTE_EDITS)
    def check(edits):
        path.write_bytes(damaged_bytes(whole, edits))
        survives(find_images, path)

    assert len(find_images(path)) == 3
    check()


ROWS = [
    *(["path", "label", "split"], ["a.png", "cat", "train"]),
    *(["b.png", "dog", "validation"], ["c.png", "cat", ""]),
]


@pytest.mark.parametrize("reader", ["labels", "split"])
def test_tables(tmp_path, reader):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(image_bytes())
    path = tmp_path / "labels.csv"

    def write(rows):
        with open(path, "w", newline="", encoding="utf-8", errors="surrogatepass") as file:
            csv.writer(file).writerows(rows if isinstance(rows, list) else [])

    write(ROWS)
    files = find_images(path)

    @BUDGET
    @given(EDITS, BYTE_EDITS, st.booleans())
    def check(edits, byte_edits, by_bytes):
        rows = damaged(ROWS, edits)
        write(ROWS if by_bytes else [row if isinstance(row, list) else [row] for row in rows])
        if by_bytes:
            path.write_bytes(damaged_bytes(path.read_bytes(), byte_edits))
        survives(*([find_images, path] if reader == "labels" else [read_split, files, path]))

    check()
