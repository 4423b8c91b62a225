"""LiteRT: TensorFlow's converter, with scales of activations from each batch or calibrated."""

import warnings

from vit_tf.deploy.quantizers.candidates import PRODUCTS, STEM, Candidate, Layer

REASONS = {"convolution": STEM, "attention": PRODUCTS}
SMALL = "TensorFlow's converter leaves weights of fewer than 1,024 values in float"
DENSE = "FULLY_CONNECTED"
CANDIDATES = (
    Candidate("dynamic range", {"static": False, "operators": "all"}, REASONS | {"convolution": SMALL}),
    Candidate("full integer, dense layers alone", {"static": True, "operators": DENSE}, REASONS),
    Candidate("full integer", {"static": True, "operators": "all"}, REASONS),
)
KINDS = {
    DENSE: "dense",
    "CONV_2D": "convolution",
    "DEPTHWISE_CONV_2D": "convolution",
    "BATCH_MATMUL": "attention",
}


def write(candidate, subject, source, images, path):
    """See `vit_tf.deploy.quantizers`."""
    import tensorflow as tf

    def batches():
        for i in range(len(images)):
            yield [images[i : i + 1]]

    saved_model = write_saved_model(subject, source)
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serving_default"])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if candidate.settings["static"]:
        converter.representative_dataset = batches
    if candidate.settings["operators"] == "all":
        path.write_bytes(converter.convert())
        return
    others = {node["op_name"] for node in operators(open_file(source / path.name))} - {DENSE}
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=sorted(others))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an interpreter that is to leave TensorFlow
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=batches, debug_options=options
        )
        path.write_bytes(debugger.get_nondebug_quantized_model())


def write_saved_model(subject, source):
    """Returns the path of the SavedModel that the converter reads, written once beside the float32 file."""
    from vit_tf.deploy.manifest import read_manifest
    from vit_tf.deploy.writers import savedmodel_file

    folder = source.parent / "saved_model"
    if not folder.exists():
        savedmodel_file.write(subject.model, read_manifest(source), folder)
    return str(folder)


def open_file(path):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES  # whose operators are one
    return Interpreter(model_path=str(path), experimental_op_resolver_type=resolver)


def operators(interpreter):
    """Returns the operators of a file: dicts with "op_name", "inputs" and "outputs"."""
    return interpreter._get_ops_details()  # there is no public way to see them


def layers(path):
    """See `vit_tf.deploy.quantizers`."""
    import numpy as np

    interpreter = open_file(path)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}
    found = []
    for node in operators(interpreter):
        if kind := KINDS.get(node["op_name"]):
            name = tensors[node["outputs"][0]]["name"].partition(";")[0]
            found.append(Layer(name, kind, tensors[node["inputs"][1]]["dtype"] == np.int8))
    return found
