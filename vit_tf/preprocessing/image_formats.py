"""The formats of images that are read: one list for all commands and the library.

Pillow knows some 40 more. Among them are some that start other programs, such as Ghostscript for EPS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec

NUM_LOOKED_AT = 64  # bytes at the beginning of a file that tell its format
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
NO_IMAGES = {  # what often has an image's name, or comes instead of one
    b"%!PS": "an EPS file, which could run programs: save it as PNG",
    b"%PDF": "a PDF: save its page as PNG",
    b"<!doctype html": "a web page: download the picture itself",
    b"<html": "a web page: download the picture itself",
    b"<svg": "an SVG drawing: save it as PNG",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself by `git lfs pull`",
}


@dataclass(frozen=True)
class Format:
    """A format of images.

    Args:
        name: what messages call it.
        endings: of its files' names, in lower case.
        is_at: function from the first bytes of a file to whether they begin this format.
        module, class_name: where its subclass of `PIL.Image.Image` is.
        extra: the extra of this package that the module comes with, or "".
    """

    name: str
    endings: tuple[str, ...]
    is_at: Callable[[bytes], bool]
    module: str
    class_name: str
    extra: str = ""

    @property
    def can_be_read(self):
        return not self.extra or find_spec(self.module) is not None

    @property
    def remedy(self):
        """What makes a format readable whose package is missing."""
        return f"pip install 'vit_tf[{self.extra}]' reads them" if self.extra else ""

    def open(self, file):
        """Opens a picture; its pixels are not decoded yet."""
        return getattr(import_module(self.module), self.class_name)(file)


def brands(data):
    """Returns the brands in the first box of an ISO media file, its own first; none of other files."""
    if data[4:8] != b"ftyp":
        return []
    size = int.from_bytes(data[:4], "big")
    return [data[8:12], *(data[i : i + 4] for i in range(16, min(size, len(data)), 4))]


def is_avif(data):
    found = brands(data)
    return found[:1] in ([b"avif"], [b"avis"]) or found[:1] in ([b"mif1"], [b"msf1"]) and b"avif" in found


def is_heif(data):
    found = brands(data)
    return bool(HEIF_BRANDS.intersection(found)) and not is_avif(data)


def starts(*signatures):
    return lambda data: data.startswith(signatures)


FORMATS = (
    Format(
        *("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), starts(b"\xff\xd8\xff")),
        *("PIL.JpegImagePlugin", "JpegImageFile"),
    ),
    Format("PNG", (".png", ".apng"), starts(b"\x89PNG\r\n\x1a\n"), "PIL.PngImagePlugin", "PngImageFile"),
    Format(
        *("WebP", (".webp",), lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP"),
        *("PIL.WebPImagePlugin", "WebPImageFile"),
    ),
    Format("GIF", (".gif",), starts(b"GIF8"), "PIL.GifImagePlugin", "GifImageFile"),
    Format("BMP", (".bmp", ".dib"), starts(b"BM"), "PIL.BmpImagePlugin", "BmpImageFile"),
    Format(
        *("TIFF", (".tif", ".tiff"), starts(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
        *("PIL.TiffImagePlugin", "TiffImageFile"),
    ),
    Format("AVIF", (".avif", ".avifs"), is_avif, "PIL.AvifImagePlugin", "AvifImageFile"),
    Format(
        *("JPEG 2000", (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx")),
        starts(b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
        *("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    ),
    Format(
        *("PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm")),
        lambda data: data[:1] == b"P" and data[1:2] in b"123456fF" and data[2:3].isspace(),
        *("PIL.PpmImagePlugin", "PpmImageFile"),
    ),
    Format("HEIC", (".heic", ".heif", ".hif"), is_heif, "pillow_heif", "HeifImageFile", extra="heif"),
)
NAMES = " or ".join([", ".join(format.name for format in FORMATS[:-1]), FORMATS[-1].name])
ENDINGS = tuple(ending for format in FORMATS for ending in format.endings)


@cache
def readable_endings():
    """Returns the endings of all formats whose packages are installed."""
    return tuple(ending for format in FORMATS if format.can_be_read for ending in format.endings)


def format_of_name(name):
    """Returns the format that a file's name promises, or None."""
    return next((format for format in FORMATS if name.lower().endswith(format.endings)), None)


def format_of(data):
    """Returns the format of an image by its first bytes; a ValueError says what it is instead."""
    if not data:
        raise ValueError("the file is empty: copy it again")
    start = bytes(data[:NUM_LOOKED_AT])
    found = next((format for format in FORMATS if format.is_at(start)), None)
    if found is None:
        text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        known = next((what for sign, what in NO_IMAGES.items() if text.startswith(sign.lower())), None)
        found = known or f"it starts with {start[:12]!r}: expected {NAMES}"
        raise ValueError(f"not an image, {'but ' if known else ''}{found}")
    if not found.can_be_read:
        raise ValueError(f"{found.name} is not read yet: {found.remedy}")
    return found
