"""`vit-tf predict`: its three outputs, the images that it finds, and what remains after an interrupt."""

import csv
import io
import json
import os
import shutil
import sys

import numpy as np
import pytest
from support.exported import LABELS, PREPROCESSING, expected_logits

from vit_tf import classifier, decode_predictions, get_preprocessing, load
from vit_tf.commands.main import main
from vit_tf.deploy import predictor
from vit_tf.preprocessing import Preprocessing


def run(capsys, *arguments):
    """Returns (exit code, stdout, stderr) of the command."""
    code = main(["predict", *map(str, arguments)])
    return code, *capsys.readouterr()


def printed(capsys, *arguments):
    return run(capsys, *arguments)[1]


def test_predict(capsys, hub):
    model, folder = hub
    pictures = [folder / "obst 0.png", folder / "obst 1.png"]
    logits = model(get_preprocessing(folder)(pictures))
    expected = decode_predictions(logits, 2, ["apple", "pear", "plum", "quince"])
    content = json.loads(printed(capsys, *pictures, "--weights", folder, "--top", 2, "--json"))
    for image, best, found in zip(pictures, expected, content):
        assert found["image"] == str(image)
        assert [p["label"] for p in found["predictions"]] == [label for label, _ in best]
        np.testing.assert_allclose(
            [p["probability"] for p in found["predictions"]], [p for _, p in best], 1e-4
        )
    lines = printed(capsys, *pictures, "--weights", folder).splitlines()
    assert len(lines) == 10 and lines[0] == str(pictures[0])
    assert lines[1] == f"  {expected[0][0][1]:6.1%}  {expected[0][0][0]}"


@pytest.mark.slow
def test_predict_with_a_bare_file_and_many_images(capsys, hub):
    model, folder = hub
    weights = folder / "model.safetensors"
    with pytest.warns(UserWarning, match="looks like test_vit: building that"):
        assert "class 3" in printed(capsys, folder / "obst 0.png", "--weights", weights)
    output = printed(capsys, *[folder / "obst 0.png"] * 9, "--weights", weights, "--model", "test_vit")
    assert output.count("class 3") == 9


@pytest.mark.slow
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
    loaded = load(folder)
    monkeypatch.setattr(classifier, "load", lambda source, variant, headless: loaded)

    def predicted(*arguments):
        code, out, err = run(capsys, *arguments, *options)
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
    content = json.loads(printed(capsys, "photos", "gone.png", "--json", *options))
    assert [image["image"] for image in content] == good


def rows_of(path):
    return list(csv.reader(io.StringIO(path.read_text())))


@pytest.mark.slow
def test_csv(capsys, hub, monkeypatch):
    model, folder = hub
    images = [folder / "obst 0.png", folder / "obst 1.png"]
    out = folder / "out.csv"
    options = ["--weights", folder, "--top", 2, "--csv"]
    assert run(capsys, *images, *options, out) == (0, f"wrote 2 rows to {out}\n", "")
    expected = decode_predictions(model(get_preprocessing(folder)(images)), 2, load(folder).labels)
    header, *rows = rows_of(out)
    assert header == ["image", "predicted", "label_1", "probability_1", "label_2", "probability_2"]
    assert [row[0] for row in rows] == [str(path) for path in images]
    for row, best in zip(rows, expected):
        assert row[1] == row[2] == best[0].label and row[4] == best[1].label
        np.testing.assert_allclose([float(row[3]), float(row[5])], [p for _, p in best], 1e-4)
    with pytest.raises(ValueError, match="already exists: choose another name, or add --force"):
        run(capsys, *images, *options, out)
    run(capsys, images[0], *options, out, "--force")
    assert len(rows_of(out)) == 2
    assert run(capsys, images[0], *options, "-")[1] == out.read_text()


@pytest.mark.slow
def test_a_list_of_paths_on_stdin(capsys, hub, monkeypatch):
    _, folder = hub
    images = [str(folder / "obst 0.png"), str(folder / "obst 1.png")]
    for text in ("\n".join([*images, ""]), "\0".join([*images, ""])):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        content = json.loads(printed(capsys, "-", "--weights", folder, "--json"))
        assert [image["image"] for image in content] == images
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"missing.png\n")))
    code, _, errors = run(capsys, "-", "--weights", folder)
    assert code == 2 and "no image at 'missing.png'" in errors
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(ValueError, match="reads paths from stdin, one per line, and there is none"):
        run(capsys, "-", "--weights", folder)


@pytest.mark.slow
def test_an_interrupt_leaves_whole_lines(capsys, hub, monkeypatch):
    _, folder = hub
    image, out, decode = folder / "obst 0.png", folder / "out.csv", predictor.Predictor.decode
    sizes = []

    def interrupted(self, outputs, top):
        sizes.append(len(outputs))
        if len(sizes) % 3 == 0:
            raise KeyboardInterrupt
        return decode(self, outputs, top)

    monkeypatch.setattr(predictor.Predictor, "decode", interrupted)
    command = ["predict", *[str(image)] * 7, "--weights", str(folder), "--batch-size", "2"]
    with pytest.raises(KeyboardInterrupt):
        main([*command, "--json"])
    lines = capsys.readouterr().out.splitlines()
    assert len(json.loads("\n".join(lines))) == 4 and len(lines) == 6
    with pytest.raises(KeyboardInterrupt):
        main([*command, "--csv", str(out)])
    assert len(rows_of(out)) == 5 and out.read_text().endswith("\n")
    assert set(sizes) == {2}


@pytest.mark.slow
def test_threshold(capsys, hub):
    _, folder = hub
    image = folder / "obst 0.png"
    config = json.loads((folder / "config.json").read_text())
    options = [image, "--weights", folder, "--top", 4, "--json", "--threshold"]

    def selected(threshold):
        (result,) = json.loads(printed(capsys, *options, threshold))
        scores = {each["label"]: each["probability"] for each in result["predictions"]}
        names = {each["label"] for each in result["predictions"] if each["selected"]}
        assert names == {name for name, p in scores.items() if p >= threshold}
        return names, sorted(scores.values())

    _, scores = selected(0.9)
    assert sum(scores) == pytest.approx(1)
    assert len(selected(scores[-2])[0]) == 2
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    _, scores = selected(0.5)
    assert len(selected(scores[1])[0]) == 3
    rows = list(
        csv.reader(io.StringIO(printed(capsys, *options[:3], "--csv", "-", "--threshold", scores[1])))
    )
    assert len(rows[1][1].split("|")) == 3
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": "regression"}))
    with pytest.raises(ValueError, match="thresholds are for classes"):
        printed(capsys, *options, 0.5)
    header, row = csv.reader(io.StringIO(printed(capsys, *options[:3], "--csv", "-")))
    assert header[:3] == ["image", "label_1", "value_1"] and len(row) == len(header) == 9
    assert row[1::2] == list(config["label_names"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--top", "0"], "--top must be a positive int, got 0"),
        (["--batch-size", "0"], "--batch-size must be a positive int"),
        (["--threshold", "1.5"], r"--threshold must be a number in \[0, 1\], got 1.5"),
        (["--csv", "nowhere/a.csv"], "there is no folder 'nowhere' for --csv 'a.csv'"),
        (["--weights", "missing.npz"], "no file or folder 'missing.npz'"),
        (["--model", "vit_b17"], "did you mean 'vit_b16'"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        main(["predict", "a.jpg", *arguments])


# ---------------------------------------------------------------------------------------------------
# Exported folders
# ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("runtime", ["auto", "onnxruntime", "openvino"])
def test_a_runtime(capsys, exported, tmp_path, runtime):
    folder, paths = exported
    options = ["--weights", folder, "--runtime", runtime, "--top", 2]
    out = tmp_path / "a.csv"
    assert run(capsys, tmp_path / "photos", *options, "--csv", out) == (0, f"wrote 7 rows to {out}\n", "")
    header, *rows = rows_of(out)
    assert len(header) == 6 and [row[0] for row in rows] == [str(path) for path in paths]
    logits = expected_logits(Preprocessing(**PREPROCESSING)(paths))
    for row, [(label, probability), _] in zip(rows, decode_predictions(logits, 2, LABELS)):
        assert row[1] == row[2] == label and float(row[3]) == pytest.approx(probability, rel=1e-4)


def test_bad_runtimes(exported, tmp_path):
    folder, paths = exported
    for arguments, message in (
        (
            ["--runtime", "onnxruntim"],
            r"--runtime must be .* 'auto', got .* \(did you mean 'onnxruntime'\?\)",
        ),
        (["--runtime", "openvino"], "openvino reads folders of `vit-tf export`, and 'cifar10' is none"),
        (["--runtime", "keras", "--weights", folder], "keras does not read the format 'onnx'"),
        (["--weights", folder, "--resume"], "--resume continues a file: add --csv FILE"),
        (["--weights", folder, "--threads", 0], "--threads must be a positive int"),
        (["--weights", tmp_path], "has no config.json"),
        (["--weights", paths[0]], r"0.png' is an image \(PNG\), not weights: see SOURCE in `vit-tf --help`"),
        (["--weights", __file__], "a weight file must end in .safetensors, .*test_predict.py'"),
    ):
        with pytest.raises(ValueError, match=message):
            main(["predict", str(paths[0]), *map(str, arguments)])
    (folder / "model.onnx").write_bytes(b"words")
    with pytest.raises(ValueError, match="model.onnx' cannot be opened by openvino"):
        main(["predict", str(paths[0]), "--weights", str(folder)])
