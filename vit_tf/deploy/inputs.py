"""The images to predict in any form, one at a time."""

import os
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from vit_tf.data.image_paths import find_in_folder
from vit_tf.preprocessing.images import to_array, to_pil_images


def each_image(images: Any) -> Iterator[Any]:
    """Yields single images: paths, bytes, open files, images of Pillow and arrays (h, w, c).

    Args:
        images: one of these; the path of a folder, for all images below it; an array (b, h, w, c) of any
            library; or an iterable of all of these, which may never end.

    Raises:
        ValueError: a folder has no images.
    """
    if isinstance(images, (str, os.PathLike)):
        yield from find_in_folder(images)[0] if os.path.isdir(images) else [images]
    elif isinstance(images, (bytes, bytearray, memoryview, Image.Image)) or hasattr(images, "read"):
        yield images
    elif hasattr(images, "__array__"):
        array = to_array(images)
        if array.ndim in (1, 4):  # a column of a table, a batch
            for image in array:
                yield from each_image(image)
        else:
            yield array
    elif hasattr(images, "__iter__") or hasattr(images, "__getitem__"):
        for image in images:
            yield from each_image(image)
    else:
        yield images  # reading it raises the error


def png_bytes(image: Any) -> np.ndarray:
    """Returns an image as the bytes of a PNG file, a vector of uint8: RGB, rotated by its EXIF orientation.

    A graph that decodes knows neither EXIF nor other formats.
    """
    file = BytesIO()
    to_pil_images(image)[0].save(file, "PNG", compress_level=1)
    return np.frombuffer(file.getvalue(), "uint8")
