"""OpenVINO's files (model.xml and model.bin), from the ONNX graph of our own writer.

That graph has an operator each for LayerNormalization and GELU, where TensorFlow's has them in pieces: it
reaches OpenVINO with fewer nodes.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vit_tf.checks import require
from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.manifest import Manifest
from vit_tf.deploy.onnx import write_onnx


def write(model: Any, manifest: Manifest, folder: Path, opset: Any = None) -> None:
    """Writes model.xml and model.bin into a folder, see `vit_tf.deploy.writers`.

    With the precisions "float16" and "bfloat16" the weights are float16. What the model computes in is set
    when it is opened, by `Manifest.precision`.
    """
    import openvino

    preprocessing = manifest.make_preprocessing() if manifest.input_kind == "uint8" else None
    with TemporaryDirectory(dir=folder.parent) as temporary:
        path = Path(temporary) / "model.onnx"
        write_onnx(model, path, preprocessing=preprocessing, image_sizes=manifest.image_sizes)
        # `convert_model` forks processes for its telemetry. It also transposes the weights in the file, which
        # makes no inference faster: the processor's plugin does so when it compiles the model.
        converted = openvino.Core().read_model(path)
        names = [sorted(output.names) for output in converted.outputs]
        expected = [[name] for name in manifest.output_names]
        require(names == expected, f"OpenVINO reads the outputs {names}, expected {expected}")
        is_half = manifest.precision != "float32"
        openvino.save_model(converted, folder / FORMATS["openvino"].file, compress_to_fp16=is_half)
