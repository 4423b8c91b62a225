import errno
import json
import os
import socket

import pytest

from vit_tf.files import (
    atomic_path,
    open_regular,
    read_regular,
    remove_partial_files,
    require_space,
    write_json,
)


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


def make_special(folder, kind):
    """Makes what is no regular file, and returns a link to it."""
    target = folder / "target"
    if kind == "a named pipe":
        os.mkfifo(target)
    elif kind == "a folder":
        target.mkdir()
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as listener:
            os.chdir(folder)  # the names of sockets are short
            listener.bind("target")
    else:
        target = kind
    (folder / "link.jpg").symlink_to(target)
    return folder / "link.jpg"


SPECIAL = ["a named pipe", "a folder", "a socket", "/dev/zero", "/dev/random", "/dev/tty"]


@pytest.mark.parametrize("kind", SPECIAL)
def test_only_regular_files_are_opened(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    kind_shown = "a device" if kind.startswith("/dev") else kind
    with pytest.raises(ValueError, match=f"{kind_shown}: expected a regular file"):
        open_regular(make_special(tmp_path, kind))


def test_a_pipe_that_takes_the_place_of_a_file_does_not_wait(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.touch()
    before = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    monkeypatch.setattr("vit_tf.files.os.stat", lambda path: before)
    with pytest.raises(ValueError, match="a named pipe: expected a regular file"):
        open_regular(path)


def test_what_is_read_is_bounded(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(ValueError, match="the file has 5 bytes: at most 4 are read"):
        read_regular(path, 4)
    with open_regular(path) as file:
        assert file.read() == b"12345"
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "b.jpg")
