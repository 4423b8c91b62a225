"""The check of all images: its levels, and the results that are kept for later runs."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.image_folders import JPEG, PNG, to_bytes, write, write_zip

from vit_tf.data import (
    check_images,
    directories,
    find_images,
    image_checks,
    read_split,
    split_files,
    write_split,
)
from vit_tf.data.check_cache import CheckCache
from vit_tf.data.fingerprints import fingerprints

NAMES = [f"{label}/{i}.jpg" for label in ("cat", "dog") for i in range(4)]


def picture(colour):
    return to_bytes(Image.new("RGB", (8, 8), (colour, 0, 0)), "JPEG")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Eight images of different bytes, written long ago, and an empty cache."""
    monkeypatch.setenv("VIT_TF_CHECKS", str(tmp_path / "checks"))
    root = tmp_path / "images"
    for i, name in enumerate(NAMES):
        write(root, [name], picture(20 * i))
        os.utime(root / name, (10**9, 10**9))
    return root


@pytest.fixture
def decoded(monkeypatch):
    """The bytes of the images that are decoded from now on."""
    decoded, decode = [], image_checks.decode
    monkeypatch.setattr(image_checks, "decode", lambda data: decoded.append(data) or decode(data))
    return decoded


def check(root, level="full", **options):
    return check_images(find_images(root), level=level, cached=True, progress=False, **options)


def test_a_second_check_decodes_nothing_and_finds_the_same(folder, decoded):
    write(folder, ["dog/copy.jpg"], picture(20))
    os.utime(folder / "dog/copy.jpg", (10**9, 10**9))
    first, bad = check(folder)
    assert len(decoded) == 9 and bad == []
    second, _ = check(folder)
    assert len(decoded) == 9
    assert (second.names, second.notes) == (first.names, first.notes)
    assert "with different labels" in second.notes[0] and "'cat/1.jpg' and 'dog/copy.jpg'" in second.notes[0]
    np.testing.assert_array_equal(second.known_fingerprints, first.known_fingerprints)
    unknown = replace(first, known_fingerprints=None)
    assert list(fingerprints(first)) == list(fingerprints(unknown))


def test_a_changed_file_is_checked_again(folder, decoded):
    check(folder)
    del decoded[:]
    (folder / NAMES[2]).write_bytes(JPEG)  # another size, the same time
    os.utime(folder / NAMES[2], (10**9, 10**9))
    os.utime(folder / NAMES[5], (2 * 10**8, 2 * 10**8))  # the same size, another time
    files, _ = check(folder)
    assert sorted(decoded) == sorted([JPEG, picture(100)])
    assert list(fingerprints(files)) == list(fingerprints(replace(files, known_fingerprints=None)))
    (folder / NAMES[1]).unlink()
    assert len(check(folder)[0]) == 7 and len(decoded) == 2


def test_a_file_that_changed_just_now_is_not_kept(folder, decoded):
    write(folder, ["cat/new.jpg"], PNG)  # its time may be that of a later change
    check(folder), check(folder)
    assert decoded.count(PNG) == 2 and len(decoded) == 10


def test_unreadable_files_are_checked_again(folder, decoded):
    write(folder, ["cat/1.jpg"], b"words")
    os.utime(folder / "cat/1.jpg", (10**9, 10**9))
    _, bad = check(folder, max_bad=0.5)
    assert check(folder, max_bad=0.5)[1] == bad and bad[0][0] == "cat/1.jpg"
    assert decoded.count(b"words") == 2 and len(decoded) == 9


def test_an_interrupted_check_keeps_its_results(folder, monkeypatch):
    monkeypatch.setattr(image_checks, "SAVED_AT_ONCE", 2)
    monkeypatch.setattr(image_checks, "MAX_THREADS", 1)
    decode, count = image_checks.decode, 0

    def interrupted(data):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return decode(data)

    monkeypatch.setattr(image_checks, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check(folder)
    again = []
    monkeypatch.setattr(image_checks, "decode", again.append)
    check(folder)
    assert set(again) == {picture(20 * i) for i in range(4, 8)}  # a thread of the first check may still run


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"something else",
        lambda data: data[:-3],
        lambda data: data + b"half a block",
        lambda data: data[:100] + b"\xff" + data[101:],
        lambda data: bytes(len(data)),
        lambda data: data[:16] + b"\xff\xff\xff\xff" + data[20:],
    ],
)
def test_a_damaged_cache_is_replaced(folder, decoded, damage):
    first, _ = check(folder)
    path = CheckCache(folder).path
    path.write_bytes(damage(path.read_bytes()))
    second, _ = check(folder)
    assert (second.names, second.notes) == (first.names, first.notes)
    count = len(decoded)
    check(folder)
    assert len(decoded) == count


def test_a_cache_of_other_images_is_not_used(folder, decoded, tmp_path):
    check(folder)
    shutil.copytree(folder, tmp_path / "others", copy_function=shutil.copy2)
    shutil.copy(CheckCache(folder).path, CheckCache(tmp_path / "others").path)
    check(tmp_path / "others")
    assert len(decoded) == 16


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_cache_that_cannot_be_written_is_noted(folder, tmp_path, kind):
    if kind == "file":
        (tmp_path / "checks").write_text("")
    else:
        CheckCache(folder).path.mkdir(parents=True)
    files, bad = check(folder)
    assert len(files) == 8 and bad == []
    (note,) = files.notes
    assert note.startswith("the results of the check cannot be kept for later runs: ")


def test_two_checks_at_once_do_no_harm(folder, decoded):
    caches = [CheckCache(folder) for _ in range(2)]
    files, (first, second) = find_images(folder), np.zeros((2, 8), image_checks.RECORD)
    assert [len(cache.fill(rows, files, "full")) for cache, rows in zip(caches, (first, second))] == [8, 8]
    for rows in (first, second):
        rows["digest"] = rows["fingerprint"] = b"x"
    for cache, rows in zip([*caches, *caches], (first[:5], second[:5], first[5:], second[5:])):
        cache.append(rows, "full")
    assert len(CheckCache(folder).fill(np.zeros(8, image_checks.RECORD), files, "full")) == 0


def test_the_files_of_a_zip_are_known_by_its_time(tmp_path, monkeypatch, decoded):
    monkeypatch.setenv("VIT_TF_CHECKS", str(tmp_path / "checks"))
    path = write_zip(tmp_path / "a.zip", NAMES)
    os.utime(path, (10**9, 10**9))
    check(path), check(path)
    assert len(decoded) == 8
    os.utime(path, (2 * 10**8, 2 * 10**8))
    check(path)
    assert len(decoded) == 16


def test_each_file_is_looked_at_once(folder, monkeypatch):
    looks, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: looks.append(path) or stat(path, **options))
    check(folder)
    assert sum(str(path).endswith(".jpg") for path in looks) == 8


def test_a_split_is_read_without_the_files_that_were_checked(folder, tmp_path, monkeypatch):
    checked, _ = check(folder)
    write_split(split_files(checked, 0.25, 0.25), tmp_path / "split.csv")
    opened, fingerprint = [], directories.file_fingerprint
    monkeypatch.setattr(directories, "file_fingerprint", lambda *at: opened.append(at[1]) or fingerprint(*at))
    files = find_images(folder)
    assert read_split(files, tmp_path / "split.csv", cached=True).notes == () and opened == []
    (folder / NAMES[3]).write_bytes(JPEG)
    (note,) = read_split(files, tmp_path / "split.csv", cached=True).notes
    assert note == f"1 images have changed since the run began: {NAMES[3]!r}" and opened == [NAMES[3]]
    assert len(read_split(files, tmp_path / "split.csv").notes) == 1 and len(opened) == 9


# ------------------------------------------------------------------------------- levels


def test_headers_decodes_only_what_has_no_end(folder, decoded):
    png, gif, webp = (to_bytes(Image.new("RGB", (5, 4)), format) for format in ("PNG", "GIF", "WebP"))
    write(folder, ["dog/a.png"], png)
    write(folder, ["dog/a.gif"], gif)
    write(folder, ["dog/a.webp"], webp)
    write(folder, ["dog/padded.jpg"], JPEG + bytes(20))
    write(folder, ["dog/appended.jpg"], JPEG + b"a film of the phone")
    write(folder, ["dog/cut.jpg", "dog/cut.png"], JPEG[:-20])
    _, bad = check(folder, "headers", max_bad=0.5)
    assert [name for name, _ in bad] == ["dog/cut.jpg", "dog/cut.png"] and "truncated" in bad[0][1]
    assert sorted(decoded) == sorted([webp, JPEG + b"a film of the phone", JPEG[:-20], JPEG[:-20]])


def test_damage_inside_is_found_by_the_full_check_alone(folder):
    start = PNG.index(b"IDAT")
    damaged = PNG[: start + 8] + bytes(40) + PNG[start + 48 :]
    write(folder, ["cat/0.jpg"], damaged)
    os.utime(folder / "cat/0.jpg", (10**9, 10**9))
    assert check(folder, "headers")[1] == []
    assert [name for name, _ in check(folder, "full", max_bad=0.5)[1]] == ["cat/0.jpg"]


def test_a_full_check_serves_headers_and_not_the_reverse(folder, decoded):
    check(folder, "headers")
    assert decoded == []
    check(folder)
    assert len(decoded) == 8
    check(folder, "headers"), check(folder)
    assert len(decoded) == 8


def test_none_opens_no_file(folder, tmp_path, monkeypatch):
    for name in NAMES:
        (folder / name).chmod(0)
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("a file was opened"))
    files, bad = check_images(split_files(find_images(folder), 0.25, 0.25), level="none", cached=True)
    assert len(files) == 8 and bad == [] and set(fingerprints(files)) == {""}
    monkeypatch.undo()
    write_split(files, tmp_path / "split.csv")
    rows = (tmp_path / "split.csv").read_text().splitlines()
    assert rows[1].startswith("cat/0.jpg,cat,") and rows[1].endswith(",")


def test_an_unknown_level_is_refused(folder):
    with pytest.raises(ValueError, match="`level` must be one of 'none', 'headers', 'full', got 'fast'"):
        check(folder, "fast")
