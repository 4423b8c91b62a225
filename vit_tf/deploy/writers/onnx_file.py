"""ONNX files, by the writer in `vit_tf.deploy.onnx`."""

from pathlib import Path
from typing import Any

from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.manifest import Manifest
from vit_tf.deploy.onnx import write_onnx

DEFAULT_OPSET = 23  # the first with the operator Attention, which ONNX Runtime computes faster than its parts


def write(model: Any, manifest: Manifest, folder: Path, opset: int | None = None) -> None:
    """Writes model.onnx into a folder, see `vit_tf.deploy.writers`."""
    preprocessing = None if manifest.input_kind == "normalized" else manifest.make_preprocessing()
    encoded = manifest.input_kind == "encoded"
    path = folder / FORMATS["onnx"].file
    sizes = manifest.image_sizes
    opset = opset or DEFAULT_OPSET
    write_onnx(model, path, manifest.precision, opset, preprocessing, encoded, image_sizes=sizes)
