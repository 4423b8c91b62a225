"""Shards that are missing, truncated, damaged, or of another index."""

import json
import os
import shutil

import pytest
from support.shard_folders import make_images

from vit_tf.data import find_images, write_shards
from vit_tf.data.shards import shard_job
from vit_tf.data.shards.shard_index import checksum

HINT = "copy the folder again, or write the shards again by vit-tf shard"


@pytest.fixture(scope="module", params=["arrayrecord", "webdataset"])
def shards(request, tmp_path_factory):
    """A folder of shards, and one of other images of the same sizes and names."""
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_job, "MEGABYTE", 1000)
        for name, seed in (("own", 0), ("other", 1)):
            source = make_images(folder / f"images_{name}", seed=seed)
            write_shards(source, folder / name, request.param, 5, progress=False)
    return folder


@pytest.fixture
def own(shards, tmp_path):
    return shutil.copytree(shards / "own", tmp_path / "own")


def first_shard(folder):
    return min(path for path in folder.iterdir() if path.name.startswith("train-"))


def require_refused(folder, match):
    with pytest.raises(ValueError, match=match) as error:
        find_images(folder)
    assert str(error.value).count("\n") == 0 and repr(str(folder)) in str(error.value)


def test_missing_shards(own):
    first_shard(own).unlink()
    first_shard(own).unlink()
    require_refused(own, f"2 of .* shards are missing: 'train-000000.*', 'train-000001.*'; {HINT}")


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b""])
def test_truncated_shards(own, change):
    path = first_shard(own)
    path.write_bytes(change(path.read_bytes()))
    require_refused(own, f"1 of .* shards are truncated or changed: 'train-000000.*'; {HINT}")


def test_shards_of_another_index(own, shards):
    for path in own.iterdir():
        if path.name.startswith("train-"):
            size = path.stat().st_size
            data = (shards / "other" / path.name).read_bytes()
            path.write_bytes((data + bytes(size))[:size])
    require_refused(own, "shards are damaged or belong to another index: 'train-000000")


def test_a_table_of_another_index(own, shards):
    shutil.copy(shards / "other/images.npz", own)
    require_refused(own, "images.npz is damaged, or belongs to another index.json")
    (own / "images.npz").unlink()
    require_refused(own, "images.npz is missing")


def test_a_damaged_index(own):
    path = own / "index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "class_names": ["dog", "cat"]}))
    require_refused(own, f"index.json is damaged or was changed: {HINT}")
    path.write_text(json.dumps({**index, "format": "vit_tf shards 9"}))
    require_refused(own, "is of the format 'vit_tf shards 9', expected 'vit_tf shards 1'")
    path.write_bytes(path.read_bytes()[:100])
    require_refused(own, "is not JSON that can be read")
    del index["kind"], index["checksum"]
    path.write_text(json.dumps({**index, "checksum": checksum(index)}))
    require_refused(own, "index.json is damaged or was changed")


def test_damage_inside_of_a_shard_is_found_when_it_is_read(own):
    path = first_shard(own)
    data = bytearray(path.read_bytes())
    last = data.rindex(b"IDAT") + 30
    data[last] ^= 1
    path.write_bytes(data)
    files = find_images(own)
    problems = []
    for i in range(len(files)):
        try:
            files.read(i)
        except ValueError as error:
            problems.append(str(error))
    assert len(problems) == 1 and "copy the shard again" in problems[0] and path.name in problems[0]


def test_a_shard_that_is_gone_while_it_is_used(own):
    files = find_images(own)
    files.container._open.cache_clear()
    first_shard(own).unlink()
    errors = 0
    for i in range(len(files)):
        try:
            files.read(i)
        except (OSError, ValueError):
            errors += 1
    assert 0 < errors < len(files)


def test_a_folder_with_another_index_is_a_folder_of_images(tmp_path):
    make_images(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"format": "of a web page"}))
    assert len(find_images(tmp_path)) == 24
    assert os.path.exists(tmp_path / "index.json")
