"""ONNX files, by the writer in `vit_tf.deploy.onnx`."""

from pathlib import Path
from typing import Any

from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.manifest import Manifest
from vit_tf.deploy.onnx import write_onnx

DEFAULT_OPSET = 20


def write(model: Any, manifest: Manifest, folder: Path, opset: int | None = None) -> None:
    """Writes model.onnx into a folder, see `vit_tf.deploy.writers`."""
    preprocessing = manifest.make_preprocessing() if manifest.input_kind == "uint8" else None
    path = folder / FORMATS["onnx"].file
    write_onnx(model, path, manifest.precision, opset or DEFAULT_OPSET, preprocessing)
