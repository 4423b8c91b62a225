"""Writes tables of images as spreadsheets, pandas and Kaggle do, and shows the labels found in them."""

import io

import numpy as np
from PIL import Image

from vit_tf.data import find_images

SINGLE = [("cat/1.jpg", "cat"), ("cat/2.jpg", "cat"), ("dog/3.png", "dog")]
SEVERAL = {"1": "cat", "2": "dog", "3": "cat dog", "4": "bird", "5": "dog bird"}


def picture(format):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), "uint8")).save(file, format)
    return file.getvalue()


JPEG = picture("JPEG")


def find(folder, table, files=tuple(name for name, _ in SINGLE), name="labels.csv"):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(JPEG)
    (folder / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return find_images(folder / name)


def labels_of(files):
    """Returns {name: class, or tuple of classes}."""
    if not files.is_multi_label:
        return {name: files.class_names[label] for name, label in zip(files.names, files.labels)}
    names = np.array(files.class_names, object)
    return {name: tuple(names[row]) for name, row in zip(files.names, files.labels)}


def written(delimiter=",", quote="", header=("path", "label"), blank="", end="\n"):
    rows = [header, *SINGLE] if header else SINGLE
    lines = ((f"{delimiter}{blank}").join(f"{quote}{cell}{quote}" for cell in row) for row in rows)
    return "".join(line + end for line in lines)
