"""Image files as sequences of decoded images: what a `DataLoader` reads from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from vit_tf.checks import check_int
from vit_tf.data.augment.image import as_image
from vit_tf.memory import free_memory
from vit_tf.preprocessing.decode import decode


class DecodedImages:
    """Image files as a sequence of RGB images of Pillow, decoded at each access.

    Args:
        files: `ImageFiles`, or an object with `read(i) -> bytes`, `names` and `len()`.
    """

    def __init__(self, files: Any):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Image.Image:
        return decode(self.files.read(index), self.files.names[index])


class CachedImages:
    """Images that are decoded once, scaled down and kept in memory.

    An item is a function of the image alone, whether cached or not. With a small `side`, small crops are
    enlarged: use 256 for images of 224 pixels, or more if the memory allows.

    Args:
        images: sequence of images of Pillow, such as `DecodedImages`. Several threads read it at once.
        side: int, pixels of the shorter side. Smaller images keep their size.

    Items: uint8 arrays (h, w, 3), read-only because they are shared.

    Raises:
        ValueError: `side` is out of range, or the images would take more than half of the free memory, by an
            estimate from a few of them.
    """

    num_measured = 8

    def __init__(self, images: DecodedImages | Sequence[Image.Image], side: int):
        check_int("side", side, 1)
        self.images = images
        self.side = side
        self.arrays: list[np.ndarray | None] = [None] * len(images)
        measured = np.linspace(0, len(images) - 1, min(self.num_measured, len(images))).astype(int)
        needed = len(images) * sum(self[index].nbytes for index in measured) // max(len(measured), 1)
        free = free_memory()
        if free is not None and needed > free / 2:
            problem = f"{len(images):,} images of {side} pixels need about {needed:,} bytes of memory"
            limit = f"half of the free memory is {free // 2:,}"
            raise ValueError(f"{problem}, {limit}: choose a smaller `side`, or do without the cache")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> np.ndarray:
        array = self.arrays[index]
        if array is None:  # two threads may both decode an image: their results are equal
            array = np.array(scale_down(as_image(self.images[index]), self.side))
            array.flags.writeable = False
            self.arrays[index] = array
        return array


def scale_down(image, side):
    """Returns an image of Pillow with a shorter side of `side` pixels, or a smaller image as it is."""
    shorter = min(image.size)
    if shorter <= side:
        return image
    size = [max(round(length * side / shorter), side) for length in image.size]
    return image.resize(size, Image.Resampling.BICUBIC)
