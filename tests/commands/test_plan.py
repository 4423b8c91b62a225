"""`vit-tf plan`."""

import json
import re

import pytest
from support.command_line import printed
from support.paths import ROOT

from vit_tf.commands.main import main

TINY = ["plan", "test_vit", "--image-size", "32"]


def test_report(capsys):
    output = printed(
        capsys, *TINY, "--devices", 4, "--ema", "--images", 50000, "--image-kb", 3, "--epochs", 10
    )
    paragraphs = dict(text.split("\n", 1) for text in output.split("\n\n") if "\n" in text)
    assert output.startswith(
        "test_vit at 32x32 on 4 x NVIDIA H100 SXM (1 host of 4)\n50,000 images, 10 epochs"
    )
    assert "Recommended: data parallel, without rematerialisation." in output
    header, *rows = paragraphs["Time"].splitlines()
    assert header.split()[:3] == ["layout", "remat", "fits"] and len(rows) == 4  # two heads: model 2
    assert [row.split()[0] for row in rows] == ["data", "data", "model", "model"]
    assert len(paragraphs["Memory per device, GB"].splitlines()) == 5
    assert len(paragraphs["All-reduce per step: what each device sends"].splitlines()) == 5
    assert "- training reaches 37 % of the peak of 989.4 TFLOP/s in bfloat16" in output
    assert all(line == line.rstrip() for line in output.splitlines())


def test_json(capsys):
    options = ["--images-per-second", 100, "--devices", 2, "--layout", "data", "--remat", "--json"]
    plan = json.loads(printed(capsys, *TINY, *options))
    (layout,) = plan["layouts"]
    assert layout["remat"] and layout["layout"] == "data" and plan["recommended"] == layout
    assert layout["images_per_second"] == pytest.approx(2 * 75, rel=0.01)  # the forward pass twice
    assert plan["cluster"]["devices_per_host"] == 2 and plan["job"]["steps"] == 300 * 1252
    assert plan["input"]["cores"] == pytest.approx(layout["images_per_second"] / 294)
    assert "as given" in plan["assumptions"][0]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--device", "h10"], "--device must be one of .* \\(did you mean 'h100'\\?\\)"),
        (["--dataset", "imagenet"], "unknown --dataset 'imagenet' \\(did you mean 'imagenet1k'\\?\\)"),
        (["--devices", "64", "--batch-size", "1000"], "batch of 1000 cannot be divided among 64 devices"),
        (["--devices", "12"], "--devices 12 do not fill hosts of 8 each"),
        (["--devices", "0"], "--devices must be a positive int"),
        (["--epochs", "-1"], "--epochs must be a positive int"),
        (["--batch-size", "0"], "--batch-size must be a positive int"),
        (["--images", "0"], "--images must be"),
        (["--images", "10", "--image-kb", "-3"], "--image-kb must be a positive number, got -3"),
        (["--image-kb", "3"], "--image-kb goes with --images"),
        (["--images", "10", "--dataset", "cifar10"], "either --dataset or --images"),
        (["--link", "0"], "--link must be a positive number"),
        (["--efficiency", "1.5"], "--efficiency must be a number in \\(0, 1\\], got 1.5"),
        (["--images-per-second", "nan"], "--images-per-second must be a number in \\(0, 1e9\\]"),
        (["--images-per-second", "1e300"], "--images-per-second must be a number in \\(0, 1e9\\]"),
        (["--images-per-core", "inf"], "--images-per-core must be a positive number"),
        (["--layout", "pipeline"], "--layout must be one of"),
        (["--layout", "model"], "--devices 1 cannot be split into groups of 2"),
        (["--devices", "8", "--model-parallel", "4"], "2 attention heads cannot be split among 4 devices"),
        (["--devices", "8", "--model-parallel", "1"], "--model-parallel must be"),
        (["--layout", "data", "--model-parallel", "2"], "--model-parallel goes with --layout model"),
        (["--precision", "float16"], "--precision must be one of"),
        (["--optimizer", "lion"], "--optimizer must be one of"),
        (["--image-size", "33"], "patch size"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        main([*TINY, *options])


def test_the_guide_shows_what_the_command_prints(capsys):
    text = (ROOT / "docs" / "guides" / "planning.md").read_text("utf-8")
    shown = re.findall(r"```bash\nvit-tf (plan [^\n]*)\n```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(shown) == 2
    for command, output in shown:
        assert printed(capsys, *command.split()) == output


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="unknown variant 'vit_b17'"):
        main(["plan", "vit_b17"])
