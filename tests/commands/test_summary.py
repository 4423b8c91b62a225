import importlib.util
import json
import os
import subprocess
import sys

import keras
import pytest
from matplotlib.figure import Figure
from support.paths import ROOT

from vit_tf import plots

SCRIPT = ROOT / "scripts" / "report.py"

spec = importlib.util.spec_from_file_location("report", SCRIPT)
report = importlib.util.module_from_spec(spec)
spec.loader.exec_module(report)


def printed(capsys, *arguments):
    report.main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_one_model(capsys):
    output = printed(capsys, "vit_cifar10_tutorial", "--batch-size", 2)
    assert "patch_encoder (PatchEncoder)" in output  # model.summary()
    for text in ("QKV", "attention scores", "284,874", "grow with the tokens squared"):
        assert text in output
    if keras.backend.backend() == "tensorflow":
        assert "TensorFlow's profiler" in output


def test_diagram_of_one_model(capsys, tmp_path):
    printed(capsys, "vit_cifar10", "--plot", tmp_path / "model.svg")
    assert "<svg" in (tmp_path / "model.svg").read_text()


def test_json_and_markdown_have_the_same_numbers(capsys):
    content = json.loads(printed(capsys, "vit_b16", "--json"))
    assert content["totals"]["flops"] == 35_127_656_448
    markdown = printed(capsys, "vit_b16", "--markdown")
    assert "| 35,127,656,448 |" in markdown.splitlines()[-1]


def test_image_size_and_classes(capsys):
    content = json.loads(printed(capsys, "vit_b16", "--json", "--image-size", 384, "--num-classes", 10))
    assert content["totals"]["parameters"] == 86_859_496 - 990 * 769
    content = json.loads(printed(capsys, "vit_b16", "--json", "--image-size", 160, 320))
    assert content["components"][0]["macs"] == 200 * 768 * 768


def test_comparison(capsys, tmp_path, monkeypatch):
    drawn = []
    plot = tmp_path / "models.png"
    output = printed(capsys, "vit_b16", "vit_tiny_*", "vit_b16", "--plot", plot)
    assert output.count("vit_base_patch16_224") == 1
    for text in ("vit_tiny_patch16_224", "vit_tiny_patch16_384", "17.56", "35.13", "384x384"):
        assert text in output
    assert plot.read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr(plots, "model_sizes", lambda rows, title: drawn.extend(rows) or Figure())
    printed(capsys, "vit_b16", "vit_ti16", "--batch-size", 3, "--plot", plot)
    assert drawn[0] == ("vit_base_patch16_224", 86_567_656, 17.563828224)
    assert drawn[1] == ("vit_tiny_patch16_224", 5_717_416, pytest.approx(1.2537, rel=1e-3))
    tables = json.loads(printed(capsys, "vit_b16", "vit_ti16", "--json"))
    assert [table["model"] for table in tables] == ["vit_base_patch16_224", "vit_tiny_patch16_224"]
    lines = printed(capsys, "vit_b16", "vit_ti16", "--markdown").splitlines()
    assert len(lines) == 4 and lines[0].startswith("| model | image | parameters |")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["vit_base_patch16_24"], "did you mean 'vit_base_patch16_224'"),
        (["resnet*"], "no variant matches 'resnet"),
        (["vit_b16", "--image-size", "225"], "nearest are 224 and 240"),
        (["vit_b16", "--image-size", "1", "2", "3"], "one number or two"),
        (["vit_b16", "--batch-size", "0"], "must be positive"),
        (["vit_b16", "--plot", "models.txt"], "must end in .png"),
        (["vit_b16", "--plot", "missing/models.png"], "no folder 'missing'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        report.main(arguments)


def test_as_a_command():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), "vit_bas16", "--json"]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr.splitlines()[-1].startswith("error: unknown variant 'vit_bas16'")
    assert "Traceback" not in process.stderr
