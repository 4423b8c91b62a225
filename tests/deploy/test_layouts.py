import json

import pytest

from vit_tf.deploy import layouts
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.manifest import Manifest
from vit_tf.preprocessing import Preprocessing


def manifest(**options):
    return Manifest(
        **dict(
            format="openvino",
            precision="bfloat16",
            input_kind="uint8",
            input_name="images",
            output_names=("logits",),
            image_size=(32, 48),
            num_outputs=2,
            preprocessing=Preprocessing((32, 48)).to_dict(),
            labels=("a\nb", "c"),
            problem_type="single_label_classification",
            activation="linear",
            thresholds=None,
            source="",
            variant="vit",
        )
        | options
    )


@pytest.fixture
def out(tmp_path):
    (tmp_path / "vit" / "1").mkdir(parents=True)
    return tmp_path


def test_triton(out):
    layouts.write_server_files(out, {"vit": manifest()}, "triton")
    assert (out / "vit/config.pbtxt").read_text().splitlines() == [
        'name: "vit"',
        'backend: "openvino"',
        "max_batch_size: 64",
        'input [ { name: "images" data_type: TYPE_UINT8 dims: [ 32, 48, 3 ] } ]',
        'output [ { name: "logits" data_type: TYPE_FP32 dims: [ 2 ] label_filename: "labels.txt" } ]',
        "dynamic_batching { }",
        'parameters { key: "HINT_BF16" value { string_value: "YES" } }',
    ]
    assert (out / "vit/labels.txt").read_text() == "a b\nc\n"


def test_triton_with_onnx_and_without_labels(out):
    plain = manifest(format="onnx", precision="float32", input_kind="normalized", labels=None)
    layouts.write_server_files(out, {"vit": plain}, "triton")
    text = (out / "vit/config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in text and "TYPE_FP32 dims: [ 32, 48, 3 ]" in text
    assert "label" not in text and not (out / "vit/labels.txt").exists()


def test_openvino_model_server(out):
    layouts.write_server_files(out, {"vit": manifest(), "b": manifest(precision="float32")}, "ovms")
    first, second = (
        entry["config"] for entry in json.loads((out / "config.json").read_text())["model_config_list"]
    )
    assert first == {
        "name": "vit",
        "base_path": "vit",
        "plugin_config": {"INFERENCE_PRECISION_HINT": "bf16"},
    }
    assert second["plugin_config"] == {"INFERENCE_PRECISION_HINT": "f32"}


def test_tensorflow_serving(out):
    layouts.write_server_files(out, {"vit": manifest()}, "tfserving")
    line = '  config { name: "vit" base_path: "/models/vit" model_platform: "tensorflow" }'
    assert (out / "models.config").read_text().splitlines() == ["model_config_list {", line, "}"]


def test_formats_take_several_sizes():
    assert all(FORMATS[format].has_sizes for formats in layouts.LAYOUTS.values() for format in formats)


def test_names():
    assert layouts.model_name("my model/ä") == "my_model__"
