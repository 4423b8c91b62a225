"""The image formats that all commands and the library read.

Pillow reads about 40 more. Some of them start other programs, such as Ghostscript for EPS.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pkgutil import resolve_name

SIGNATURE_BYTES = 64  # at the beginning of a file: enough to detect its format
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
OTHER_FILES = {  # files that often have an image's name, or are downloaded in place of an image
    b"%!PS": "an EPS file, which could run programs: save it as PNG",
    b"%PDF": "a PDF: save its page as PNG",
    b"<!doctype html": "a web page: download the image itself",
    b"<html": "a web page: download the image itself",
    b"<svg": "an SVG drawing: save it as PNG",
    b"version https://git-lfs": "a Git LFS pointer: fetch the image with `git lfs pull`",
}


@dataclass(frozen=True)
class Format:
    """An image format.

    Args:
        name: the format's name in messages.
        endings: endings of file names, in lower case.
        matches: function from the first bytes of a file to whether the file has this format.
        image_class: "module:name" of the format's subclass of `PIL.Image.Image`.
        extra: the extra of vit_tf that installs the module, or "".
    """

    name: str
    endings: tuple[str, ...]
    matches: Callable[[bytes], bool]
    image_class: str
    extra: str = ""

    @property
    def can_be_read(self):
        return not self.extra or find_spec(self.image_class.partition(":")[0]) is not None

    @property
    def remedy(self):
        """How to install a missing package, or ""."""
        return f"run pip install 'vit_tf[{self.extra}]' to read them" if self.extra else ""

    def open(self, file):
        """Returns an image of Pillow whose pixels are not decoded yet."""
        return resolve_name(self.image_class)(file)


def brands(data):
    """Returns the brands in the first box of an ISO media file, the major brand first; [] for other files."""
    if data[4:8] != b"ftyp":
        return []
    size = int.from_bytes(data[:4], "big")
    return [data[8:12], *(data[i : i + 4] for i in range(16, min(size, len(data)), 4))]


def is_avif(data):
    major, *others = brands(data) or [b""]
    return major in (b"avif", b"avis") or major in (b"mif1", b"msf1") and b"avif" in others


def is_heif(data):
    return not HEIF_BRANDS.isdisjoint(brands(data)) and not is_avif(data)


def is_ppm(data):
    return data[:1] == b"P" and data[1:2] in b"123456fF" and data[2:3].isspace()


def starts_with(*signatures):
    return lambda data: data.startswith(signatures)


pillow = "PIL.{0}ImagePlugin:{0}ImageFile".format
FORMATS = (
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), starts_with(b"\xff\xd8\xff"), pillow("Jpeg")),
    Format("PNG", (".png", ".apng"), starts_with(b"\x89PNG\r\n\x1a\n"), pillow("Png")),
    Format("WebP", (".webp",), lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", pillow("WebP")),
    Format("GIF", (".gif",), starts_with(b"GIF8"), pillow("Gif")),
    Format("BMP", (".bmp", ".dib"), starts_with(b"BM"), pillow("Bmp")),
    Format("TIFF", (".tif", ".tiff"), starts_with(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), pillow("Tiff")),
    Format("AVIF", (".avif", ".avifs"), is_avif, pillow("Avif")),
    Format(
        "JPEG 2000",
        (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
        starts_with(b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
        pillow("Jpeg2K"),
    ),
    Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), is_ppm, pillow("Ppm")),
    Format("HEIC", (".heic", ".heif", ".hif"), is_heif, "pillow_heif:HeifImageFile", extra="heif"),
)
NAMES = " or ".join([", ".join(format.name for format in FORMATS[:-1]), FORMATS[-1].name])
ENDINGS = tuple(ending for format in FORMATS for ending in format.endings)


@cache
def readable_endings():
    """Returns the endings of file names of all formats whose packages are installed."""
    return tuple(ending for format in FORMATS if format.can_be_read for ending in format.endings)


def format_of_name(name):
    """Returns the format that matches the ending of a file's name, or None."""
    return next((format for format in FORMATS if name.lower().endswith(format.endings)), None)


def detect_format(data):
    """Returns the format of an image by its first bytes; a ValueError for any other file."""
    if not data:
        raise ValueError("the file is empty: copy it again")
    start = bytes(data[:SIGNATURE_BYTES])
    format = next((format for format in FORMATS if format.matches(start)), None)
    if format is None:
        text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        for signature, description in OTHER_FILES.items():
            if text.startswith(signature.lower()):
                raise ValueError(f"not an image, but {description}")
        raise ValueError(f"not an image, it starts with {start[:12]!r}: expected {NAMES}")
    if not format.can_be_read:
        raise ValueError(f"{format.name} files need a package that is not installed: {format.remedy}")
    return format
