import json
import os
import shutil
import signal

import keras
import numpy as np
import pytest
from conftest import randomize
from keras import ops
from PIL import Image

from vit_tf import build_vit, decode_predictions, get_preprocessing, load, save_weights
from vit_tf.commands import main as cli
from vit_tf.hub.sources import open_checkpoint
from vit_tf.variants import VARIANTS


def exit_code(main):
    with pytest.raises(SystemExit) as caught:
        cli.run(main)
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
        cli.run(failing(ZeroDivisionError()))


def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("VIT_TF_TRACEBACK", "1")
    with pytest.raises(ValueError):
        cli.run(failing(ValueError("a")))


def test_sigterm_is_like_ctrl_c(capsys):
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert exit_code(lambda: signal.raise_signal(signal.SIGTERM)) == 130
    finally:
        signal.signal(signal.SIGTERM, before)


# ---------------------------------------------------------------------------------------------------
# The commands
# ---------------------------------------------------------------------------------------------------
def printed(capsys, *arguments):
    cli.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_list(capsys):
    output = printed(capsys, "list", "*reg4_dinov2")
    assert "vit_giant_patch14_reg4_dinov2  DINOv2 with registers: num_registers=4" in output
    assert output.splitlines()[-1] == "4 variants"
    assert "ViT: plain" in printed(capsys, "list", "vit_tiny_patch16_224")
    assert "vit_base_patch16_224  ViT: plain" in printed(capsys, "list", "vit_b1?")
    names = [line.split()[0] for line in printed(capsys, "list").splitlines()]
    assert names == [*VARIANTS, str(len(VARIANTS))]
    markdown = printed(capsys, "list", "test_vit", "--markdown").splitlines()
    assert markdown[0].startswith("| model | family |") and "| 371,240 | 0.04 | 160 |" in markdown[2]


def test_summary(capsys):
    output = printed(capsys, "summary", "test_vit", "--image-size", "32x48", "--num-classes", 3)
    for text in ("patch_encoder (PatchEncoder)", "(None, 32, 48, 3)", "attention scores", "grow with the"):
        assert text in output


@pytest.fixture
def hub(tmp_path):
    """A model in a folder laid out as a hub repository, and a photograph's path."""
    model = randomize(build_vit("test_vit", image_size=32, num_classes=4))
    save_weights(model, tmp_path / "model.safetensors")
    config = dict(
        architecture="test_vit",
        label_names=["apple", "pear", "plum", "quince"],
        pretrained_cfg=dict(input_size=[3, 32, 32], mean=[0.4, 0.5, 0.6], std=[0.2, 0.2, 0.3], crop_pct=0.8),
    )
    (tmp_path / "config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3)).astype("uint8")
    (tmp_path / "folder.keras").mkdir()
    for i, pixels in enumerate(noise):
        Image.fromarray(pixels).save(tmp_path / f"obst {i}.png")
    return model, tmp_path


def test_predict(capsys, hub):
    model, folder = hub
    pictures = [folder / "obst 0.png", folder / "obst 1.png"]
    logits = model(get_preprocessing(folder)(pictures))
    expected = decode_predictions(logits, 2, ["apple", "pear", "plum", "quince"])
    content = json.loads(printed(capsys, "predict", *pictures, "--weights", folder, "--top", 2, "--json"))
    for image, best, found in zip(pictures, expected, content):
        assert found["image"] == str(image)
        assert [p["label"] for p in found["predictions"]] == [label for label, _ in best]
        np.testing.assert_allclose(
            [p["probability"] for p in found["predictions"]], [p for _, p in best], 1e-4
        )
    lines = printed(capsys, "predict", *pictures, "--weights", folder).splitlines()
    assert len(lines) == 10 and lines[0] == str(pictures[0])
    assert lines[1] == f"  {expected[0][0][1]:6.1%}  {expected[0][0][0]}"


def test_predict_with_a_bare_file_and_many_images(capsys, hub):
    model, folder = hub
    weights = folder / "model.safetensors"
    with pytest.raises(ValueError, match="bare file, which names no variant"):
        printed(capsys, "predict", folder / "obst 0.png", "--weights", weights)
    output = printed(
        capsys, "predict", *[folder / "obst 0.png"] * 9, "--weights", weights, "--model", "test_vit"
    )
    assert output.count("class 3") == 9


def test_predict_good_files_beside_bad_ones(capsys, hub, monkeypatch):
    _, folder = hub
    monkeypatch.chdir(folder)
    photos = folder / "photos"
    (photos / "deep").mkdir(parents=True)
    for i, name in enumerate(("10.png", "9.png", "deep/bare")):
        shutil.copy(folder / f"obst {i % 2}.png", photos / name)
    (photos / "notes.txt").write_text("words")
    (photos / "bad.jpg").write_text("words")
    (photos / "zero.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    options = ["--weights", str(folder), "--top", "1"]
    classifier = load(folder)
    monkeypatch.setattr("vit_tf.classifier.load", lambda source, variant: classifier)

    def predicted(*arguments):
        code = cli.main(["predict", *arguments, *options])
        out, err = capsys.readouterr()
        names = [line for line in out.splitlines() if not line.startswith(" ")]
        return code, names, err.splitlines()

    good = [f"photos/{name}" for name in ("9.png", "10.png", "deep/bare")]
    code, names, errors = predicted("photos", "gone.png", "pipe.png", "obst 0.png", "https://x.org/a.png")
    assert (code, names) == (1, [*good, "obst 0.png"])
    assert [line.split(":")[0] for line in errors] == ["note", "note"] + ["error"] * 4
    for part, line in zip(("1 .txt", "zero.jpg", "gone.png", "bad.jpg", "pipe.png", "//x.org/a.png"), errors):
        assert part in line
    assert predicted("obst*.png", "photos/**/[b1]*") == (
        1,
        ["obst 0.png", "obst 1.png", "photos/10.png", "photos/deep/bare"],
        [errors[3]],
    )
    assert predicted("photos/deep") == (0, ["photos/deep/bare"], [])
    assert predicted("pho*/deep", "photos/*/") == (0, ["photos/deep/bare"] * 2, [])
    for bad in (["photos/bad.jpg"], ["*.webp"], ["gone.png", "pipe.png"], ["a" * 100_000]):
        code, names, errors = predicted(*bad)
        assert (code, names, len(errors)) == (2, [], len(bad)) and len(errors[0]) < 2000
    (folder / "empty").mkdir()
    assert predicted("empty")[0] == 2
    content = json.loads(printed(capsys, "predict", "photos", "gone.png", "--json", *options))
    assert [image["image"] for image in content] == good


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


@pytest.mark.parametrize("ending", [".safetensors", ".weights.h5", ".keras"])
def test_convert(capsys, hub, ending):
    model, folder = hub
    out = folder / f"out{ending}"
    output = printed(capsys, "convert", folder, out)
    assert f"wrote test_vit to {out}" in output and "80 tensors from" in output
    if ending == ".keras":
        again = keras.models.load_model(out)
    else:
        again = build_vit("test_vit", image_size=32, num_classes=4, weights=out)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(again(x), model(x), atol=1e-6)
    with pytest.raises(ValueError, match="already exists"):
        printed(capsys, "convert", folder, out)
    output = printed(capsys, "convert", folder, out, "--force", "--image-size", 48, "--num-classes", 2)
    assert "the head is new" in output and "resampled pos_embed: (2, 2) to (3, 3)" in output
    assert [path.name for path in folder.glob("partial*")] == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["list", "resnet*"], "no variant matches 'resnet"),
        (["summary", "vit_b17"], "did you mean 'vit_b16'"),
        (["summary", "vit_b16", "--image-size", "1x2x3"], "224 or 224x288"),
        (["convert", "FOLDER/model.safetensors", "FOLDER/out.keras"], "add --model NAME"),
        (["convert", "FOLDER", "FOLDER/folder.keras", "--force"], "is a folder"),
        (["predict", "missing.jpg", "--weights", "FOLDER"], "no image at 'missing.jpg'"),
        (["predict", "FOLDER/config.json", "--weights", "FOLDER"], "not an image"),
        (["predict", "FOLDER/obst 0.png", "--weights", "FOLDER", "--top", "0"], "at least 1"),
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


def test_features_are_no_predictions(capsys, hub):
    _, folder = hub
    model = build_vit("test_vit", image_size=32, num_classes=0)
    save_weights(model, folder / "model.safetensors")
    with pytest.raises(ValueError, match="has no head"):
        printed(capsys, "predict", folder / "obst 0.png", "--weights", folder)
    assert ops.shape(model(np.zeros((1, 32, 32, 3), "float32"))) == (1, 64)
