import os
import stat

import pytest

from vit_tf.deploy.folders import atomic_folder, replace_folder


def test_a_folder_appears_at_the_end(tmp_path):
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("text")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "deep" / "file").read_text() == "text"
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o777 & ~mask
    assert os.listdir(tmp_path) == ["out"]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "out") as folder:
        (folder / "file").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_folder_that_was_made_meanwhile_is_kept(tmp_path):
    with pytest.raises(ValueError, match="already exists"), atomic_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
    assert os.listdir(tmp_path) == ["out"]


def test_an_error_between_the_renames_puts_the_old_folder_back(tmp_path, monkeypatch):
    folders = {name: tmp_path / name for name in ("new", "out", "old")}
    for name in ("new", "out"):
        folders[name].mkdir()
        (folders[name] / "file").write_text(name)
    rename = os.rename

    def fail(source, target):
        if source == folders["new"]:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        replace_folder(folders["new"], folders["out"], folders["old"])
    assert (folders["out"] / "file").read_text() == "out" and not folders["old"].exists()
    monkeypatch.undo()
    replace_folder(folders["new"], folders["out"], folders["old"])
    assert [(folders[name] / "file").read_text() for name in ("out", "old")] == ["new", "out"]


def test_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_folder("out") as folder:
        (folder / "file").touch()
    assert os.listdir("out") == ["file"]
