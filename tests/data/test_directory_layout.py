"""Classes and splits of folders and zips are found by their layout."""

import os
import re
import zipfile

import numpy as np
import pytest
from support.image_folders import (
    JPEG,
    LAYOUTS,
    classes,
    table,
    write,
    write_zip,
)

from vit_tf.data import check_images, find_images
from vit_tf.data import directories as folders
from vit_tf.data import directory_layout as layouts
from vit_tf.preprocessing import image_formats as formats


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
        assert files.notes == ("files left out, not readable as images: 1 .txt",)


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
    said = [f"the folder {f.split('/')[0]!r} is used as {s}" for f, s in folders.items() if f != "train"]
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
    with pytest.raises(ValueError, match="all contain the folders 'cats', 'dogs', which are classes or"):
        find_images(tmp_path)


def test_classes_that_hold_the_same_folders_are_noted(tmp_path):
    files = find_images(write(tmp_path, [f"{a}/{b}/1.jpg" for a in ("owl", "cat") for b in ("in", "out")]))
    note = "the folders 'cat', 'owl' all contain the folders 'in', 'out', and are used as the classes"
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
        "files left out, not readable as images: 1 .txt",
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
        "files left out, not readable as images: 1 .txt",
        "3 left out, not regular files: 'cat/linked pipe.jpg', 'cat/pipe.jpg', 'owl.jpg'",
    )
    good, bad = check_images(files, max_bad=0.5, progress=False)
    assert bad == [("dog/gone.jpg", "No such file or directory")] and len(good) == 5


@pytest.mark.parametrize(
    ("names", "match"),
    [
        ([], "it is empty: expected one folder per class"),
        (
            ["a.txt", "b/c.jxl"],
            "it has no images, only 'a.txt', 'b/c.jxl'; .*: 1 .txt, 1 .jxl: expected",
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
        ("pictuers", None, "no such path .did you mean 'pictures'"),
        ("zzz", None, "no such path; expected a folder, a .zip or a .csv"),
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
        left_out = "3 .heic (run pip install 'vit_tf[heif]' to read them), " + left_out
    (note,) = files.notes
    start, _, counts = note.partition(": ")
    assert start == "files left out, not readable as images"
    assert sorted(counts.split(", ")) == sorted(left_out.split(", "))


def test_a_file_without_an_ending_in_a_zip_is_never_unpacked_without_a_bound(tmp_path):
    path = write_zip(tmp_path / "a.zip", LAYOUTS["folders"])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/bare", JPEG, zipfile.ZIP_BZIP2)
    assert find_images(path).notes == ("files left out, not readable as images: 1 without an ending",)


@pytest.mark.parametrize("target", ["pipe", "/dev/zero", "/dev/random"])
def test_the_data_set_itself_is_a_regular_file_or_folder(tmp_path, target):
    os.mkfifo(tmp_path / "pipe")
    source = tmp_path / "set.zip"
    source.symlink_to(target if target.startswith("/") else tmp_path / target)
    with pytest.raises(ValueError, match="set.zip': a .*: expected a regular file"):
        find_images(source)
