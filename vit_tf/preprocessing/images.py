"""Images of every kind, as RGB pictures of Pillow."""

import os

import numpy as np
from keras import ops
from PIL import Image, ImageOps


def pictures(images):
    """Returns the list of RGB pictures in a path, PIL image, array or list of them."""
    if isinstance(images, (list, tuple)):
        if not images:
            raise ValueError("`images` is an empty list, expected at least one image")
        return [picture for image in images for picture in pictures(image)]
    if isinstance(images, (str, os.PathLike)):
        with open(images, "rb") as file:
            try:
                return [rgb(Image.open(file))]
            except Exception as error:  # Pillow's decoders raise nearly everything
                raise ValueError(f"{str(images)!r} is not an image that can be read: {error}") from error
    if isinstance(images, Image.Image):
        return [rgb(images)]
    array = ops.convert_to_numpy(images) if ops.is_tensor(images) else np.asarray(images)
    if array.ndim not in (3, 4) or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            "expected a path, a PIL image or an array (h, w, c) or (b, h, w, c) with 1, 3 or 4 channels, "
            f"got {f'the shape {array.shape}' if array.ndim else repr(images)}: channels are the last axis"
        )
    batch = as_bytes(array if array.ndim == 4 else array[None])
    batch = batch[..., 0] if batch.shape[-1] == 1 else batch
    return [Image.fromarray(image).convert("RGB") for image in batch]


def rgb(picture):
    """Returns a picture of any mode as RGB, turned as its EXIF data says."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):  # Pillow would clip these to 255
        values = np.asarray(picture)
        if picture.mode.startswith("I;16") or (picture.mode == "I" and values.max() > 255):
            values = (values.astype("int64") + 128) // 257  # 0 .. 65535 to 0 .. 255, rounded
        picture = Image.fromarray(as_bytes(values))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow warns about the direct way
    return picture.convert("RGB")


def as_bytes(array):
    """Returns an array of values in [0, 255] as uint8, rounded."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "uif":
        raise ValueError(f"pixels must be integers or floats in [0, 255], got dtype {array.dtype}")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # nor is NaN
        raise ValueError(
            f"pixels must be in [0, 255], got {low} to {high}: scale them, do not normalise them"
        )
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(f"pixels must be in [0, 255], got floats up to {high}: multiply them by 255")
    return np.round(array).astype("uint8")
