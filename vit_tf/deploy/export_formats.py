"""The export formats: their files, precisions, runtimes and extras. Plain data, importable without Keras."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """An export format.

    Args:
        file: the name of the model's main file in the exported folder.
        precisions: the values of `precision` that `vit_tf.export` takes for the format; none for a format
            that only `vit_tf.deploy.quantize` writes.
        runtime: the runtime of `vit_tf.deploy.runtimes` that reads the folder.
        modules: the modules that writing and checking it needs.
        extra: the extra of vit_tf that installs the modules; None for what vit_tf itself requires.
        has_sizes: bool, whether one file can take images of several sizes.
        others: the files without which the main file cannot be read.
    """

    file: str
    precisions: tuple[str, ...]
    runtime: str
    modules: tuple[str, ...]
    extra: str | None
    has_sizes: bool = False
    others: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the model needs, `file` first."""
        return self.file, *self.others


FORMATS = {
    "savedmodel": Format(
        "saved_model.pb",
        ("float32",),
        "savedmodel",
        ("tensorflow",),
        None,
        True,
        ("variables/variables.index",),
    ),
    "onnx": Format(
        "model.onnx", ("float32", "float16"), "onnxruntime", ("onnx", "onnxruntime"), "onnx", True
    ),
    "openvino": Format(
        "model.xml",
        ("float32", "float16", "bfloat16"),
        "openvino",
        ("openvino", "onnx"),
        "openvino",
        True,
        ("model.bin",),
    ),
    "litert": Format("model.tflite", ("float32", "float16"), "litert", ("ai_edge_litert",), "litert"),
    "web": Format("model.onnx", ("float32", "float16"), "onnxruntime", ("onnx", "onnxruntime"), "onnx"),
    "keras": Format("model.keras", (), "keras", ("keras",), None),
}
EXPORTED = tuple(name for name, entry in FORMATS.items() if entry.precisions)
MANIFEST = "vit_tf.json"  # in every exported folder
