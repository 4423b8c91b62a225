import shutil

import pytest
from conftest import randomize
from support.exported import write_folder

from vit_tf import build_vit, save_weights
from vit_tf.commands import main as cli
from vit_tf.commands.parser import run
from vit_tf.deploy import read_manifest

pytestmark = pytest.mark.tensorflow_only


@pytest.fixture
def source(hub, tmp_path):
    """A small model's folder, and a folder to write to."""
    (tmp_path / "to").mkdir()
    return hub[1], tmp_path / "to"


def fails(*arguments):
    """Returns the exit code of a command."""
    with pytest.raises(SystemExit) as caught:
        run(lambda: cli.main([str(argument) for argument in arguments]))
    return caught.value.code


@pytest.mark.slow
def test_stages_are_printed(capsys, source):
    folder, to = source
    assert cli.main(["export", str(folder), str(to / "out"), "--format", "onnx", "--preprocessing"]) == 0
    first, second, third, last = capsys.readouterr().out.splitlines()
    assert first == "writing onnx in float32, for uint8 images of 32 x 32 pixels"
    assert second == "comparing with the Keras model on 64 images"
    assert third.startswith("largest difference ") and "top-1 agreement" in third
    assert last.startswith(f"wrote test_vit to {to / 'out'} (1.")
    manifest = read_manifest(to / "out")
    assert manifest.labels == ("apple", "pear", "plum", "quince")
    assert manifest.preprocessing["mean"] == [0.4, 0.5, 0.6]


@pytest.mark.slow
def test_several_sizes_in_a_layout(capsys, source):
    folder, to = source
    options = ["--format", "onnx", "--layout", "triton", "--image-size", "32,48x32", "--model", "test_vit"]
    assert cli.main(["export", str(folder), str(to / "models"), *options]) == 0
    assert [path.name for path in (to / "models").iterdir()] == ["test_vit"]
    assert read_manifest(to / "models" / "test_vit" / "1").image_sizes == ((32, 32), (48, 32))
    assert "dims: [ -1, -1, 3 ]" in (to / "models" / "test_vit" / "config.pbtxt").read_text()
    assert "for normalized images of 32 x 32 or 48 x 32 pixels" in capsys.readouterr().out
    assert cli.main(["export", str(folder), str(to / "models"), "--format", "onnx", "--force"]) == 0
    assert (to / "models" / "model.onnx").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--format", "pdf"], "`format` must be one of 'savedmodel'"),
        (["--format", "onxx"], "did you mean 'onnx'"),
        ([], "arguments are required: --format"),
        (
            ["--format", "litert", "--precision", "int8"],
            "must be one of float32, float16",
        ),
        (["--format", "openvino", "--opset", "23"], "`opset` is for ONNX"),
        (["--format", "onnx", "--opset", "99"], "`opset` must be an int from 20"),
        (["--format", "onnx", "--layout", "tfserving"], "layout tfserving is for the format savedmodel"),
        (["--format", "onnx", "--layout", "kserve"], "`layout` must be one of 'tfserving'"),
        (["--format", "onnx", "--image-size", "32,"], "--image-size must be 224 or 224x288"),
        (["--format", "onnx", "--image-size", "32,32"], "a list of different sizes"),
        (["--format", "onnx", "--image-size", "33"], "33"),
        (["--format", "onnx", "--model", "vit_b17"], "did you mean 'vit_b16'"),
    ],
)
def test_mistakes_are_one_line(capsys, source, options, message):
    folder, to = source
    assert fails("export", folder, to / "out", *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert list(to.iterdir()) == []


def test_a_folder_that_exists(capsys, source):
    folder, to = source
    assert fails("export", folder, to, "--format", "onnx") == 2
    assert "already exists: choose another name, or add --force" in capsys.readouterr().err
    assert fails("export", folder, folder, "--format", "onnx", "--force") == 2
    assert "is no exported folder" in capsys.readouterr().err
    assert (folder / "config.json").exists()
    assert fails("export", folder, to / "no" / "out", "--format", "onnx") == 2
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["export", "quantize"])
def test_a_source_that_is_exported(capsys, tmp_path, command):
    folder = write_folder(tmp_path / "exported", source="runs/pets")
    options = (
        ["--format", "onnx"] if command == "export" else ["--data", "sample", "--runtime", "onnxruntime"]
    )

    def message(source):
        assert fails(command, source, tmp_path / "out", *options) == 2
        return capsys.readouterr().err

    for source in (folder, folder / "model.onnx"):
        assert "and weights are expected: give what it was exported from, 'runs/pets'" in message(source)
    (folder / "vit_tf.json").unlink()
    hint = "model.onnx' has no vit_tf.json beside it, which `vit-tf export` writes: give weights"
    for source in (folder, folder / "model.onnx"):
        assert hint in message(source)


def test_labels_of_another_model(capsys, source):
    folder, to = source
    save_weights(randomize(build_vit("test_vit", image_size=32, num_classes=3)), folder / "model.safetensors")
    assert fails("export", folder, to / "out", "--format", "onnx") == 2
    error = capsys.readouterr().err
    assert "has labels of another model" in error and error.count("\n") == 1
    assert list(to.iterdir()) == []


def test_a_missing_extra_is_found_before_keras(monkeypatch, capsys, source):
    folder, to = source
    monkeypatch.setattr("vit_tf.deploy.extras.find_spec", lambda name: None)
    monkeypatch.setattr("vit_tf.commands.export.import_backend", lambda **_: pytest.fail("Keras"))
    assert fails("export", folder, to / "out", "--format", "litert") == 2
    assert "pip install 'vit_tf[litert]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_without_a_head_gives_features(source):
    folder, to = source
    save_weights(randomize(build_vit("test_vit", image_size=32, num_classes=0)), folder / "model.safetensors")
    assert cli.main(["export", str(folder), str(to / "out"), "--format", "onnx"]) == 0
    manifest = read_manifest(to / "out")
    assert manifest.output_names == ("features",) and manifest.labels is None
    shutil.rmtree(to / "out")
