"""Tars of WebDataset that other programs wrote."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
from support.image_folders import JPEG, PNG, read_all, table

from vit_tf.data import check_images, find_images, split_files, write_split
from vit_tf.data.shards import foreign_tars


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_TF_CHECKS", str(tmp_path / "checks"))


def write_tar(path, members, format=tarfile.GNU_FORMAT):
    """Writes {name: bytes} as a tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def samples(labels, ending="cls", start=0):
    members = {}
    for i, label in enumerate(labels, start):
        members |= {f"{i:05}.jpg": JPEG + bytes([i]), f"{i:05}.{ending}": str(label).encode()}
    return members


def test_splits_and_indices(tmp_path):
    root = tmp_path / "set"
    write_tar(root / "imagenet-train-000000.tar", samples([0, 11]))
    write_tar(root / "imagenet-train-000001.tar", samples([2, 0], start=2))
    write_tar(root / "imagenet-val-000000.tar", samples([2], start=4))
    files = find_images(root)
    assert files.class_names == ("0", "2", "11")
    assert table(files) == {
        "imagenet-train-000000/00000.jpg": ("0", "train"),
        "imagenet-train-000000/00001.jpg": ("11", "train"),
        "imagenet-train-000001/00002.jpg": ("2", "train"),
        "imagenet-train-000001/00003.jpg": ("0", "train"),
        "imagenet-val-000000/00004.jpg": ("2", "validation"),
    }
    assert read_all(files) == [JPEG + bytes([i]) for i in range(5)]
    good, bad = check_images(files, progress=False, cached=True)
    assert len(good) == 5 and bad == []


def test_names_of_classes(tmp_path):
    root = tmp_path / "set"
    write_tar(root / "train/0.tar", samples([1, 0]))
    (root / "classes.txt").write_text("cat\ndog\n")
    assert find_images(root).class_names == ("cat", "dog")
    (root / "classes.txt").write_text("owl\ndog\n")  # the scan that is kept is of other names
    assert find_images(root).class_names == ("dog", "owl")


@pytest.mark.parametrize(
    ("members", "label"),
    [
        ({"cls": b"3"}, "3"),
        ({"cls": b"golden retriever\n"}, "golden retriever"),
        ({"json": b'{"class": "cat", "label": 7}', "cls": b"3"}, "cat"),
        ({"json": b'{"label": 7}', "cls": b"3"}, "3"),
        ({"json": b'{"label": 7}'}, "7"),
        ({"json": b'{"label": true, "labels": ["b", "a"]}'}, ("a", "b")),
        ({"json": b'{"classes": []}'}, ()),
        ({"json": b"[" * 100_000}, None),
        ({"json": b"[1]", "txt": b"cat\n"}, "cat"),
        ({"txt": b"a cat\nand a dog"}, None),
        ({"txt": b"word " * 100}, None),
        ({}, None),
    ],
)
def test_labels(members, label):
    assert foreign_tars.label_of(members, []) == label


def test_images_of_a_sample(tmp_path):
    """The key ends at the first dot of the last part; a mask is no image of its own."""
    members = {
        "./a.b/x.mask.png": PNG,
        "./a.b/x.JPG": JPEG,
        "./a.b/x.cls": b"1",
        "./a.b/y.seg.png": PNG,
        "./a.b/y.json": json.dumps({"label": 0}).encode(),
        "README": b"words",
        "./a.b/z.jpg": JPEG,
        "./a.b/w.cls": b"1",
    }
    write_tar(tmp_path / "set/0.tar", members, tarfile.PAX_FORMAT)
    files = find_images(tmp_path / "set")
    assert table(files) == {"0/a.b/x.jpg": ("1", None), "0/a.b/y.seg.png": ("0", None)}
    assert read_all(files) == [JPEG, PNG]
    assert files.notes == ("1 images have no class, left out: '0/a.b/z.jpg'",)


def test_several_labels(tmp_path):
    labels = [{"labels": ["dog", "cat"]}, {"labels": []}, {"label": "owl"}]
    write_tar(tmp_path / "set/0.tar", samples(map(json.dumps, labels), "json"))
    files = find_images(tmp_path / "set")
    assert files.class_names == ("cat", "dog", "owl")
    np.testing.assert_array_equal(files.labels, [[1, 1, 0], [0, 0, 0], [0, 0, 1]])


def test_images_that_are_not_checked_are_not_read(tmp_path, monkeypatch):
    write_tar(tmp_path / "set/0.tar", samples([0, 1, 0, 1]))
    files = find_images(tmp_path / "set")
    monkeypatch.setattr(type(files.container), "read_at", lambda *_, **__: pytest.fail("an image was read"))
    files, bad = check_images(files, level="none")
    assert not bad
    write_split(split_files(files, 0.5, 0, seed=0), tmp_path / "split.csv")


def test_the_scan_is_kept(tmp_path, monkeypatch):
    root = tmp_path / "set"
    path = write_tar(root / "0.tar", samples([0, 1]))
    first = find_images(root)
    scan = foreign_tars.scan
    monkeypatch.setattr(foreign_tars, "scan", lambda *_: pytest.fail("the tars were scanned again"))
    again = find_images(root)
    assert table(again) == table(first) and read_all(again) == read_all(first)
    monkeypatch.setattr(foreign_tars, "scan", scan)
    for kept in (tmp_path / "checks").iterdir():
        kept.write_bytes(kept.read_bytes()[:50])
    assert table(find_images(root)) == table(first)
    write_tar(path, samples([0, 1, 2]))
    os.utime(path, (10**9, 10**9))
    assert len(find_images(root)) == 3


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"a.jpg": JPEG, "b.jpg": JPEG}, "1 tars without an image that has a class, such as '0.tar'"),
        ({"a.jpg": JPEG, "a.cls": b"1"}, "only the class '1': expected at least two"),
        (
            {**samples([0, 1]), "x.cls": b"0", "./00000.jpg": JPEG, "./00000.cls": b"0"},
            "the sample '0/00000.jpg' occurs twice",
        ),
    ],
)
def test_refused(tmp_path, members, match):
    write_tar(tmp_path / "set/0.tar", members)
    with pytest.raises(ValueError, match=match):
        find_images(tmp_path / "set")


@pytest.mark.parametrize("change", [lambda data: data[:700], lambda data: b"words" * 300])
def test_a_damaged_tar(tmp_path, change):
    path = write_tar(tmp_path / "set/0.tar", samples([0, 1]))
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match="the tar '0.tar' is damaged .*: copy it again"):
        find_images(tmp_path / "set")


def test_a_header_of_a_terabyte(tmp_path):
    header = tarfile.TarInfo("a")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    path = write_tar(tmp_path / "set/0.tar", samples([0, 1]))
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + path.read_bytes())
    with pytest.raises(ValueError, match="the tar '0.tar' is damaged .*: copy it again"):
        find_images(tmp_path / "set")


def test_a_folder_of_images_may_have_a_tar(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.jpg").write_bytes(JPEG)
    write_tar(tmp_path / "set/backup.tar", samples([0, 1]))
    assert find_images(tmp_path / "set").class_names == ("cat", "dog")
