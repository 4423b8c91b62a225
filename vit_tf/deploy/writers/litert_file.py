"""LiteRT files (.tflite), by TensorFlow's converter."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras

from vit_tf.checks import require
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.manifest import Manifest
from vit_tf.deploy.writers import savedmodel_file

LARGEST = 1 << 31  # bytes of a flatbuffer


def write(model: keras.Model, manifest: Manifest, folder: Path, opset: Any = None) -> None:
    """Writes model.tflite into a folder, see `vit_tf.deploy.writers`.

    The names of the input and the outputs are in its signature "serving_default"; the positions of two
    outputs may be swapped. With the precision "float16" the weights are float16, and LiteRT computes in
    float32.
    """
    savedmodel_file.require_tensorflow("litert")
    num_bytes = model.count_params() * (2 if manifest.precision == "float16" else 4)
    problem = f"a LiteRT file holds less than {LARGEST:,} bytes, and the weights take {num_bytes:,}"
    require(num_bytes < LARGEST, f"{problem}: choose float16, or another format")
    with TemporaryDirectory(dir=folder.parent) as temporary:
        savedmodel_file.write(model, manifest, Path(temporary))
        content = convert(temporary, manifest.precision)
    (folder / FORMATS["litert"].file).write_bytes(content)


def convert(saved_model, precision):
    """Returns the bytes of a .tflite file of a SavedModel, which needs LiteRT's own operators alone."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serving_default"])
    if precision == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()
