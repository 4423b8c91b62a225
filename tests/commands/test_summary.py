import json

import keras
import pytest
from matplotlib.figure import Figure

from vit_tf import build_vit, classifier, get_preprocessing, plots
from vit_tf.commands.main import main


def printed(capsys, *arguments):
    main(["summary", *map(str, arguments)])
    return capsys.readouterr().out


def test_one_model(capsys):
    output = printed(capsys, "vit_cifar10_tutorial", "--batch-size", 2)
    assert "patch_encoder (PatchEncoder)" in output  # model.summary()
    for text in ("QKV", "attention scores", "284,874", "grow with the tokens squared"):
        assert text in output
    if keras.backend.backend() == "tensorflow":
        assert "TensorFlow's profiler" in printed(capsys, "vit_cifar10_tutorial", "--profiler")


@pytest.mark.parametrize("rest", [["--json"], ["--markdown"], ["vit_b16"]])
def test_the_profiler_is_for_one_model_as_text(rest):
    with pytest.raises(ValueError, match="--profiler prints a line of text for one model"):
        main(["summary", *rest, "vit_cifar10", "--profiler"])


def test_diagram_of_one_model(capsys, tmp_path):
    printed(capsys, "vit_cifar10", "--plot", tmp_path / "model.svg")
    assert "<svg" in (tmp_path / "model.svg").read_text()


@pytest.mark.slow
def test_json_and_markdown_have_the_same_numbers(capsys):
    content = json.loads(printed(capsys, "vit_b16", "--json"))
    assert content["totals"]["flops"] == 35_127_656_448
    markdown = printed(capsys, "vit_b16", "--markdown")
    assert "| 35,127,656,448 |" in markdown.splitlines()[-1]


def test_image_size_and_classes(capsys):
    content = json.loads(printed(capsys, "vit_b16", "--json", "--image-size", 384, "--num-classes", 10))
    assert content["totals"]["parameters"] == 86_859_496 - 990 * 769
    content = json.loads(printed(capsys, "vit_b16", "--json", "--image-size", "160x320"))
    assert content["components"][0]["macs"] == 200 * 768 * 768


@pytest.mark.slow
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
        (["vit_b16", "--image-size", "1x2x3"], "224 or 224x288"),
        (["vit_b16", "--batch-size", "0"], "must be a positive int"),
        (["vit_b16", "--plot", "models.txt"], "must end in .png"),
        (["vit_b16", "--plot", "missing/models.png"], "no folder 'missing'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        main(["summary", *arguments])


@pytest.mark.slow
def test_the_model_of_a_run_or_of_a_file(capsys, tmp_path):
    sizes, prepare = (
        dict(image_size=(32, 48), num_classes=3),
        get_preprocessing("test_vit", image_size=(32, 48)),
    )
    classifier.save(tmp_path / "model", build_vit("test_vit", **sizes), "test_vit", sizes, prepare, "abc")
    for source in (tmp_path, tmp_path / "model"):
        output = printed(capsys, source)
        assert "(None, 32, 48, 3)" in output and "attention scores" in output
    weights = tmp_path / "model" / "model.safetensors"
    content = json.loads(printed(capsys, weights, "--model", "test_vit", "--image-size", "32", "--json"))
    assert (
        content["totals"]["parameters"]
        == json.loads(printed(capsys, tmp_path, "--json"))["totals"]["parameters"] - 2 * 64
    )
    with pytest.raises(ValueError, match="bare file, which names no variant: add --model"):
        main(["summary", str(weights)])
    lines = printed(capsys, "cifar10", "vit_cifar10_hybrid", "--markdown").splitlines()
    assert lines[2] == lines[3] and "1,944,163" in lines[2]
