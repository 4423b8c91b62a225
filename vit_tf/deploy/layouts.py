"""The folders that model servers read: TensorFlow Serving, OpenVINO Model Server and Triton.

Each model is a folder NAME with a folder per version, here 1, which is an exported folder as any other:

    tfserving    OUT/NAME/1/saved_model.pb, OUT/models.config
    ovms         OUT/NAME/1/model.xml, OUT/config.json
    triton       OUT/NAME/1/model.onnx, OUT/NAME/config.pbtxt, OUT/NAME/labels.txt

References: tensorflow.org/tfx/serving/serving_config; OpenVINO's documentation, "Prepare a Model Repository"
and "Model Server Parameters"; docs/user_guide/model_configuration.md in triton-inference-server/server, and
the README of triton-inference-server/openvino_backend.
"""

import json
import re
from pathlib import Path

from vit_tf.checks import check_choice, require
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.manifest import Manifest

LAYOUTS = {"tfserving": ("savedmodel",), "ovms": ("openvino", "onnx"), "triton": ("onnx", "openvino")}
VERSION = "1"
MOUNT = "/models"  # where TensorFlow Serving's container has the folder
MAX_BATCH_SIZE = 64  # of Triton
TRITON_TYPES = {"normalized": "TYPE_FP32", "uint8": "TYPE_UINT8"}
OPENVINO_HINTS = {"float32": "f32", "float16": "f32", "bfloat16": "bf16"}  # float16: the weights


def check_layout(layout: str | None, format: str) -> None:
    """Raises a ValueError for an unknown layout, or one whose server does not read the format."""
    check_choice("layout", layout, LAYOUTS, optional=True)
    formats = LAYOUTS[layout] if layout else FORMATS
    require(format in formats, f"the layout {layout} is for the format {' or '.join(formats)}, not {format}")


def model_name(variant: str) -> str:
    """Returns the name of a model's folder."""
    return re.sub(r"[^\w.-]", "_", variant, flags=re.ASCII)


def size_name(image_size: tuple[int, int]) -> str:
    """Returns "HEIGHTxWIDTH"."""
    return "{}x{}".format(*image_size)


def version_folder(out: Path, name: str, layout: str | None) -> Path:
    """Returns the exported folder of a model inside OUT."""
    return out / name / VERSION if layout else out / name


def write_server_files(out: Path, models: dict[str, Manifest], layout: str) -> None:
    """Writes the files of a server about its models, which are in their folders.

    Args:
        out: the folder of all models.
        models: dict from the names of the models' folders to their manifests.
        layout: a key of `LAYOUTS`.
    """
    if layout == "triton":
        for name, manifest in models.items():
            (out / name / "config.pbtxt").write_text(triton_config(name, manifest))
            if manifest.labels:
                labels = (" ".join(label.split()) for label in manifest.labels)  # one per line
                (out / name / "labels.txt").write_text("\n".join(labels) + "\n", "utf-8")
    elif layout == "ovms":
        configs = [{"config": ovms_config(name, manifest)} for name, manifest in models.items()]
        (out / "config.json").write_text(json.dumps({"model_config_list": configs}, indent=2) + "\n")
    else:
        lines = "".join(tfserving_config(name) for name in models)
        (out / "models.config").write_text(f"model_config_list {{\n{lines}}}\n")


def tfserving_config(name):
    path = f"{MOUNT}/{name}"
    return f'  config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" }}\n'


def ovms_config(name, manifest):
    """Returns the settings of a model, a dict. Its path is relative to config.json."""
    precision = OPENVINO_HINTS[manifest.precision]
    return {"name": name, "base_path": name, "plugin_config": {"INFERENCE_PRECISION_HINT": precision}}


def triton_config(name, manifest):
    """Returns the text of config.pbtxt."""
    height, width = (-1, -1) if manifest.image_sizes else manifest.image_size
    lines = [
        f'name: "{name}"',
        f'backend: "{FORMATS[manifest.format].runtime}"',
        f"max_batch_size: {MAX_BATCH_SIZE}",
        triton_tensor(
            "input", manifest.input_name, TRITON_TYPES[manifest.input_kind], f"{height}, {width}, 3"
        ),
    ]
    labels = ' label_filename: "labels.txt"' if manifest.labels else ""
    for output in manifest.output_names:
        lines.append(triton_tensor("output", output, "TYPE_FP32", manifest.num_outputs, labels))
    lines.append("dynamic_batching { }")
    if manifest.precision == "bfloat16":
        lines.append('parameters { key: "HINT_BF16" value { string_value: "YES" } }')
    return "\n".join(lines) + "\n"


def triton_tensor(kind, name, dtype, dims, more=""):
    return f'{kind} [ {{ name: "{name}" data_type: {dtype} dims: [ {dims} ]{more} }} ]'
