"""Names of files, classes and tensors that steer terminals or forge lines, through the commands."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from vit_tf import build_vit, save_weights, variants
from vit_tf.commands import main as cli
from vit_tf.commands.parser import run
from vit_tf.training import ending

FORGED = "error: forged"
EVIL = f"\x1b]0;owned\x07\x1b[2J\r\n{FORGED}\x9b2J\u202e[red]:cat:"
TINY = dict(image_size=16, patch_size=8, num_layers=1, hidden_dim=16, num_heads=2, mlp_dim=16)
HARMLESS = {chr(code) for code in range(32, 127)} | {"\n", "\t"}


def check(text):
    """Fails where printed text can steer a terminal or has a line that a name has made."""
    steering = [character for character in text if not (character.isprintable() or character in HARMLESS)]
    assert not steering, repr(text)
    assert not any(line.startswith(FORGED) for line in text.splitlines()), text
    assert "forged" in text and "[red]:cat:" in text  # it is the name, and nothing is lost


@pytest.fixture
def model(tmp_path):
    """A model's folder with evil labels and an evil tensor beside its own."""
    path = tmp_path / "model" / "model.safetensors"
    path.parent.mkdir()
    save_weights(build_vit("vit_cifar10", **TINY, num_classes=2), path)
    config = {
        "num_classes": 2,
        "label_names": ["a" + EVIL, "b" + EVIL],
        "pretrained_cfg": {"input_size": [3, 16, 16]},
        "vit_tf": {"variant": "vit_cifar10", "hyperparameters": {**TINY, "num_classes": 2}},
    }
    (path.parent / "config.json").write_text(json.dumps(config))
    return path.parent


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), "uint8")).save(path, "png")
    return str(path)


def output(capsys, main):
    with pytest.raises(SystemExit) as caught:
        run(main)
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_predictions(model, tmp_path, capsys):
    name = picture(tmp_path / f"x{EVIL}.png")
    code, out, _ = output(capsys, lambda: cli.main(["predict", name, "--weights", str(model)]))
    assert code in (None, 0) and len(out.splitlines()) == 3
    check(out)


@pytest.mark.slow
def test_predictions_as_json(model, tmp_path, capsys):
    name = picture(tmp_path / f"x{EVIL}.png")
    _, out, _ = output(capsys, lambda: cli.main(["predict", name, "--weights", str(model), "--json"]))
    check(out)
    (content,) = json.loads(out)
    assert content["image"] == name
    assert {entry["label"] for entry in content["predictions"]} == {"a" + EVIL, "b" + EVIL}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", EVIL],
        ["predict", "FOLDER/config.json", "--weights", EVIL],
        ["predict", "FOLDER/config.json", f"--{EVIL}"],
        ["summary", EVIL],
        ["list", EVIL],
        ["convert", EVIL, "out.keras"],
        ["convert", "FOLDER", f"nowhere/{EVIL}/out.keras"],
        ["convert", "FOLDER", EVIL],
        [EVIL],
    ],
)
def test_mistakes(arguments, model, capsys):
    arguments = [argument.replace("FOLDER", str(model)) for argument in arguments]
    code, _, errors = output(capsys, lambda: cli.main(arguments))
    assert code == 2
    check(errors)


def test_tensors(model, tmp_path, capsys):
    tensors = load_file(model / "model.safetensors")
    save_file({**tensors, f"mask{EVIL}": np.zeros(3, "float32")}, model / "model.safetensors")
    target = str(tmp_path / f"x{EVIL}.safetensors")
    code, out, errors = output(capsys, lambda: cli.main(["convert", str(model), target]))
    check(out + errors)


@pytest.mark.slow
def test_a_run(tmp_path, capsys, monkeypatch):
    """Its data, classes, files and folder; a broken picture; and what it prints at its end."""
    monkeypatch.setattr(ending, "draw_report", lambda *_: None)
    monkeypatch.setattr(ending, "rehearse", lambda *_: None)
    monkeypatch.setitem(variants.VARIANTS, "vit_cifar10", variants.get_variant("vit_cifar10", **TINY))
    for label in "ab":
        for i in range(9):
            picture(tmp_path / f"data{EVIL}" / f"{label}{EVIL}" / f"{i}{EVIL}.png")
    (tmp_path / f"data{EVIL}" / f"a{EVIL}" / f"bad{EVIL}.png").write_text("no picture")
    (tmp_path / f"data{EVIL}" / f"empty{EVIL}").mkdir()
    options = "--model vit_cifar10 --epochs 1 --batch-size 8 --crop none --max-bad 1".split()
    command = ["finetune", str(tmp_path / f"data{EVIL}"), "--out", str(tmp_path / f"run{EVIL}"), *options]
    code, out, errors = output(capsys, lambda: cli.main(command))
    assert code in (None, 0), errors
    check(out)
    assert "vit-tf predict IMAGE --weights $'" in out and r"\x1b]0;owned" in out
    code, out, errors = output(capsys, lambda: cli.main([*command, "--seed", "3"]))
    assert code == 2
    check(errors)
