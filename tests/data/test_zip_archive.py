"""Images are read from zips; hostile zips are refused."""

import os
import pickle
import stat
import struct
import sys
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.image_folders import JPEG, LAYOUTS, RNG, classes, read_all, write_zip

from vit_tf.data import ImageFiles, check_images, find_images
from vit_tf.data import zip_archive as archives


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
        ("cat\\1.jpg", r"the member 'cat\\\\1.jpg' occurs twice in the zip"),
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
    monkeypatch.setattr(archives, "BOMB_RATIO", 10)
    monkeypatch.setattr(archives, "BOMB_BYTES", 79_999)
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
