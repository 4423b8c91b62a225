"""Images in every form that `Preprocessing` takes, as RGB images of Pillow."""

import os
import sys

import numpy as np
from PIL import Image

from vit_tf.checks import shown
from vit_tf.preprocessing.decode import as_bytes, read_image, to_rgb

EXPECTED = (
    "expected a path, the bytes of a file, an open file, a PIL image or an array (h, w, c) or (b, h, w, c) "
    "with 1, 3 or 4 channels"
)


def to_pil_images(images):
    """Returns a list of RGB images of Pillow.

    Args:
        images: one image, a batch or a list, see `Preprocessing`.

    Raises:
        ValueError: an empty list, or something that is not an image.
    """
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("`images` is an empty list, expected at least one image")
        return [pil_image for image in images for pil_image in to_pil_images(image)]
    if isinstance(images, Image.Image):
        return [to_rgb(images)]
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(images, "read"):
        return [read_image(images)]
    array = to_array(images)
    if array.ndim == 1 and array.size and array.dtype.kind in "UO":  # a column of a table
        return to_pil_images(array.tolist())
    if array.ndim not in (3, 4) or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        got = f"the shape {array.shape}" if array.ndim else shown(images)
        raise ValueError(f"{EXPECTED}, got {got}: channels are the last axis")
    batch = as_bytes(array if array.ndim == 4 else array[None])
    batch = batch[..., 0] if batch.shape[-1] == 1 else batch
    return [Image.fromarray(image).convert("RGB") for image in batch]


def to_array(images):
    """Returns a tensor of Keras's backend, or anything else that NumPy reads, as an array."""
    if "keras" in sys.modules:  # without Keras there is no tensor of its backend
        from keras import ops

        if ops.is_tensor(images):
            return ops.convert_to_numpy(images)
    return np.asarray(images)
