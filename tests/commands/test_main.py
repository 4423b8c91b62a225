import json
import shutil
import signal

import numpy as np
import pytest
from keras import ops
from support.command_line import printed

from vit_tf import build_vit, load, save_weights
from vit_tf.commands import main as cli
from vit_tf.commands.parser import run
from vit_tf.hub.sources import open_checkpoint


def exit_code(main):
    with pytest.raises(SystemExit) as caught:
        run(main)
    return caught.value.code


def failing(error):
    def main():
        raise error

    return main


def test_exit_codes(capsys):
    assert exit_code(lambda: None) in (None, 0)
    assert exit_code(lambda: 130) == 130
    assert exit_code(failing(ValueError("two\n  lines"))) == 2
    assert capsys.readouterr().err == "error: two lines\n"
    assert exit_code(failing(OSError(28, "No space left on device", "a.h5"))) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert exit_code(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError()))


def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("VIT_TF_TRACEBACK", "1")
    with pytest.raises(ValueError):
        run(failing(ValueError("a")))


def test_sigterm_is_like_ctrl_c(capsys):
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert exit_code(lambda: signal.raise_signal(signal.SIGTERM)) == 130
    finally:
        signal.signal(signal.SIGTERM, before)


# ---------------------------------------------------------------------------------------------------
# The commands
# ---------------------------------------------------------------------------------------------------
def test_summary(capsys):
    output = printed(capsys, "summary", "test_vit", "--image-size", "32x48", "--num-classes", 3)
    for text in ("patch_encoder (PatchEncoder)", "(None, 32, 48, 3)", "attention scores", "grow with the"):
        assert text in output


@pytest.mark.slow
def test_a_run_s_folder_is_its_model(hub, tmp_path):
    _, folder = hub
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"command": {"script": "finetune.py"}}))
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, run / "model" / name)
    for source in (run, str(run), f"{run}/", run / "model"):
        checkpoint = open_checkpoint(source)
        assert checkpoint.path == run / "model" / "model.safetensors"
        assert checkpoint.config["architecture"] == "test_vit"
    assert load(run).labels == ("apple", "pear", "plum", "quince")
    shutil.copytree(run / "model", folder / "model")  # of a repository, whose own weights count
    assert open_checkpoint(folder).path == folder / "model.safetensors"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["list", "resnet*"], "no variant matches 'resnet"),
        (["summary", "vit_b17"], "did you mean 'vit_b16'"),
        (["summary", "vit_b16", "--image-size", "1x2x3"], "224 or 224x288"),
        (["convert", "FOLDER", "FOLDER/folder.keras", "--force"], "is a folder"),
        (["predict", "missing.jpg", "--weights", "FOLDER"], "no image at 'missing.jpg'"),
        (["predict", "FOLDER/config.json", "--weights", "FOLDER"], "not an image"),
        (["predict", "FOLDER/obst 0.png", "--weights", "FOLDER", "--top", "0"], "positive int"),
        (["predict", "FOLDER/obst 0.png", "--weights", "missing.npz"], "no file or folder"),
        (["convert", "FOLDER", "FOLDER/out.pth"], "OUT must end in .safetensors, .weights.h5, .keras"),
        (["convert", "FOLDER", "FOLDER/nowhere/out.keras"], "no folder"),
        (["convert", "missing", "FOLDER/out.keras"], "no file or folder 'missing'"),
    ],
)
def test_mistakes_are_one_line(capsys, hub, arguments, message):
    _, folder = hub
    arguments = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    assert exit_code(lambda: cli.main(arguments)) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.slow
def test_features_are_no_predictions(capsys, hub):
    _, folder = hub
    model = build_vit("test_vit", image_size=32, num_classes=0)
    save_weights(model, folder / "model.safetensors")
    with pytest.raises(ValueError, match="has no head"):
        printed(capsys, "predict", folder / "obst 0.png", "--weights", folder)
    assert ops.shape(model(np.zeros((1, 32, 32, 3), "float32"))) == (1, 64)
