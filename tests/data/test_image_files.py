"""One's own images: data sets good and bad are made in a temporary folder."""

import io
import os
import pickle
import re
import signal
import stat
import struct
import sys
import threading
import time
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vit_tf.data import ImageFiles, check_images, find_images, image_files
from vit_tf.data import directories as folders
from vit_tf.data import directory_layout as layouts
from vit_tf.data import zip_archive as archives
from vit_tf.preprocessing import image_formats as formats
from vit_tf.preprocessing.decode import decode

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(picture, format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


JPEG = encoded(Image.fromarray(PIXELS), "JPEG", quality=95)
PNG = encoded(Image.fromarray(PIXELS))
LAYOUTS = {
    "folders": ["cat/1.jpg", "cat/old/2.JPG", "dog/3.png", "dog/a b.webp"],
    "flat": ["cat.1.jpg", "cat.12.jpg", "dog.7.jpg", "dog.8.jpeg"],
}


def write(root, names, data=JPEG):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def write_zip(path, names, data=JPEG, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name in names:
            archive.writestr(name, data)
    return path


def table(files):
    """{name: (class, split)}: what a data set was understood to be."""
    return {
        name: (files.class_names[label], split)
        for name, label, split in zip(files.names, files.labels, files.splits)
    }


def classes(files):
    return {name: label for name, (label, _) in table(files).items()}


# ---------------------------------------------------------------- decode


@pytest.mark.parametrize("format", ["PNG", "WEBP", "BMP", "TIFF", "JPEG"])
def test_decode_gives_the_pixels(format):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    picture = decode(encoded(Image.fromarray(PIXELS), format, **options))
    assert (picture.mode, picture.size) == ("RGB", (9, 6))
    # A JPEG of quality 100 rounds its coefficients and its two colour conversions.
    np.testing.assert_allclose(np.asarray(picture).astype(int), PIXELS, atol=4 if format == "JPEG" else 0)


def test_decode_turns_every_mode_into_rgb():
    gray = PIXELS[..., 0]
    stacked = np.repeat(gray[..., None], 3, axis=-1)
    cases = {
        "gray": (encoded(Image.fromarray(gray)), stacked),
        "1-bit": (encoded(Image.fromarray(gray > 127)), np.where(stacked > 127, 255, 0)),
        "16-bit": (encoded(Image.fromarray(gray.astype(np.uint16) * 257)), stacked),
        "alpha": (encoded(Image.fromarray(np.dstack([PIXELS, gray]))), PIXELS),
        "palette": (encoded(Image.fromarray(gray).convert("P")), stacked),
    }
    for name, (data, expected) in cases.items():
        picture = decode(data)
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(picture), expected, err_msg=name)
    inks = np.full((8, 8, 4), (255, 0, 0, 0), np.uint8)  # cyan alone
    picture = decode(encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100))
    np.testing.assert_allclose(np.asarray(picture), np.full((8, 8, 3), (0, 255, 255)), atol=3)


def test_decode_takes_the_first_frame():
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(np.asarray(decode(data)), np.full((4, 5, 3), (255, 0, 0)))


@pytest.mark.parametrize(("orientation", "expected"), [(3, PIXELS[::-1, ::-1]), (6, np.rot90(PIXELS, -1))])
def test_decode_applies_the_exif_rotation(orientation, expected):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(np.asarray(decode(encoded(Image.fromarray(PIXELS), exif=exif))), expected)


def test_decode_takes_the_smallest_image():
    picture = decode(encoded(Image.new("RGB", (1, 1), (1, 2, 3))))
    np.testing.assert_array_equal(np.asarray(picture), [[[1, 2, 3]]])


def test_decode_takes_100_megapixels_in_threads_without_a_warning():
    data = encoded(Image.new("1", (10_000, 10_000), 1))
    with ThreadPoolExecutor(1) as pool:  # warnings are errors here
        picture = pool.submit(decode, data).result()
    assert picture.size == (10_000, 10_000)
    assert picture.getpixel((9_999, 9_999)) == (255, 255, 255)


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
        (encoded(Image.fromarray(PIXELS), "WEBP")[:-20], "."),
        (encoded(Image.fromarray(PIXELS), "GIF")[:-20], "truncated"),
        (encoded(Image.fromarray(PIXELS), "BMP")[:-20], "truncated"),
        (encoded(Image.fromarray(PIXELS), "TIFF")[:40], "."),
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


# ---------------------------------------------------------------- find_images: layouts of folders and zips


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["folder", "zip", "wrapped zip", "wrapped folder"])
def test_finds_classes(tmp_path, layout, kind):
    wrapper = "my data/inner/" if "wrapped" in kind else ""
    names = [wrapper + name for name in LAYOUTS[layout]]
    junk = ["__MACOSX/cat/._1.jpg", ".git/x.jpg", "cat/.2.jpg", "cat/Thumbs.db", "readme.txt"]
    names += [wrapper + name for name in junk]
    folder = "folder" in kind
    source = write(tmp_path / "set", names) if folder else write_zip(tmp_path / "set.zip", names)
    files = find_images(source)
    assert classes(files) == {wrapper + name: name[:3] for name in LAYOUTS[layout]}
    assert files.class_names == ("cat", "dog") and files.splits == (None,) * 4
    assert files.root == source and list(files.names) == sorted(files.names)
    assert files.labels.dtype == np.int64 and len(files) == 4
    assert files.read(0) == JPEG
    if layout == "folders":
        assert files.notes == ("files left out, no images that can be read: 1 .txt",)


SPLIT_NAMES = [("train", "val", "test"), ("Training", "VALID", "testing"), ("train", "dev", "Test")]


@pytest.mark.parametrize("folders", SPLIT_NAMES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_finds_splits(tmp_path, folders, layout):
    names = [f"wrapper/{folder}/{name}" for folder in folders for name in LAYOUTS[layout]]
    files = find_images(write_zip(tmp_path / "a.zip", names))
    split_of = dict(zip(folders, ("train", "validation", "test")))
    assert table(files) == {name: (name.split("/")[2][:3], split_of[name.split("/")[1]]) for name in names}


WORDY_SPLITS = [
    {"training_set": "train", "test_set": "test"},
    {"seg_train/seg_train": "train", "seg_test/seg_test": "test"},
    {"Train_Images": "train", "val-images": "validation", "test images": "test"},
    {"dataset.train": "train", "dataset.dev": "validation"},
    {"train": "train", "test_set": "test"},
    {"train": "train", "test1": "test"},
]


@pytest.mark.parametrize("folders", WORDY_SPLITS, ids=" ".join)
@pytest.mark.parametrize("wrapper", ["", "archive/"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_split_folders_under_other_names(tmp_path, folders, wrapper, kind):
    expected = {
        f"{wrapper}{folder}/{label}/{i}.jpg": (label, split)
        for folder, split in folders.items()
        for label in ("cats", "dogs")
        for i in range(2)
    }
    unlabelled = [f"{wrapper}seg_pred/seg_pred/{i}.jpg" for i in range(3)] if "seg" in str(folders) else []
    names = [*expected, *unlabelled]
    files = find_images(write(tmp_path, names) if kind == "folder" else write_zip(tmp_path / "a.zip", names))
    assert table(files) == expected
    said = [f"the folder {f.split('/')[0]!r} is taken for {s}" for f, s in folders.items() if f != "train"]
    assert sorted(files.notes[: len(said)]) == sorted(said)
    assert len(files.notes) == len(said) + bool(unlabelled)


def test_a_split_may_lack_classes(tmp_path):
    names = ["training_set/cats/1.jpg", "training_set/dogs/1.jpg", "test_set/cats/2.jpg"]
    assert find_images(write(tmp_path, names)).splits == ("test", "train", "train")


@pytest.mark.parametrize(
    "folders", [["fold1", "fold2", "fold10"], ["part-1", "part-2"], ["test_a", "test_b"], ["Set 1", "Set 2"]]
)
def test_folders_that_may_be_parts_are_asked_about(tmp_path, folders):
    write(tmp_path, [f"{folder}/{label}/1.jpg" for folder in folders for label in ("cats", "dogs")])
    with pytest.raises(ValueError, match="all hold the folders 'cats', 'dogs', which are classes or"):
        find_images(tmp_path)


def test_classes_that_hold_the_same_folders_are_noted(tmp_path):
    files = find_images(write(tmp_path, [f"{a}/{b}/1.jpg" for a in ("owl", "cat") for b in ("in", "out")]))
    note = "the folders 'cat', 'owl' all hold the folders 'in', 'out', and are taken for the classes"
    assert files.class_names == ("cat", "owl") and files.notes == (note,)


@pytest.mark.parametrize("folders", [["train_station", "bus"], ["train_a", "train_b"], ["batch1", "x"]])
def test_classes_may_have_the_words_of_splits(tmp_path, folders):
    files = find_images(write(tmp_path, [f"{folder}/{i}.jpg" for folder in folders for i in range(2)]))
    assert set(files.class_names) == set(folders) and files.splits == (None,) * 4


SIMILAR_CLASSES = {
    "case": ["Cat", "cat"],
    "blank": ["cat", "cat "],
    "blanks": ["red fox", "red  fox"],
    "encoding": ["caf\u00e9", "cafe\u0301"],
    "compatibility": ["\ufb01sh", "fish"],
    "three": ["CAT", "Cat", "cat "],
}


@pytest.mark.parametrize("names", SIMILAR_CLASSES.values(), ids=SIMILAR_CLASSES)
def test_classes_that_look_alike_are_noted(tmp_path, names):
    files = find_images(write_zip(tmp_path / "a.zip", [f"{name}/1.jpg" for name in [*names, "owl"]]))
    (note,) = files.notes
    assert note.startswith("classes that differ by case, blanks or encoding alone: ")
    assert note.count("(1 images)") == len(names)
    shown_names = re.findall(r"('.*?') \(", note)
    assert len(set(shown_names)) == len(names) and {eval(name) for name in shown_names} == set(names)
    assert note.isascii() == (names[0] != "\ufb01sh")


def test_unequal_classes_are_noted(tmp_path):
    for count, is_noted in ((99, False), (100, True)):
        names = [*(f"cat/{i}.jpg" for i in range(count)), "owl/1.jpg"]
        notes = find_images(write_zip(tmp_path / f"{count}.zip", names, b"")).notes
        assert notes == (("unequal classes: 'cat' has 100 images, 'owl' has 1",) if is_noted else ())


def test_splits_may_have_their_own_layouts_and_one_class(tmp_path):
    names = ["train/cat/1.jpg", "train/dog/1.jpg", "val/dog.1.jpg", "val/cat.1.jpg", "test/cat/9.jpg"]
    assert table(find_images(write(tmp_path, names))) == {
        "train/cat/1.jpg": ("cat", "train"),
        "train/dog/1.jpg": ("dog", "train"),
        "val/dog.1.jpg": ("dog", "validation"),
        "val/cat.1.jpg": ("cat", "validation"),
        "test/cat/9.jpg": ("cat", "test"),
    }


@pytest.mark.parametrize("test", ["test", "test1", "testing/unknown"])
def test_a_test_folder_without_labels_is_left_out(tmp_path, test):
    write(tmp_path, [f"train/{name}" for name in LAYOUTS["flat"]] + [f"{test}/{i}.jpg" for i in range(3)])
    files = find_images(tmp_path)
    assert set(files.splits) == {"train"} and len(files) == 4
    first = f"{test}/0.jpg"
    (note,) = files.notes
    assert note.startswith(f"3 images lie in no class, left out: {first!r}")


def test_classes_may_be_called_like_splits(tmp_path):
    files = find_images(write(tmp_path, ["bus/1.jpg", "car/1.jpg", "train/1.jpg", "train/2.jpg"]))
    assert files.class_names == ("bus", "car", "train") and files.splits == (None,) * 4


def test_what_has_no_class_is_left_out_with_a_note(tmp_path):
    write(tmp_path, ["cat/1.jpg", "dog/1.jpg", "stray.jpg", "notes/a.txt"])
    (tmp_path / "empty" / "inside").mkdir(parents=True)
    files = find_images(tmp_path)
    assert files.names == ("cat/1.jpg", "dog/1.jpg") and files.class_names == ("cat", "dog")
    assert files.notes == (
        "files left out, no images that can be read: 1 .txt",
        "1 images lie in no class, left out: 'stray.jpg'",
        "no image in the folder 'empty', 'notes', left out",
    )


def test_flat_files_need_a_number(tmp_path):
    files = find_images(write(tmp_path, ["cat.1.jpg", "dog.2.jpg", "cat.jpg", "dog.new.jpg"]))
    assert files.names == ("cat.1.jpg", "dog.2.jpg")


def test_class_names_are_in_natural_order(tmp_path):
    folders = ["c10", "c9", "c09", "C1", "b", "ä", "c"]
    files = find_images(write(tmp_path, [f"{folder}/1.jpg" for folder in folders]))
    assert files.class_names == ("C1", "b", "c", "c09", "c9", "c10", "ä")
    digits = "9" * 5000  # more than int() takes
    assert sorted([digits, "1" + "0" * 5000], key=layouts.natural_key)[0] == digits


def test_names_of_every_kind(tmp_path):
    odd = os.fsdecode(b"caf\xe9.jpg")  # Latin-1, not UTF-8
    names = ["кошка/my photo.jpg", "кошка/" + odd, "狗/1'\"\n.jpg"]
    files = find_images(write(tmp_path, names))
    assert classes(files) == {name: name.split("/")[0] for name in names}
    assert [files.read(i) for i in range(3)] == [JPEG] * 3
    (tmp_path / "кошка" / odd).write_bytes(b"words")
    with pytest.raises(ValueError) as error:
        check_images(files, progress=False)
    str(error.value).encode()  # so that it can be printed
    files = find_images(write_zip(tmp_path / "a.zip", [names[0], names[2]]))
    assert files.names == (names[0], names[2]) and files.read(1) == JPEG


def test_symbolic_links(tmp_path):
    root = write(tmp_path / "set", ["cat/1.jpg", "dog/deep/1.jpg"])
    elsewhere = write(tmp_path / "elsewhere", ["1.jpg", "deeper/2.jpg"])
    links = {
        "cat/loop": "..",
        "cat/self": ".",
        "dog/up": tmp_path,  # the root lies in it
        "a_twin": "dog",  # sorted first, but the real folder counts
        "dog/linked.jpg": "../cat/1.jpg",
        "dog/gone.jpg": "nowhere",
        "dog/itself.txt": "itself.txt",
        "owl": elsewhere / "deeper",
        "zwl": elsewhere,
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    (elsewhere / "deeper" / "back").symlink_to(".")
    os.mkfifo(root / "cat" / "pipe.jpg")  # reading it would wait forever
    names = ["cat/1.jpg", "dog/deep/1.jpg", "dog/gone.jpg", "dog/linked.jpg", "owl/2.jpg", "zwl/1.jpg"]
    os.mkfifo(tmp_path / "pipe")
    (root / "cat" / "linked pipe.jpg").symlink_to("../../pipe")
    (root / "owl.jpg").symlink_to("/dev/zero")
    files = find_images(root)
    assert classes(files) == {name: name[:3] for name in names}
    assert files.notes == (
        "files left out, no images that can be read: 1 .txt",
        "3 left out, no regular files: 'cat/linked pipe.jpg', 'cat/pipe.jpg', 'owl.jpg'",
    )
    good, bad = check_images(files, max_bad=0.5, progress=False)
    assert bad == [("dog/gone.jpg", "No such file or directory")] and len(good) == 5


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([], "no images, it holds nothing: expected a folder a class"),
        (
            ["a.txt", "b/c.jxl"],
            "no images, it holds 'a.txt', 'b/c.jxl'; .*: 1 .txt, 1 .jxl: expected",
        ),
        (["cat/1.jpg", "cat/2.jpg"], "fewer than two classes in 2 images; 2 images lie in no class"),
        (["1.jpg", "IMG_2.jpg"], "fewer than two classes in 2 images"),
        (["cat.1.jpg", "cat.2.jpg"], "fewer than two classes"),
        (["cat/1.jpg", "dog/readme.txt"], "fewer than two classes .* no image in the folder 'dog', left out"),
        (["val/cat/1.jpg", "val/dog/1.jpg"], "no training images by class in the folders 'val'"),
        (["train/1.jpg", "test/2.jpg"], "no training images by class in the folders 't"),
        (["train/cat/1.jpg", "train/dog/1.jpg", "more/1.jpg"], "beside 'more': move 'more' elsewhere"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_refuses_layout(tmp_path, names, match, kind):
    source = tmp_path / "set"
    source.mkdir()
    source = write(source, names) if kind == "folder" else write_zip(tmp_path / "set.zip", names)
    with pytest.raises(ValueError, match=f"^{str(source)!r}: .*{match}") as error:
        find_images(source)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("pictuers", None, "no such path: did you mean 'pictures'"),
        ("zzz", None, "no such path: expected a folder, a .zip or a .csv"),
        ("a.zip", b"PK words", "damaged or incomplete zip"),
        ("a.tar.gz", b"words", "unknown kind: expected a folder, a .zip or a .csv"),
    ],
)
def test_refuses_path(tmp_path, name, data, match):
    (tmp_path / "pictures").mkdir()
    if data:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=match):
        find_images(tmp_path / name)


@pytest.mark.parametrize("source", [None, "", 3])
def test_refuses_what_is_no_path(source):
    with pytest.raises(ValueError, match="source is .*: expected a folder"):
        find_images(source)


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(folders.os, "scandir", refuse)
    with pytest.raises(ValueError, match=f"{str(tmp_path)!r}.* may not be read: make it readable"):
        find_images(tmp_path)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    files = find_images(write(tmp_path, LAYOUTS["folders"]))
    monkeypatch.setattr(folders, "MAX_IMAGE_BYTES", len(JPEG) - 1)
    with pytest.raises(ValueError, match="the file has .* bytes: at most"):
        files.read(0)


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("package_is_there", [True, False])
def test_what_is_left_out_is_counted_by_ending(tmp_path, monkeypatch, kind, package_is_there):
    monkeypatch.setattr(formats, "find_spec", lambda module: package_is_there or None)
    formats.readable_endings.cache_clear()
    images = ["cat/1.jpg", "dog/2.avif", "dog/3.jp2", "dog/4.MPO", "dog/5.ppm"]
    bare = ["cat/IMG_17", "dog/photo.jpg_large", "dog/9.2", "cat/no. 5"]
    phone = [f"cat/{i}.HEIC" for i in range(3)]
    others = ["cat/a.cr2", "dog/b.CR2", "dog/c.jxl"]
    source = write(tmp_path / "set", images + bare + phone + others)
    write(source, ["cat/LICENSE", "dog/v1.0"], b"words")
    if kind == "zip":
        names = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
        with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
            for name in names:
                archive.write(source / name, str(name))
        source = tmp_path / "set.zip"
    try:
        files = find_images(source)
    finally:
        formats.readable_endings.cache_clear()
    assert set(files.names) == {*images, *bare, *(phone if package_is_there else [])}
    left_out = "2 .cr2, 2 without an ending, 1 .jxl"
    if not package_is_there:
        left_out = "3 .heic (pip install 'vit_tf[heif]' reads them), " + left_out
    (note,) = files.notes
    start, _, counts = note.partition(": ")
    assert start == "files left out, no images that can be read"
    assert sorted(counts.split(", ")) == sorted(left_out.split(", "))


def test_a_file_without_an_ending_in_a_zip_is_never_unpacked_without_a_bound(tmp_path):
    path = write_zip(tmp_path / "a.zip", LAYOUTS["folders"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/bare", JPEG, zipfile.ZIP_BZIP2)
    assert find_images(path).notes == ("files left out, no images that can be read: 1 without an ending",)


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "/dev/random"])
def test_the_data_set_itself_is_a_regular_file_or_folder(tmp_path, target):
    os.mkfifo(tmp_path / "pipe")
    source = tmp_path / "set.zip"
    source.symlink_to(target if target.startswith("/") else tmp_path / target)
    with pytest.raises(ValueError, match="set.zip': a .*: expected a regular file"):
        find_images(source)


# ---------------------------------------------------------------- hostile zips


def member(name, mode=0o100644):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ("../../evil.jpg", "the member '../../evil.jpg' leads out of the zip"),
        ("cat/../../evil.txt", "leads out of the zip"),
        ("/abs.jpg", "the member '/abs.jpg' leads out of the zip"),
        ("..\\evil.jpg", "leads out of the zip"),
        ("C:\\evil.jpg", "leads out of the zip"),
        ("cat/" * 101 + "1.jpg", "lies 101 folders deep: expected 100 at most"),
        (member("cat/link.jpg", stat.S_IFLNK | 0o777), "is a symbolic link"),
        (member("owl", stat.S_IFLNK | 0o777), "the member 'owl' is a symbolic link"),
        ("cat\\1.jpg", r"the member 'cat\\\\1.jpg' is twice in the zip"),
    ],
)
def test_refuses_zip_that_escapes(tmp_path, bad, match):
    path = write_zip(tmp_path / "a.zip", [*LAYOUTS["folders"], bad])
    with pytest.raises(ValueError, match=match):
        find_images(path)
    assert sorted(os.listdir(tmp_path)) == ["a.zip"]


def test_backslashes_part_the_path_in_a_zip(tmp_path):
    files = find_images(write_zip(tmp_path / "a.zip", ["cat\\1.jpg", "./dog/2.jpg"]))
    assert classes(files) == {"cat/1.jpg": "cat", "dog/2.jpg": "dog"}
    assert files.read(0) == files.read(1) == JPEG


def test_refuses_zip_bombs(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", LAYOUTS["folders"], bytes(20_000), compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 19_999)
    with pytest.raises(ValueError, match="unpacks to 20,000 bytes: at most 19,999"):
        find_images(path)
    monkeypatch.setattr(archives, "MAX_IMAGE_BYTES", 20_000)
    assert find_images(path).read(0) == bytes(20_000)
    monkeypatch.setattr(archives, "_BOMB_RATIO", 10)
    monkeypatch.setattr(archives, "_BOMB_BYTES", 79_999)
    with pytest.raises(
        ValueError, match="unpack to 80,000 bytes, over 10 times its size: this is a zip bomb"
    ):
        find_images(path)


def test_a_member_never_yields_more_than_it_claims(tmp_path):
    names, size = LAYOUTS["flat"], 20 << 20
    path = write_zip(tmp_path / "a.zip", names, bytes(size), compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 100)))
    files = find_images(path)
    tracemalloc.start()
    with pytest.raises(ValueError, match="damaged in the zip .*CRC"):
        files.read(0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_refuses_methods_without_a_bound(tmp_path, compression):
    path = write_zip(tmp_path / "a.zip", LAYOUTS["folders"], compression=compression)
    with pytest.raises(ValueError, match="is packed by method .*: use deflate"):
        find_images(path)


def test_refuses_encrypted_and_damaged_zips(tmp_path):
    path = write_zip(tmp_path / "a.zip", LAYOUTS["folders"])
    data = path.read_bytes()
    start = data.index(b"PK\1\2")
    path.write_bytes(data[: start + 8] + b"\1" + data[start + 9 :])
    with pytest.raises(ValueError, match="'cat/1.jpg' is encrypted: make the zip without"):
        find_images(path)
    path.write_bytes(data[:start] + b"XX" + data[start + 2 :])
    with pytest.raises(ValueError, match="damaged zip"):
        find_images(path)
    path.write_bytes(data.replace(JPEG, bytes(len(JPEG)), 1))
    files = find_images(path)
    with pytest.raises(ValueError, match="damaged in the zip"):
        files.read(0)
    good, bad = check_images(files, max_bad=0.25, progress=False)
    assert good.names == files.names[1:] and bad[0][0] == "cat/1.jpg" and "damaged in the zip" in bad[0][1]


def read_all(files):
    return [files.read(i) for i in range(len(files))]


def test_a_zip_is_read_by_threads_and_processes(tmp_path):
    path, expected = tmp_path / "a.zip", []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(60):
            expected.append(RNG.bytes(3000 + i))
            with archive.open(f"class{i % 2}/{i:02}.jpg", "w", force_zip64=True) as file:
                file.write(expected[-1])
    files = find_images(path)
    expected = expected[::2] + expected[1::2]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that threads meet inside of zipfile
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(read_all, [files] * 16)) == [expected] * 16
    finally:
        sys.setswitchinterval(interval)
    assert read_all(pickle.loads(pickle.dumps(files))) == expected
    constructed = ImageFiles(path, files.class_names, files.names, files.labels, files.splits)
    assert read_all(constructed) == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")  # of a fork with threads
def test_a_forked_process_opens_the_zip_anew(tmp_path):
    files = find_images(write_zip(tmp_path / "a.zip", LAYOUTS["folders"]))
    parents, _ = files.reader.__self__._archive()
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        try:
            is_own = files.reader.__self__._archive()[0] is not parents and files.read(0) == JPEG
            os.write(write_end, b"y" if is_own else b"n")
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        assert file.read() == b"y"
    os.waitpid(child, 0)


# ---------------------------------------------------------------- CSV files


def write_csv(folder, text, encoding="utf-8"):
    write(folder, LAYOUTS["folders"])
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding, "surrogateescape"))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label\ncat/1.jpg,b\ndog/3.png,a\n", "utf-8"),
        ("\r\nImage , Target\r\n./cat/1.jpg, b\r\n\r\ndog\\3.png,a", "utf-8-sig"),
        ("cat/1.jpg;b\ndog/3.png;a\ncat/1.jpg;b\n", "utf-8"),
        ("id\tclass_name\tlabel\tfilename\n7\tb\t0\tcat/1.jpg\n8\ta\t1\tdog/../dog/3.png\n", "utf-8"),
        ('file,class\n"cat/1.jpg","b"\n"dog/3.png",a\n', "utf-8-sig"),
    ],
)
def test_finds_images_of_a_csv(tmp_path, text, encoding):
    files = find_images(write_csv(tmp_path, text, encoding))
    assert table(files) == {"cat/1.jpg": ("b", None), "dog/3.png": ("a", None)}
    assert files.class_names == ("a", "b") and files.read(0) == JPEG


def test_a_csv_may_hold_splits_and_odd_names(tmp_path):
    odd = os.fsdecode(b"caf\xe9, \xff.jpg")
    write(tmp_path / "elsewhere", [odd])
    rows = f'split,path,label\nVal,cat/1.jpg,кот\n,dog/3.png,狗\ntraining,"../elsewhere/{odd}",狗\n'
    files = find_images(write_csv(tmp_path / "set", rows))
    expected = {"cat/1.jpg": ("кот", "validation"), "dog/3.png": ("狗", None)}
    assert table(files) == {f"../elsewhere/{odd}": ("狗", "train"), **expected}
    assert read_all(files) == [JPEG] * 3


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "it has no lines: expected a column such as path"),
        ("path,label\n", "no images: expected images of two classes"),
        ("path,label\ncat/1.jpg,a\n", "only the class 'a': expected images of two"),
        ("path\ncat/1.jpg\n", "its first line is 'path': expected a column such as path"),
        ("a,b,c\ncat/1.jpg,a,0\n", "which column is the label, 'b', 'c'. call it 'label'"),
        ("path,label\ncat/7.jpg,a\ndog/8.jpg,b\n", "2 of its files do not exist: 'cat/7.jpg', 'dog/8.jpg'"),
        ("path,label\ncat/1.jpg\n", "line 2 has 1 columns, fewer than the header"),
        ("path,label\ncat/1.jpg,\n", "line 2 has no label"),
        ("path,label\n,a\n", "line 2 has no path"),
        (
            "path,label\ncat/1.jpg,a\ndog/3.png,a\n./cat/1.jpg,b\n",
            "is 'a' first and 'b' in line 4",
        ),
        (
            "path,label,split\ncat/1.jpg,a,\ncat/1.jpg,a,val\n",
            "and 'a' in 'validation' in line 3",
        ),
        ("path,label,split\ncat/1.jpg,a,later\n", "line 2 has the split 'later': expected train"),
        ('path,label\n"cat/1.jpg,a\n', r"line \d is no CSV .*: mend its quotes"),
        ("path,label\ncat/1.jpg,\0\n", "not a table of text"),
        ("path,label\ncat/" + "1" * 300 + ".jpg,a\n", "1 of its files do not exist"),
        ("path,label\n" + "1" * 200_000 + ".jpg,a\n", "is no CSV"),
    ],
)
def test_refuses_csv(tmp_path, text, match):
    path = write_csv(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(repr(str(path)))}: .*{match}") as error:
        find_images(path)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- ImageFiles


@pytest.fixture
def six(tmp_path):
    names = [f"{label}/{i}.jpg" for label in ("cat", "dog") for i in range(3)]
    return find_images(write(tmp_path, names))


def test_subset(six):
    some = six.subset([4, 0])
    assert some.names == ("cat/0.jpg", "dog/1.jpg") and some.labels.tolist() == [0, 1]
    assert some.class_names == six.class_names and some.splits == (None, None)
    assert six.subset(six.labels == 1).names == six.names[3:]
    assert len(six.subset([])) == 0 and len(six.subset(np.zeros(6, bool))) == 0


def test_multi_label(six):
    assert not six.is_multi_label and not six.subset([]).is_multi_label
    labels = np.random.default_rng(0).random((6, 2)) < 0.5
    files = replace(six, labels=labels)
    assert files.is_multi_label and files.labels.dtype == bool
    np.testing.assert_array_equal(files.subset([4, 1]).labels, labels[[1, 4]])
    assert files.subset([]).labels.shape == (0, 2) and files.subset([]).is_multi_label


def test_label_sets_are_encoded_as_columns():
    class_names, labels = layouts.encode_labels([("b10", "b9"), (), ("a",)])
    assert class_names == ("a", "b9", "b10") and labels.dtype == bool
    assert labels.tolist() == [[False, True, True], [False] * 3, [True, False, False]]


@pytest.mark.parametrize(
    ("indices", "match"),
    [
        ([0, 6], r"indices reach from \[0\] to \[6\]: expected 0 to 5"),
        ([-1], "expected 0 to 5"),
        ([0.5], "indices are float64: expected integers"),
        (np.ones(5, bool), r"the mask has shape \(5,\): expected \[6\]"),
    ],
)
def test_subset_refuses(six, indices, match):
    with pytest.raises(ValueError, match=match):
        six.subset(indices)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": [0]}, r"number \(2, 1, 2\): expected one each a file"),
        ({"labels": [0, 2]}, "labels are 0 to 2: expected 0 to 1"),
        ({"labels": [-1, 0]}, "labels are -1 to 0: expected 0 to 1"),
        ({"labels": [0.0, 1.0]}, "labels are float64: expected integers"),
        ({"labels": [True, False]}, "labels are bool: expected integers"),
        ({"labels": [[True], [False]]}, r"labels are bool of shape \(2, 1\): expected 2 columns"),
        ({"labels": [[True, False]]}, r"number \(2, 1, 2\): expected one each a file"),
        ({"splits": ["train", "val"]}, "unknown splits 'val': expected train, validation, test or None"),
    ],
)
def test_image_files_refuse(tmp_path, changes, match):
    fields = dict(root=tmp_path, class_names=("a", "b"), names=("1", "2"), labels=[0, 1], splits=(None, None))
    with pytest.raises(ValueError, match=match):
        ImageFiles(**fields | changes)


# ---------------------------------------------------------------- check_images


def test_check_images_leaves_the_bad_out(six, tmp_path, capfd):
    (tmp_path / "cat/1.jpg").write_bytes(b"words")
    (tmp_path / "dog/2.jpg").write_bytes(JPEG[:-40])
    good, bad = check_images(six, max_bad=1 / 3)
    assert good.names == ("cat/0.jpg", "cat/2.jpg", "dog/0.jpg", "dog/1.jpg")
    assert good.labels.tolist() == [0, 0, 1, 1]
    assert [name for name, _ in bad] == ["cat/1.jpg", "dog/2.jpg"]
    assert "not an image" in bad[0][1] and "truncated" in bad[1][1]
    assert capfd.readouterr().out == ""


def test_check_images_refuses_too_many_bad(six, tmp_path):
    for i in range(3):
        (tmp_path / f"cat/{i}.jpg").write_bytes(b"words")
        (tmp_path / f"dog/{i}.jpg").unlink()
    match = r"6 of 6 images cannot be read, more than 1.00%: 'cat/0.jpg': not an image.*'dog/1.jpg': No such"
    with pytest.raises(ValueError, match=match + ".*by --max-bad 1$") as error:
        check_images(six, progress=False)
    assert "dog/2" not in str(error.value)  # the first five
    assert check_images(six, max_bad=1, progress=False)[0].names == ()


def test_check_images_allows_the_share_itself(six, tmp_path):
    (tmp_path / "cat/1.jpg").write_bytes(b"words")
    assert len(check_images(six, 1 / 6, progress=False)[0]) == 5
    with pytest.raises(ValueError, match="1 of 6 images .* more than 16.00%.*--max-bad 0.167$"):
        check_images(six, 0.16, progress=False)


def test_check_images_notes_copies(tmp_path):
    groups = {
        "train/cat/1.jpg train/dog/1.jpg": "with different labels",
        "train/cat/2.jpg val/cat/2.jpg": "in different splits",
        "train/cat/3.jpg train/cat/4.jpg": "with the same label",
        "train/dog/5.jpg": None,
        "val/dog/6.jpg": None,
    }
    for i, names in enumerate(groups):
        write(tmp_path, names.split(), encoded(Image.new("RGB", (4, 4), (i, 0, 0))))
    write(tmp_path, ["train/dog/7.jpg", "train/dog/8.jpg"], b"words")  # bad ones do not count
    files = replace(find_images(tmp_path), notes=("an earlier note",))
    good, _ = check_images(files, max_bad=0.5, progress=False)
    assert good.notes[0] == "an earlier note" and len(good.notes) == 4
    for (names, where), note in zip(groups.items(), good.notes[1:]):
        first, second = names.split()
        assert note.startswith(f"1 image is there several times {where}")
        assert note.endswith(f"such as {first!r} and {second!r}")


@pytest.mark.parametrize("max_bad", [-0.1, 1.1, "0.1", None, float("nan")])
def test_check_images_refuses_max_bad(six, max_bad):
    with pytest.raises(ValueError, match="max_bad is .*: expected a share from 0 to 1"):
        check_images(six, max_bad, progress=False)


def test_check_images_is_interrupted_at_once(six, monkeypatch):
    release, started = threading.Event(), []

    def interrupt_and_hang(data):
        if not started:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        started.append(data)
        release.wait(30)

    files = [six.root, six.class_names, six.names[:1] * 300, [0] * 300, [None] * 300]
    monkeypatch.setattr(image_files, "decode", interrupt_and_hang)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            check_images(ImageFiles(*files))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert time.monotonic() - start < 15
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor") and thread.is_alive():
            thread.join(10)
    assert len(started) <= 16  # those that had begun
