"""The bytes of an image file to an RGB picture; whatever is wrong with them is a one-line ValueError."""

import io
import os
import re

import numpy as np
from PIL import Image, ImageOps

from vit_tf.checks import brief, shown
from vit_tf.files import read_regular
from vit_tf.preprocessing.image_formats import format_of

MAX_IMAGE_BYTES = 256 << 20
MAX_MEGAPIXELS = 178  # Pillow's readers of TIFF and WebP have that limit, too
LONGEST_PATH = 4096  # characters
URL = re.compile(r"(?i)([a-z][a-z0-9+.-]+:/|data:)")  # pathlib makes one slash of two


def read_image(source, name=None):
    """Reads an image file of a format of `formats.FORMATS`, whatever its name ends in.

    Gray, palette, CMYK and 16-bit pictures become RGB, transparency is dropped, the EXIF rotation is
    applied, and of several frames or pages it is the first. Threads may call it at the same time.

    Args:
        source: str or path-like, the path of a regular file or of a link to one; or the bytes of a file; or a
            binary file object, such as `io.BytesIO`, which is read from its beginning if it can seek.
        name: what messages call the file, by default its path.

    Returns:
        A `PIL.Image.Image` of mode RGB, wholly in memory: 4 bytes per pixel.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: one line, for what is no image of these formats, is truncated or damaged, has more than
            178 megapixels (told by the header, before memory is taken) or 256 MiB, or for a URL.
    """
    if isinstance(source, (str, os.PathLike)):
        return decode(read_path(source), os.fspath(source) if name is None else name)
    if hasattr(source, "read"):
        source = read_open(source)
    return decode(source, name or "")


def read_path(path):
    """Returns the bytes of an image file; the ValueErrors name it."""
    text = os.fsdecode(path)
    if URL.match(text):
        raise ValueError(f"{shown(text)} is a URL, and nothing is downloaded here: save the picture first")
    if len(text) > LONGEST_PATH:
        raise ValueError(f"{shown(text)} has {len(text):,} characters: expected a path, or an image as bytes")
    try:
        return read_regular(path, MAX_IMAGE_BYTES)
    except ValueError as error:
        raise ValueError(f"{shown(text)}: {brief(error)}") from error


def read_open(file):
    """Returns the bytes of an open binary file."""
    if hasattr(file, "seek") and (not hasattr(file, "seekable") or file.seekable()):
        file.seek(0)  # a buffer that was just written to stands at its end
    data = file.read(MAX_IMAGE_BYTES + 1)
    if isinstance(data, str):
        raise ValueError("the file is open as text: open it with mode 'rb'")
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"the open file has more than {MAX_IMAGE_BYTES:,} bytes: no more are read")
    return data


def decode(data, name=""):
    """Decodes the bytes of an image file: see `read_image`."""
    try:
        return rgb(opened(data))
    except Exception as error:  # Pillow's decoders raise nearly everything
        problem = brief(error)
    raise ValueError(f"{shown(name)}: {problem}" if name else problem)


def opened(data):
    """Returns a picture whose pixels are not decoded yet."""
    # The format's own class, not Image.open: that one warns from 90 megapixels on, by a limit and by warning
    # filters that all threads share.
    picture = format_of(data).open(io.BytesIO(data))
    width, height = picture.size
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        hint = f"expected at most {MAX_MEGAPIXELS} megapixels, scale it down"
        raise ValueError(f"{width}x{height} pixels: {hint}")
    return picture


def rgb(picture):
    """Returns a picture of any mode as RGB, turned as its EXIF data says."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):  # Pillow would clip these to 255
        picture = Image.fromarray(deep_as_bytes(np.asarray(picture), picture.mode))
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow warns about the direct way
    return picture.convert("RGB")


def deep_as_bytes(values, mode):
    """Returns the gray values (h, w) of a picture of more than 8 bits as uint8."""
    low, high = values.min(), values.max()
    is_deep = mode.startswith("I;16") or (mode == "I" and high > 255)
    if not is_deep:
        return as_bytes(values)
    if not 0 <= low <= high <= 65535:
        found = f"pixels of 32 bits from {low} to {high}"
        raise ValueError(f"{found}: expected 0 to 255, or 0 to 65535, save it with 8 or 16 bits")
    return ((values.astype("int64") + 128) // 257).astype("uint8")  # 0 .. 65535 to 0 .. 255, rounded


def as_bytes(array):
    """Returns an array of values in [0, 255] as uint8, rounded."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "uif":
        raise ValueError(f"pixels must be integers or floats in [0, 255], got dtype {array.dtype}")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # nor is NaN
        raise ValueError(f"pixels must be in [0, 255], got {low} to {high}: {range_hint(low, high)}")
    if array.dtype.kind == "f" and 0 < high <= 1:
        raise ValueError(f"pixels must be in [0, 255], got floats up to {high}: multiply them by 255")
    return np.round(array).astype("uint8")


def range_hint(low, high):
    """Returns what to do with pixels beyond [0, 255]."""
    if -64 <= low and 128 <= high <= 319:  # a step from 0 to 255 overshoots by up to a quarter
        return "clip them, as after a bicubic or Lanczos resize"
    if -5 <= low < 0 and high <= 5:
        return "they look normalised, give the images as they were before"
    return "scale them to that range"
