"""Writes small data sets of images, and shows what was found in them."""

import io
import zipfile

import numpy as np
from PIL import Image

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def to_bytes(picture, format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


JPEG = to_bytes(Image.fromarray(PIXELS), "JPEG", quality=95)
PNG = to_bytes(Image.fromarray(PIXELS))
LAYOUTS = {
    "folders": ["cat/1.jpg", "cat/old/2.JPG", "dog/3.png", "dog/a b.webp"],
    "flat": ["cat.1.jpg", "cat.12.jpg", "dog.7.jpg", "dog.8.jpeg"],
}


def write(root, names, data=JPEG):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(path, names, data=JPEG, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name in names:
            archive.writestr(name, data)
    return path


def table(files):
    """{name: (class, split)}: what a data set was understood to be."""
    return {
        name: (files.class_names[label], split)
        for name, label, split in zip(files.names, files.labels, files.splits)
    }


def classes(files):
    return {name: label for name, (label, _) in table(files).items()}


def read_all(files):
    return [files.read(i) for i in range(len(files))]
