"""Images of every kind, as RGB pictures of Pillow."""

import os

import numpy as np
from keras import ops
from PIL import Image

from vit_tf.checks import shown
from vit_tf.preprocessing.decode import as_bytes, read_image, rgb

EXPECTED = (
    "expected a path, the bytes of a file, an open file, a PIL image or an array (h, w, c) or (b, h, w, c) "
    "with 1, 3 or 4 channels"
)


def pictures(images):
    """Returns the list of RGB pictures in what `Preprocessing` takes: one image, or a list of them."""
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("`images` is an empty list, expected at least one image")
        return [picture for image in images for picture in pictures(image)]
    if isinstance(images, Image.Image):
        return [rgb(images)]
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(images, "read"):
        return [read_image(images)]
    array = ops.convert_to_numpy(images) if ops.is_tensor(images) else np.asarray(images)
    if array.ndim == 1 and array.size and array.dtype.kind in "UO":  # a column of a table
        return pictures(array.tolist())
    if array.ndim not in (3, 4) or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        found = f"the shape {array.shape}" if array.ndim else shown(images)
        raise ValueError(f"{EXPECTED}, got {found}: channels are the last axis")
    batch = as_bytes(array if array.ndim == 4 else array[None])
    batch = batch[..., 0] if batch.shape[-1] == 1 else batch
    return [Image.fromarray(image).convert("RGB") for image in batch]
