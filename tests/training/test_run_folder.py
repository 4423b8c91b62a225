import json
from argparse import Namespace

import pytest

from vit_tf.training.run_folder import locked, note_versions, open_run, versions

NAME = "finetune"
COMMAND = {"name": NAME, "data": "pets", "model": None, "settings": {"seed": 1}}


def arguments(out=None, resume=None, **others):
    return Namespace(out=out and str(out), resume=resume and str(resume), **others)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps({"command": COMMAND, "recipe": {}, "versions": versions()})
    )
    return folder


def test_a_new_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, command, saved = open_run(arguments(), COMMAND, "pets", NAME)
    assert folder.parent.name == "runs" and folder.name.startswith("pets-20")
    assert command == COMMAND and saved is None and not folder.exists()
    folder, _, saved = open_run(arguments(tmp_path / "new"), COMMAND, "pets", NAME)
    assert folder == tmp_path / "new" and saved is None


def test_the_same_command_goes_on_and_so_does_resume(run):
    assert open_run(arguments(run), COMMAND, "", NAME)[2]["command"] == COMMAND
    folder, command, saved = open_run(arguments(resume=run, tensorboard=None), None, "", NAME)
    assert (folder, command, saved["recipe"]) == (run, COMMAND, {})


def test_other_versions_are_told(run, capsys):
    note_versions(open_run(arguments(run), COMMAND, "", NAME)[2])
    assert capsys.readouterr().out == ""
    (run / "config.json").write_text(
        json.dumps({"command": COMMAND, "recipe": {}, "versions": {"keras": "3.0"}})
    )
    note_versions(open_run(arguments(run), COMMAND, "", NAME)[2])
    assert "the run began with {'keras': '3.0'}, and continues with {'keras': " in capsys.readouterr().out


def test_another_command_is_refused(run):
    other = {**COMMAND, "settings": {"seed": 2, "epochs": 3}}
    with pytest.raises(
        ValueError, match=r"holds a run with seed 1 \(now 2\), epochs None \(now 3\): give --resume"
    ):
        open_run(arguments(run), other, "", NAME)


def test_resume_takes_nothing_beside_it(run):
    with pytest.raises(ValueError, match="cannot be combined with --seed, --flip, DATA"):
        open_run(arguments(resume=run, seed=0, flip=False, data="pets"), None, "", NAME)
    with pytest.raises(ValueError, match="leave --out out"):
        open_run(arguments(run, run), None, "", NAME)


def test_bad_folders(tmp_path, run):
    with pytest.raises(ValueError, match="there is no run in"):
        open_run(arguments(resume=tmp_path / "none"), None, "", NAME)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        open_run(arguments(tmp_path / "file"), COMMAND, "", NAME)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty"):
        open_run(arguments(tmp_path / "full"), COMMAND, "", NAME)
    for text in ("{", "[]", "{}", '{"command": {}}'):
        (run / "config.json").write_text(text)
        with pytest.raises(ValueError, match="config.json"):
            open_run(arguments(run), COMMAND, "", NAME)


def test_what_a_kill_at_the_start_leaves_is_no_hindrance(tmp_path):
    for name in (".lock", "split.csv", "bad_files.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / "partial.abcdefgh.config.json").mkdir()
    assert open_run(arguments(tmp_path), COMMAND, "", NAME)[2] is None


def test_a_run_of_the_other_script_is_told(run):
    with pytest.raises(ValueError, match="holds a run of `vit-tf finetune`: use that command"):
        open_run(arguments(resume=run), None, "", "train")


def test_what_a_killed_process_left_is_removed_and_nothing_is_left_of_a_mistake(tmp_path):
    folder = tmp_path / "run"
    for place in (folder, folder / "model", folder / "last"):
        place.mkdir(exist_ok=True)
        (place / "partial.abcdefgh.model.safetensors").mkdir()
        (place / "partial.abcdefgh.model.safetensors" / "model.safetensors").write_text("half")
    with locked(folder):
        assert {path.name for path in folder.rglob("*")} == {".lock", "model", "last"}
    with pytest.raises(ValueError, match="typo"), locked(tmp_path / "other"):
        raise ValueError("typo")
    assert not (tmp_path / "other").exists()


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    with locked(tmp_path / "run"):
        with pytest.raises(ValueError, match="another process is training in"):
            with locked(tmp_path / "run"):
                pass
        (tmp_path / "run" / "config.json").touch()
    with locked(tmp_path / "run"):  # free again
        pass
