"""`export`: a model as a folder that another runtime reads, checked against the Keras model."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any

from vit_tf.deploy.manifest import Manifest

if TYPE_CHECKING:
    import keras

    from vit_tf.classifier import Classifier
    from vit_tf.preprocessing import Preprocessing


def export(
    model_or_source: keras.Model | Classifier | str | PathLike,
    path: str | PathLike,
    *,
    format: str,
    precision: str = "float32",
    preprocessing: bool | Preprocessing = False,
    image_size: Any = None,
    opset: int | None = None,
    layout: str | None = None,
    force: bool = False,
    variant: str | None = None,
    progress: Callable[[str], Any] | None = None,
) -> Manifest | list[Manifest]:
    """Writes a model as a folder for another runtime, and checks it there against the Keras model.

    The folder has the model's file (see `vit_tf.deploy.formats.FORMATS`) and vit_tf.json, its `Manifest`,
    with labels, preprocessing and the measured agreement. It appears under its name only after the check.

    Args:
        model_or_source: a model of `build_vit`, a `Classifier`, or a source of `vit_tf.load`.
        path: the folder to write.
        format: "savedmodel", "onnx", "openvino", "litert" or "web".
        precision: "float32"; "float16" except for "savedmodel"; "bfloat16" for "openvino". OpenVINO and
            LiteRT store the weights in float16; OpenVINO computes in bfloat16 where the processor has it.
        preprocessing: True puts the normalisation into the graph, which then takes uint8 pixels of the
            model's image size; a SavedModel and ONNX also get a signature that takes encoded images.
            A `Preprocessing` replaces that of the model.
        image_size: int or (height, width) in pixels, to resample the position table to. A list of these
            writes one folder per size inside `path`. Defaults to the model's own size.
        opset: int, ONNX only.
        layout: "tfserving", "ovms" or "triton": writes the folders that this server reads.
        force: bool, whether to replace an exported folder at `path`.
        variant: name of the variant if `model_or_source` is a bare file of weights.
        progress: function that is called with a line of text per stage.

    Returns:
        The `Manifest` of the folder; a list of them for a list of image sizes.

    Raises:
        ValueError: an unknown format, a missing extra, a folder that exists, a model that cannot be exported,
            or an exported model whose outputs differ from the Keras model's. Nothing is left at `path`.
        OSError: the disk is full, or the folder cannot be written to.
    """
    raise NotImplementedError
