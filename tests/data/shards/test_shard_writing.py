"""`write_shards` and what `find_images` reads from it."""

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from support.image_folders import JPEG, PNG, read_all, write
from support.paths import ROOT
from support.shard_folders import HOSTILE, make_images

from vit_tf.data import (
    DataLoader,
    DecodedImages,
    check_images,
    find_images,
    split_files,
    write_shards,
    write_split,
)
from vit_tf.data.shards import shard_job, shard_writing
from vit_tf.data.shards.shard_files import KINDS

FORMATS = tuple(KINDS)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(shard_job, "MEGABYTE", 1000)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("images"))


def shards_of(source, out, format="arrayrecord", shard_mb=5, **options):
    """Writes shards of a few images each; returns (`WrittenShards`, the `ImageFiles` of the shards)."""
    written = write_shards(source, out, format, shard_mb, progress=False, **options)
    return written, find_images(out)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def require_equal(found, files):
    assert (found.names, found.splits, found.class_names) == (files.names, files.splits, files.class_names)
    np.testing.assert_array_equal(found.labels, files.labels)
    assert read_all(found) == read_all(files)


@pytest.mark.parametrize("format", FORMATS)
def test_shards_hold_the_images_bit_for_bit(images, tmp_path, format):
    written, found = shards_of(images, tmp_path / "out", format)
    files = find_images(images)
    require_equal(found, files)
    assert written.num_images == 24 and written.num_shards >= 6 and written.bad == []
    require_equal(found.subset([3, 20]), files.subset([3, 20]))
    require_equal(pickle.loads(pickle.dumps(found)), files)
    names = sorted(os.listdir(tmp_path / "out"))
    ending = KINDS[format][0]
    shards = [
        f"{part}-{i:06}{ending}" for part in ("train", "validation") for i in range(written.num_shards // 2)
    ]
    assert names == ["images.npz", "index.json", *shards]


@pytest.mark.parametrize("format", FORMATS)
def test_hostile_names(tmp_path, format):
    source = make_images(tmp_path / "images", names=HOSTILE)
    write(source, ["train/cat/a.b.c.jpg"], JPEG)  # the same key but for the ending
    write(source, ["train/cat/bare"], PNG)
    _, found = shards_of(source, tmp_path / "out", format)
    require_equal(found, find_images(source))
    assert len(found) == 26


@pytest.mark.parametrize("format", FORMATS)
def test_several_labels_per_image(tmp_path, format):
    write(tmp_path, [f"{i}.jpg" for i in range(6)])
    rows = "".join(
        f"{i}.jpg,{label}\n" for i, label in enumerate(["cat|dog", "", "dog", "cat", "owl|cat", "owl"])
    )
    (tmp_path / "labels.csv").write_text(f"path,label\n{rows}")
    _, found = shards_of(tmp_path / "labels.csv", tmp_path / "out", format)
    assert found.is_multi_label and found.labels.dtype == bool
    require_equal(found, find_images(tmp_path / "labels.csv"))


def test_shards_of_shards_and_of_a_zip(images, tmp_path):
    _, found = shards_of(images, tmp_path / "records")
    _, again = shards_of(tmp_path / "records", tmp_path / "tars", "webdataset")
    require_equal(again, found)
    _, zipped = shards_of(shutil.make_archive(tmp_path / "set", "zip", images), tmp_path / "zipped")
    require_equal(zipped, found)


def test_tars_are_those_of_webdataset(images, tmp_path):
    """Each sample is an image, its class and its name, next to each other, with keys without dots."""
    _, found = shards_of(images, tmp_path / "out", "webdataset")
    names, members = list(found.names), []
    for path in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(path) as tar:
            members += [(member.name, tar.extractfile(member).read()) for member in tar]
    for (image, data), (cls, label), (about, text) in zip(members[::3], members[1::3], members[2::3]):
        key, _, ending = image.partition(".")
        assert (ending, cls, about) == ("png", f"{key}.cls", f"{key}.json")
        name = key.replace("%2E", ".") + ".png"
        i = names.index(name)
        assert data == found.read(i) and int(label) == found.labels[i]
        assert f'"name": "{name}"'.encode() in text
    assert len(members) == 3 * len(names)


def test_grain_reads_the_records(images, tmp_path):
    from grain.sources import ArrayRecordDataSource

    _, found = shards_of(images, tmp_path / "out")
    source = ArrayRecordDataSource([str(path) for path in sorted((tmp_path / "out").glob("*.arrayrecord"))])
    assert sorted(source[i] for i in range(len(source))) == sorted(read_all(found))


def test_unreadable_images_are_left_out(images, tmp_path):
    source = shutil.copytree(images, tmp_path / "images")
    write(source, ["train/cat/bad.png", "val/cat/worse.png"], b"words")
    with pytest.raises(ValueError, match="of 26 images cannot be read, more than 1.00%: 'train/cat/bad.png'"):
        shards_of(source, tmp_path / "out")
    written, found = shards_of(source, tmp_path / "out", max_bad=0.1)
    assert [name for name, _ in written.bad] == ["train/cat/bad.png", "val/cat/worse.png"]
    require_equal(found, find_images(images))
    assert "\ntrain/cat/bad.png," in (tmp_path / "out/bad_files.csv").read_text()


def test_the_images_of_shards_are_not_checked_again(images, tmp_path, monkeypatch):
    """The notes, and the fingerprints in a split, are those of the folder."""
    source = shutil.copytree(images, tmp_path / "images")
    shutil.copy(source / "train/cat/0.png", source / "val/dog.v2/copy.png")
    _, found = shards_of(source, tmp_path / "out")
    checked, _ = check_images(find_images(source), progress=False)
    assert found.notes == checked.notes and "with different labels" in found.notes[0]
    monkeypatch.setattr(type(found.container), "read", None)
    again, bad = check_images(found, progress=False)
    assert again is found and bad == []
    for name, files in (("folder", checked), ("shards", again)):
        write_split(split_files(files), tmp_path / name)
    assert (tmp_path / "folder").read_bytes() == (tmp_path / "shards").read_bytes()


def test_a_loader_gives_the_same_batches(images, tmp_path):
    _, found = shards_of(images, tmp_path / "out")

    def batches(files):
        generators = dict(
            transform=lambda image, generator: np.asarray(image) + np.uint8(generator.integers(9))
        )
        loader = DataLoader(DecodedImages(files), files.labels, 2, 5, shuffle=True, seed=3, **generators)
        return [*loader.epoch(0), *loader.epoch(1, start=2)]

    for (x, y), (expected_x, expected_y) in zip(batches(found), batches(find_images(images)), strict=True):
        np.testing.assert_array_equal(x, expected_x)
        np.testing.assert_array_equal(y, expected_y)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")  # of a fork with threads
@pytest.mark.parametrize("format", FORMATS)
def test_a_forked_process_opens_the_shards_itself(images, tmp_path, format):
    _, found = shards_of(images, tmp_path / "out", format)
    expected = read_all(found)
    if not (child := os.fork()):
        os._exit(read_all(found) != expected)
    assert os.waitpid(child, 0)[1] == 0


# ------------------------------------------------------------------------------- stops


@pytest.mark.slow
@pytest.mark.tensorflow_only
@pytest.mark.parametrize("format", FORMATS)
def test_a_killed_job_continues(images, tmp_path, format):
    whole = tmp_path / "whole"
    shards_of(images, whole, format)
    out, ends = tmp_path / "out", []
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    for kill_after in (12, 6, 100):
        command = [sys.executable, "-m", "support.shard_folders", images, out, format, kill_after]
        ends.append(subprocess.run([*map(str, command)], env=environment).returncode)
        if ends[-1] == -signal.SIGKILL:
            with pytest.raises(ValueError, match="not finished: run the same vit-tf shard again"):
                find_images(out)
    assert ends == [-signal.SIGKILL, -signal.SIGKILL, 0] and contents(out) == contents(whole)


def stop_after(monkeypatch, count, error):
    """Makes the reading of images raise an error after `count` images."""
    read = shard_writing.read_image
    calls = iter(range(10**6))

    def read_or_raise(*args):
        if next(calls) >= count:
            raise error
        return read(*args)

    monkeypatch.setattr(shard_writing, "read_image", read_or_raise)


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupted_job_keeps_what_is_finished(images, tmp_path, monkeypatch, format):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 14, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            shards_of(images, out, format)
    kept = {path: path.stat().st_mtime_ns for path in out.glob(f"*{KINDS[format][0]}")}
    assert len(kept) >= 2 and not list((out / "unfinished").glob(f"*{KINDS[format][0]}"))
    damaged, truncated = sorted(kept)[-2:]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (out / "unfinished" / truncated.with_suffix(".npz").name).write_bytes(b"PK")
    (out / "unfinished" / "train-000009.tar").write_bytes(b"half a shard")
    _, found = shards_of(images, out, format)
    shards_of(images, tmp_path / "whole", format)
    assert contents(out) == contents(tmp_path / "whole")
    same = [path for path, changed in kept.items() if path.stat().st_mtime_ns == changed]
    assert len(same) == len(kept) - 2


def test_a_start_that_wrote_nothing_leaves_nothing(images, tmp_path, monkeypatch):
    stop_after(monkeypatch, 2, OSError(errno.EIO, "Input/output error"))
    with pytest.raises(OSError, match="Input/output"):
        shards_of(images, tmp_path / "out", shard_mb=500)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_becomes_full(images, tmp_path, monkeypatch, format):
    """The finished shards are kept, and the half one is removed."""
    writer, calls = KINDS[format][1], iter(range(10**6))

    class Full(writer):
        def close(self):
            super().close()
            if next(calls) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setitem(KINDS, format, (KINDS[format][0], Full, KINDS[format][2]))
        with pytest.raises(OSError, match="No space left on device; the finished shards are kept: make room"):
            shards_of(images, tmp_path / "out", format)
    assert len(list((tmp_path / "out").glob("train-*"))) == 2
    assert len(list((tmp_path / "out/unfinished").glob("*.npz"))) == 2
    require_equal(shards_of(images, tmp_path / "out", format)[1], find_images(images))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_of_the_disk():
    writer = KINDS["arrayrecord"][1]("/dev/full")
    writer.write("name", bytes(1000), {})
    with pytest.raises(OSError) as error:
        writer.close()
    assert error.value.errno == errno.ENOSPC


def test_too_little_room_is_told_at_the_start(images, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 100))
    with pytest.raises(OSError, match="No space left: .* bytes are needed, 100 are free"):
        shards_of(images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------- refusals


def test_other_folders_are_refused(images, tmp_path, monkeypatch):
    shards_of(images, tmp_path / "done")
    with pytest.raises(ValueError, match="has finished shards: choose another folder, or remove it"):
        shards_of(images, tmp_path / "done")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/a.txt").write_text("dear")
    with pytest.raises(ValueError, match="is not empty: choose another folder"):
        shards_of(images, tmp_path / "letters")
    with pytest.raises(ValueError, match="is a file, and shards need a folder"):
        shards_of(images, tmp_path / "letters/a.txt")
    with pytest.raises(ValueError, match="lies in the images themselves"):
        shards_of(images, images / "out")
    with monkeypatch.context() as patch:
        stop_after(patch, 14, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            shards_of(images, tmp_path / "half")
    with pytest.raises(ValueError, match="has an unfinished job that differs in format, shard_mb: finish it"):
        shards_of(images, tmp_path / "half", "webdataset", 6)
    others = make_images(tmp_path / "others", per_class=7)
    with pytest.raises(ValueError, match="differs in images, data: finish it with its own options"):
        shards_of(others, tmp_path / "half")
    assert sorted(os.listdir(tmp_path / "letters")) == ["a.txt"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"format": "zip"}, "`format` must be one of 'arrayrecord', 'webdataset', got 'zip'"),
        ({"shard_mb": 0}, "`shard_mb` must be a positive int, got 0"),
        ({"max_bad": 2}, r"`max_bad` must be a number in \[0, 1\], got 2"),
    ],
)
def test_wrong_options_are_refused(images, tmp_path, options, match):
    with pytest.raises(ValueError, match=match):
        shards_of(images, tmp_path / "out", **options)


def test_two_jobs_at_once_are_refused(images, tmp_path):
    files = find_images(images)
    with shard_job.ShardJob.opened(tmp_path / "out", files, {"format": "webdataset", "shard_mb": 5}):
        with pytest.raises(ValueError, match="another process writes shards to .*: wait for it"):
            shards_of(images, tmp_path / "out", "webdataset")
    assert not (tmp_path / "out").exists()
