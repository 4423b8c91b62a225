"""Decodes image files to RGB images of Pillow. Every problem with a file is a ValueError of one line."""

import io
import os
import re

import numpy as np
from PIL import Image, ImageOps

from vit_tf.checks import brief, require, shown
from vit_tf.files import read_regular
from vit_tf.preprocessing.image_formats import detect_format

MAX_IMAGE_BYTES = 256 << 20
MAX_MEGAPIXELS = 178  # the limit of Pillow's readers of TIFF and WebP, too
LONGEST_PATH = 4096  # characters
URL = re.compile(r"(?i)([a-z][a-z0-9+.-]+:/|data:)")  # one slash: pathlib turns two into one


def read_image(source):
    """Reads an image file of a format in `image_formats.FORMATS`, whatever the ending of its name.

    Gray, palette, CMYK and 16-bit images become RGB, transparency is dropped, and the EXIF rotation is
    applied. Of several frames or pages the first is read. Several threads may call the function at the same
    time.

    Args:
        source: str or path-like, the path of a regular file or of a link to one; or the bytes of a file; or a
            binary file object, such as `io.BytesIO`. A seekable file object is read from its beginning.

    Returns:
        A `PIL.Image.Image` of mode RGB, wholly in memory: 4 bytes per pixel.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: the file has another format, is truncated or damaged, or has more than 256 MiB or, by its
            header, more than 178 megapixels; or `source` is a URL. The message has one line.
    """
    if isinstance(source, (str, os.PathLike)):
        return decode(read_path(source), os.fspath(source))
    return decode(read_open(source) if hasattr(source, "read") else source)


def read_path(path):
    """Returns the bytes of an image file; a ValueError names the file."""
    text = os.fsdecode(path)
    if URL.match(text):
        raise ValueError(f"{shown(text)} is a URL, which vit_tf does not download: save the image first")
    if len(text) > LONGEST_PATH:
        raise ValueError(f"{shown(text)} has {len(text):,} characters: expected a path, or an image as bytes")
    try:
        return read_regular(path, MAX_IMAGE_BYTES)
    except ValueError as error:
        raise ValueError(f"{shown(text)}: {brief(error)}") from error


def read_open(file):
    """Returns the bytes of an open binary file."""
    if hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable()):
        file.seek(0)  # a buffer that was just written to is at its end
    data = file.read(MAX_IMAGE_BYTES + 1)
    require(not isinstance(data, str), "the file is open as text: open it with mode 'rb'")
    problem = f"the open file has more than {MAX_IMAGE_BYTES:,} bytes, the limit for an image"
    require(len(data) <= MAX_IMAGE_BYTES, problem)
    return data


def decode(data, name=""):
    """Decodes the bytes of an image file to an RGB image of Pillow: see `read_image`."""
    try:
        return to_rgb(open_image(data))
    except Exception as error:  # Pillow's decoders raise nearly everything
        problem = brief(error)
    raise ValueError(f"{shown(name)}: {problem}" if name else problem)


def open_image(data):
    """Returns an image of Pillow whose pixels are not decoded yet."""
    # The format's own class instead of Image.open, which warns from 90 megapixels on. Its limit and Python's
    # warning filters are shared by all threads.
    image = detect_format(data).open(io.BytesIO(data))
    width, height = image.size
    hint = f"expected at most {MAX_MEGAPIXELS} megapixels, scale it down"
    require(width * height <= MAX_MEGAPIXELS * 1_000_000, f"{width}x{height} pixels: {hint}")
    return image


def to_rgb(image):
    """Returns an image of Pillow of any mode as RGB, rotated by its EXIF orientation."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # Pillow would clip these to 255
        image = Image.fromarray(deep_as_bytes(np.asarray(image), image.mode))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns about the direct conversion
    return image.convert("RGB")


def deep_as_bytes(values, mode):
    """Returns the gray values (h, w) of an image of more than 8 bits as uint8."""
    low, high = values.min(), values.max()
    is_deep = mode.startswith("I;16") or (mode == "I" and high > 255)
    if not is_deep:
        return as_bytes(values)
    hint = "expected 0 to 255, or 0 to 65535, save it with 8 or 16 bits"
    require(0 <= low <= high <= 65535, f"pixels of 32 bits from {low} to {high}: {hint}")
    return ((values.astype("int64") + 128) // 257).astype("uint8")  # 0 .. 65535 to 0 .. 255, rounded


def as_bytes(array):
    """Returns an array of values in [0, 255] as uint8, rounded."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "uif":
        raise ValueError(f"pixels must be integers or floats in [0, 255], got dtype {array.dtype}")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # also true for NaN
        raise ValueError(f"pixels must be in [0, 255], got {low} to {high}: {range_hint(low, high)}")
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(f"pixels must be in [0, 255], got floats up to {high}: multiply them by 255")
    return np.round(array).astype("uint8")


def range_hint(low, high):
    """Returns how to mend pixels outside [0, 255]."""
    if -64 <= low and 128 <= high <= 319:  # a step from 0 to 255 overshoots by up to a quarter
        return "clip them, as after a bicubic or Lanczos resize"
    if -5 <= low < 0 and high <= 5:
        return "they look normalised, pass the images before normalisation"
    return "scale them to that range"
