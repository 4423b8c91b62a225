"""One reader of images: every format, every way to give a file, and everything that is refused."""

import base64
import io
import os
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.image_folders import JPEG, PIXELS, PNG, to_bytes

from vit_tf.preprocessing import Preprocessing
from vit_tf.preprocessing import image_formats as formats
from vit_tf.preprocessing.decode import decode, read_image
from vit_tf.preprocessing.images import to_pil_images

RNG = np.random.default_rng(7)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((48, 32)))
OPTIONS = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "MPO": {"quality": 100, "subsampling": 0, "save_all": True},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "HEIF": {"quality": -1, "chroma": 444},
}
TOLERANCES = {"JPEG": 4, "MPO": 4, "AVIF": 5, "HEIF": 3, "GIF": 40}  # GIF has 256 colours
KINDS = ["PNG", "BMP", "TIFF", "PPM", "JPEG2000", "WEBP", "GIF", "JPEG", "MPO", "AVIF", "HEIF"]
STACKS = ["GIF", "TIFF", "PNG", "WEBP", "AVIF", "MPO", "HEIF"]


def encoded(image, kind, **options):
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    file = io.BytesIO()
    image.save(file, kind, **OPTIONS.get(kind, {}) | options)
    return file.getvalue()


def ways_to_give(path):
    """All that `Preprocessing` takes of one file."""
    data = path.read_bytes()
    written = io.BytesIO()
    written.write(data)  # stands at its end
    return [path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), written]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_by_every_way(tmp_path, kind):
    path = tmp_path / "no ending"
    path.write_bytes(encoded(Image.fromarray(SMOOTH), kind))
    expected = np.asarray(decode(path.read_bytes()))
    np.testing.assert_allclose(expected.astype(int), SMOOTH, atol=TOLERANCES.get(kind, 0))
    with open(path, "rb") as file:
        columns = np.array([str(path)]), np.array([path], object)
        images = to_pil_images([*ways_to_give(path), file, file, *columns])
    assert len(images) == 11
    for image in images:
        np.testing.assert_array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("kind", STACKS)
def test_the_first_of_several_frames(tmp_path, kind):
    frames = [Image.fromarray(frame) for frame in (SMOOTH, 255 - SMOOTH, SMOOTH // 2)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    (tmp_path / "stack").write_bytes(data)
    for image in (decode(data), *to_pil_images(tmp_path / "stack")):
        np.testing.assert_allclose(np.asarray(image).astype(int), SMOOTH, atol=TOLERANCES.get(kind, 0))


def test_every_ending_has_one_format():
    assert len(set(formats.ENDINGS)) == len(formats.ENDINGS)
    for format in formats.FORMATS:
        assert all(formats.format_of_name(f"A{ending.upper()}") is format for ending in format.endings)
        assert format.can_be_read
    assert formats.readable_endings() == formats.ENDINGS
    assert formats.format_of_name("jpg") is None


REFUSED_FORMATS = {
    "EPS": "an EPS file, which could run programs",
    "PDF": "a PDF: save its page",
    "ICNS": "expected JPEG, PNG",
    "ICO": "expected JPEG, PNG",
    "TGA": "expected JPEG, PNG",
    "PCX": "expected JPEG, PNG",
    "DDS": "expected JPEG, PNG",
    "SGI": "expected JPEG, PNG",
    "XBM": "expected JPEG, PNG",
}


@pytest.mark.parametrize("kind", REFUSED_FORMATS)
def test_what_pillow_could_open_besides_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("subprocess.Popen", None)  # Ghostscript
    path = tmp_path / "photo.jpg"
    image = Image.fromarray(SMOOTH).convert("1" if kind == "XBM" else "RGB")
    image.save(path, kind)
    for images in ways_to_give(path):
        with pytest.raises(ValueError, match=f"not an image, .*{REFUSED_FORMATS[kind]}"):
            Preprocessing(32)(images)


@pytest.mark.parametrize(
    "text, message",
    [
        ("<!DOCTYPE html><html>", "a web page: download the image itself"),
        (' <svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        ("version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"),
        ("RIFF1234WAVEfmt ", "expected JPEG, PNG"),
        ("P7\nWIDTH 3", "expected JPEG, PNG"),
        ("Python", "expected JPEG, PNG"),
    ],
)
def test_what_comes_instead_of_an_image_is_named(text, message):
    with pytest.raises(ValueError, match=f"^not an image, .*{message}"):
        decode(text.encode())


@pytest.mark.parametrize("where", ["bytes", "path"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, where):
    path = tmp_path / "photo.jpg"  # as telephones name them at times
    path.write_bytes(encoded(Image.fromarray(SMOOTH), "HEIF"))
    monkeypatch.setattr(formats, "find_spec", lambda module: None)
    with pytest.raises(
        ValueError, match=r"HEIC files need a package .*: run pip install 'vit_tf\[heif\]' to"
    ):
        read_image(path if where == "path" else path.read_bytes())


@pytest.mark.parametrize(
    "brands, name",
    [
        (b"avifmif1", "AVIF"),
        (b"mif1avif", "AVIF"),
        (b"heicmif1", "HEIC"),
        (b"mif1heic", "HEIC"),
        (b"msf1hevc", "HEIC"),
        (b"isommp42", None),
    ],
)
def test_the_two_formats_in_one_container(brands, name):
    header = (20 + 4).to_bytes(4, "big") + b"ftyp" + brands[:4] + bytes(4) + brands[4:] + bytes(4)
    names = [format.name for format in formats.FORMATS if format.matches(header + b"heicavif")]
    assert names == [name] * (name is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_value_errors_of_one_line(kind):
    data = encoded(Image.fromarray(SMOOTH), kind)
    for damaged in (data[: len(data) // 2], data[:20], data[:12] + bytes(len(data) - 12)):
        try:
            assert decode(damaged, "a.jpg").mode == "RGB"  # some formats have no checksums
        except ValueError as error:
            assert str(error).startswith("'a.jpg': ") and "\n" not in str(error)


URLS = [
    "https://x.org/cat.jpg",
    "http://x.org/cat.jpg",
    "file:///cat.jpg",
    "s3://x/cat.jpg",
    "data:image/png;base64,",
]


@pytest.mark.parametrize("url", URLS)
def test_urls_are_refused_with_a_reason(url):
    for images in (url, Path(url), [url]):
        with pytest.raises(ValueError, match="is a URL, which vit_tf does not download: save the image"):
            Preprocessing(32)(images)


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "/dev/random", "folder"])
def test_only_regular_files_are_read(tmp_path, target):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cat.jpg").symlink_to(target if target.startswith("/") else tmp_path / target)
    with pytest.raises(ValueError, match="cat.jpg': a .*: expected a regular file"):
        Preprocessing(32)(tmp_path / "cat.jpg")


def test_reading_is_bounded(tmp_path, monkeypatch):
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(1 << 40)  # without a block on the disk
    with pytest.raises(ValueError, match="a.jpg': the file has 1,099,511,627,776 bytes: at most"):
        read_image(tmp_path / "a.jpg")
    monkeypatch.setattr(sys.modules[read_image.__module__], "MAX_IMAGE_BYTES", 1000)
    with pytest.raises(ValueError, match="has more than 1,000 bytes"), open("/dev/zero", "rb") as file:
        read_image(file)


BIG = RNG.bytes(2_000_000)


@pytest.mark.parametrize(
    "images",
    [
        BIG,
        io.BytesIO(BIG),
        base64.b64encode(BIG).decode(),
        "data:image/png;base64," + base64.b64encode(BIG).decode(),
        "https://x.org/" + "a" * 2_000_000,
        [BIG.hex()],
        {"image": BIG},
        b"\x89PNG\r\n\x1a\n" + BIG,
        range(0),
        {1: range(10**6), 2: [0] * 10**6},
    ],
    ids=lambda images: type(images).__name__,
)
def test_no_message_repeats_its_input_at_length(images):
    with pytest.raises(ValueError) as caught:
        Preprocessing(32)(images)
    assert len(str(caught.value)) < 600


def test_a_file_open_as_text(tmp_path):
    (tmp_path / "a.jpg").write_text("words")
    with pytest.raises(ValueError, match="open it with mode 'rb'"), open(tmp_path / "a.jpg") as file:
        Preprocessing(32)(file)


@pytest.mark.parametrize(
    "values, message",
    [
        (
            np.array([[-7, 90_000]], "int32"),
            "pixels of 32 bits from -7 to 90000: expected 0 to 255, or 0 to 65535",
        ),
        (np.array([[-7, 90]], "int32"), r"pixels must be in \[0, 255\], got -7 to 90"),
        (np.array([[0, 70_000]], "int32"), "from 0 to 70000"),
        (np.array([[0.25, 1e6]], "float32"), "got 0.25 to 1000000.0: scale them"),
        (np.array([[0.25, 0.75]], "float32"), "floats up to 0.75: multiply them by 255"),
        (np.array([[0, np.nan]], "float32"), "nan"),
    ],
)
def test_a_tiff_of_32_bits_is_told_its_own_values(tmp_path, values, message):
    Image.fromarray(values.repeat(8, 0)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=message):
        Preprocessing(32)(tmp_path / "a.tiff")


def test_overshoot_of_a_resize_is_not_called_normalised():
    edges = np.full((8, 8), 255, "float32")
    edges[:, :4] = 0
    resized = np.asarray(Image.fromarray(edges).resize((20, 20), Image.Resampling.LANCZOS))
    assert resized.min() < 0 and resized.max() > 255
    with pytest.raises(ValueError, match="clip them, as after a bicubic"):
        Preprocessing(16)(resized[..., None])
    with pytest.raises(ValueError, match="look normalised"):
        Preprocessing(16)((resized[..., None] - 127) / 127)
    np.testing.assert_allclose(Preprocessing(16)(resized.clip(0, 255)[..., None]).max(), 1)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF", "JPEG"])
def test_decode_gives_the_pixels(format):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    image = decode(to_bytes(Image.fromarray(PIXELS), format, **options))
    assert (image.mode, image.size) == ("RGB", (9, 6))
    # A JPEG of quality 100 rounds its coefficients and its two colour conversions.
    np.testing.assert_allclose(np.asarray(image).astype(int), PIXELS, atol=4 if format == "JPEG" else 0)


def test_decode_turns_every_mode_into_rgb():
    gray = PIXELS[..., 0]
    stacked = np.repeat(gray[..., None], 3, axis=-1)
    cases = {
        "gray": (to_bytes(Image.fromarray(gray)), stacked),
        "1-bit": (to_bytes(Image.fromarray(gray > 127)), np.where(stacked > 127, 255, 0)),
        "16-bit": (to_bytes(Image.fromarray(gray.astype(np.uint16) * 257)), stacked),
        "alpha": (to_bytes(Image.fromarray(np.dstack([PIXELS, gray]))), PIXELS),
        "palette": (to_bytes(Image.fromarray(gray).convert("P")), stacked),
    }
    for name, (data, expected) in cases.items():
        image = decode(data)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), expected, err_msg=name)
    inks = np.full((8, 8, 4), (255, 0, 0, 0), np.uint8)  # cyan alone
    image = decode(to_bytes(Image.fromarray(inks, "CMYK"), "JPEG", quality=100))
    np.testing.assert_allclose(np.asarray(image), np.full((8, 8, 3), (0, 255, 255)), atol=3)


def test_decode_takes_the_first_frame():
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue")]
    data = to_bytes(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(decode(data)), np.full((4, 5, 3), (255, 0, 0)))


@pytest.mark.parametrize(("orientation", "expected"), [(3, PIXELS[::-1, ::-1]), (6, np.rot90(PIXELS, -1))])
def test_decode_applies_the_exif_rotation(orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(np.asarray(decode(to_bytes(Image.fromarray(PIXELS), exif=exif))), expected)


def test_decode_takes_the_smallest_image():
    image = decode(to_bytes(Image.new("RGB", (1, 1), (1, 2, 3))))
    np.testing.assert_array_equal(np.asarray(image), [[[1, 2, 3]]])


@pytest.mark.slow
def test_decode_takes_100_megapixels_in_threads_without_a_warning():
    data = to_bytes(Image.new("1", (10_000, 10_000), 1))
    with ThreadPoolExecutor(1) as pool:  # warnings are errors here
        image = pool.submit(decode, data).result()
    assert image.size == (10_000, 10_000)
    assert image.getpixel((9_999, 9_999)) == (255, 255, 255)


def png_header(width, height):
    """A PNG that claims a size: its first chunk, IHDR, is right, its pixels are those of PNG."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG[:12] + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "the file is empty"),
        (b"these are words", "not an image, it starts with b'these are wo': expected JPEG, PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (JPEG[: len(JPEG) // 2], "Truncated"),
        (JPEG[:-30], "truncated"),
        (PNG[:60], "truncated"),
        (to_bytes(Image.fromarray(PIXELS), "WEBP")[:-20], "."),
        (to_bytes(Image.fromarray(PIXELS), "GIF")[:-20], "truncated"),
        (to_bytes(Image.fromarray(PIXELS), "BMP")[:-20], "truncated"),
        (to_bytes(Image.fromarray(PIXELS), "TIFF")[:40], "."),
        (b"RIFF\x10\0\0\0WAVEfmt ", "."),
        (png_header(60_000, 60_000), "60000x60000 pixels: expected at most 178 megapixels"),
        (png_header(0, 5), "."),
    ],
)
def test_decode_refuses(data, match):
    with pytest.raises(ValueError, match=rf"^'a b\.jpg': .*{match}") as error:
        decode(data, "a b.jpg")
    assert "\n" not in str(error.value)


def test_decode_needs_no_name():
    with pytest.raises(ValueError, match="^not an image"):
        decode(b"words")
