import json
from argparse import Namespace

import pytest

from vit_tf.training import locked, open_run, versions

SCRIPT = "finetune.py"
COMMAND = {"script": SCRIPT, "data": "pets", "model": None, "settings": {"seed": 1}}


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
    folder, command, saved = open_run(arguments(), COMMAND, "pets", SCRIPT)
    assert folder.parent.name == "runs" and folder.name.startswith("pets-20")
    assert command == COMMAND and saved is None and not folder.exists()
    folder, _, saved = open_run(arguments(tmp_path / "new"), COMMAND, "pets", SCRIPT)
    assert folder == tmp_path / "new" and saved is None


def test_the_same_command_goes_on_and_so_does_resume(run):
    assert open_run(arguments(run), COMMAND, "", SCRIPT)[2]["command"] == COMMAND
    folder, command, saved = open_run(arguments(resume=run, seed=None, tensorboard=None), None, "", SCRIPT)
    assert (folder, command, saved["recipe"]) == (run, COMMAND, {})


def test_other_versions_are_told(run, capsys):
    open_run(arguments(run), COMMAND, "", SCRIPT)
    assert capsys.readouterr().out == ""
    (run / "config.json").write_text(
        json.dumps({"command": COMMAND, "recipe": {}, "versions": {"keras": "3.0"}})
    )
    open_run(arguments(run), COMMAND, "", SCRIPT)
    assert "the run began with {'keras': '3.0'}, and goes on with {'keras': " in capsys.readouterr().out


def test_another_command_is_refused(run):
    other = {**COMMAND, "settings": {"seed": 2, "epochs": 3}}
    with pytest.raises(
        ValueError, match=r"holds a run with seed 1 \(now 2\), epochs None \(now 3\): give --resume"
    ):
        open_run(arguments(run), other, "", SCRIPT)


def test_resume_takes_nothing_beside_it(run):
    with pytest.raises(ValueError, match="takes no seed, flip, data beside it"):
        open_run(arguments(resume=run, seed=0, flip=False, data="pets"), None, "", SCRIPT)
    with pytest.raises(ValueError, match="leave --out out"):
        open_run(arguments(run, run), None, "", SCRIPT)


def test_bad_folders(tmp_path, run):
    with pytest.raises(ValueError, match="there is no run in"):
        open_run(arguments(resume=tmp_path / "none"), None, "", SCRIPT)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        open_run(arguments(tmp_path / "file"), COMMAND, "", SCRIPT)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty"):
        open_run(arguments(tmp_path / "full"), COMMAND, "", SCRIPT)
    for text in ("{", "[]", "{}", '{"command": {}}'):
        (run / "config.json").write_text(text)
        with pytest.raises(ValueError, match="config.json"):
            open_run(arguments(run), COMMAND, "", SCRIPT)


def test_what_a_kill_at_the_start_leaves_is_no_hindrance(tmp_path):
    for name in (".lock", "split.csv", "bad_files.csv"):
        (tmp_path / name).write_text("")
    (tmp_path / "partial.abcdefgh.config.json").mkdir()
    assert open_run(arguments(tmp_path), COMMAND, "", SCRIPT)[2] is None


def test_a_run_of_the_other_script_is_told(run):
    with pytest.raises(ValueError, match="holds a run of finetune.py: go on with that"):
        open_run(arguments(resume=run), None, "", "train_cifar10.py")


def test_what_a_killed_process_left_is_removed_and_nothing_is_left_of_a_mistake(tmp_path):
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    for place in (folder, folder / "model"):
        (place / "partial.abcdefgh.model.safetensors").mkdir()
        (place / "partial.abcdefgh.model.safetensors" / "model.safetensors").write_text("half")
    with locked(folder):
        assert {path.name for path in folder.rglob("*")} == {".lock", "model"}
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
