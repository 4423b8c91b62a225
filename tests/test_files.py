import errno
import json
import os

import pytest

from vit_tf.files import atomic_path, remove_partial_files, require_space, write_json


def test_the_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.weights.h5"
    with atomic_path(path) as partial:
        assert partial.parent.parent == tmp_path and partial.name == path.name
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_an_error_leaves_the_older_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(type(error)):
        with atomic_path(path) as partial:
            partial.write_text("half")
            partial.with_name(".tmp1234").write_text("of a library")
            raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_write_json(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, 2.5, None]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"b": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, 2.5, None]}


def test_others_may_read_it_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_what_a_killed_process_left_is_removed(tmp_path):
    writing = atomic_path(tmp_path / "a.txt")
    partial = writing.__enter__()
    partial.write_text("half")
    partial.with_name(".tmp1234").write_text("of a library")
    remove_partial_files(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_writers_and_a_user_s_own_file(tmp_path):
    (tmp_path / "partial.a.txt").write_text("mine")
    with atomic_path(tmp_path / "a.txt") as first, atomic_path(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("1"), second.write_text("2")
    assert (tmp_path / "a.txt").read_text() == "1"
    assert (tmp_path / "partial.a.txt").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 2


def test_long_names(tmp_path):
    path = tmp_path / ("n" * 250 + ".npz")
    write_json(path, {})
    assert path.exists()


def test_require_space(tmp_path):
    require_space(tmp_path, 1)
    with pytest.raises(OSError, match="No space left") as caught:
        require_space(tmp_path, 10**18)
    assert caught.value.errno == errno.ENOSPC
