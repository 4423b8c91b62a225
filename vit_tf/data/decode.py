"""The bytes of an image file to an RGB picture; whatever is wrong with them is a one-line ValueError."""

import io

from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vit_tf.data.cifar10 import _one_line, _require
from vit_tf.preprocessing.images import rgb

MAX_MEGAPIXELS = 200
# The formats' own classes, not Image.open: that one warns from 90 megapixels on, by a limit and by warning
# filters that all threads share, and it would start Ghostscript for a file that is none of these. (TIFF alone
# looks at that limit itself: it warns from 90 megapixels on and refuses 179.)
_FORMATS = (
    (b"\xff\xd8\xff", JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
    (b"RIFF", WebPImageFile),
    (b"GIF8", GifImageFile),
    (b"BM", BmpImageFile),
    (b"II*\0", TiffImageFile),
    (b"MM\0*", TiffImageFile),
)


def decode(data, name=""):
    """Decodes an image file: JPEG, PNG, WebP, GIF, BMP or TIFF, told by its content.

    Gray, palette, CMYK and 16-bit pictures become RGB, transparency is dropped, the EXIF rotation is
    applied, and of several frames or pages it is the first. Threads may call it at the same time.

    Args:
        data: the bytes of the file.
        name: what messages call the file.

    Returns:
        A `PIL.Image.Image` of mode RGB, wholly in memory: 4 bytes a pixel.

    Raises:
        ValueError: one line, for what is none of these formats, is truncated or damaged, or has more than
            200 megapixels; the latter is told by the header, before memory is taken.
    """
    try:
        return rgb(_open(data))
    except Exception as error:  # Pillow's decoders raise nearly everything
        problem = _one_line(error)
    raise ValueError(f"{name!r}: {problem}" if name else problem)


def _open(data):
    _require(data, "the file is empty: copy it again")
    opens = next((opens for signature, opens in _FORMATS if data.startswith(signature)), None)
    found = f"not an image, it starts with {bytes(data[:12])!r}"
    _require(opens, f"{found}: expected JPEG, PNG, WebP, GIF, BMP or TIFF")
    picture = opens(io.BytesIO(data))
    width, height = picture.size
    is_small = width * height <= MAX_MEGAPIXELS * 1_000_000
    _require(
        is_small, f"{width}x{height} pixels: expected at most {MAX_MEGAPIXELS} megapixels, scale it down"
    )
    return picture
