"""Small exported folders of every format, written by the libraries of the runtimes.

The model is linear, with two heads: the logits are the image's mean colour times `WEIGHTS`, and
"distillation_logits" are twice the logits.
"""

from pathlib import Path

import numpy as np

from vit_tf.deploy.export_formats import FORMATS
from vit_tf.deploy.manifest import Manifest, write_manifest

SIZE = (6, 8)
WEIGHTS = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
LABELS = ("apple", "pear", "plum", "quince")
NAMES = ("logits", "distillation_logits")
PREPROCESSING = dict(
    image_size=list(SIZE),
    interpolation="bilinear",
    crop_fraction=1.0,
    crop_mode="squash",
    mean=[0.4, 0.5, 0.6],
    std=[0.2, 0.2, 0.3],
)


def expected_logits(images):
    """Returns the logits of the model, float32 (b, 4)."""
    return images.astype("float32").mean(axis=(1, 2)) @ WEIGHTS


def random_images(count=5, seed=1):
    return np.random.default_rng(seed).normal(size=(count, *SIZE, 3)).astype("float32")


def make_manifest(format="onnx", **fields):
    options = dict(
        format=format,
        precision="float32",
        input_kind="normalized",
        input_name="images",
        output_names=NAMES,
        image_size=SIZE,
        num_outputs=4,
        preprocessing=PREPROCESSING,
        labels=LABELS,
        problem_type="single_label_classification",
        activation="linear",
        thresholds=None,
        source="a test",
        variant="linear",
    )
    return Manifest(**{**options, **fields})


def write_folder(folder, format="onnx", **fields):
    """Writes an exported folder and returns its path. `fields` replace those of the manifest."""
    manifest = make_manifest(format, **fields)
    folder = Path(folder)
    folder.mkdir()
    WRITERS[format](folder / FORMATS[format].file, "uint8" if manifest.input_kind == "uint8" else "float32")
    write_manifest(folder, manifest)
    return folder


def write_features(folder):
    """Writes an exported folder of a model without a head, for ONNX Runtime, and returns its path."""
    folder = Path(folder)
    folder.mkdir()
    write_onnx(folder / FORMATS["onnx"].file, "float32", ("features", "distillation_features"))
    write_manifest(folder, make_manifest(output_names=["features"], labels=None))
    return folder


def write_onnx(path, dtype, names=NAMES):
    from onnx import TensorProto, checker, helper, numpy_helper, save

    kind = TensorProto.UINT8 if dtype == "uint8" else TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], [names[0]]),
        helper.make_node("Add", [names[0], names[0]], [names[1]]),
    ]
    constants = {"axes": np.array([1, 2]), "weights": WEIGHTS}
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", kind, ["b", *SIZE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", 4]) for name in names],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    checker.check_model(model)
    save(model, path)


def write_openvino(path, dtype):
    import openvino
    from openvino import opset13 as ops

    images = ops.parameter([-1, *SIZE, 3], np.dtype(dtype))
    images.output(0).tensor.set_names({"images"})
    mean = ops.reduce_mean(ops.convert(images, "f32"), np.array([1, 2]))
    logits = ops.matmul(mean, ops.constant(WEIGHTS), False, False)
    outputs = [logits, ops.add(logits, logits)]
    for name, node in zip(NAMES, outputs):
        node.output(0).tensor.set_names({name})
    # The positions are swapped: outputs are to be taken by name.
    openvino.save_model(openvino.Model(outputs[::-1], [images]), path, compress_to_fp16=False)


def linear_module(dtype):
    import tensorflow as tf

    class Linear(tf.Module):
        def __init__(self):
            super().__init__()
            self.weights = tf.Variable(WEIGHTS)

        @tf.function(input_signature=[tf.TensorSpec([None, *SIZE, 3], dtype, name="images")])
        def __call__(self, images):
            logits = tf.reduce_mean(tf.cast(images, "float32"), [1, 2]) @ self.weights
            return {"logits": logits, "distillation_logits": logits + logits}

    return Linear()


def write_savedmodel(path, dtype):
    import tensorflow as tf

    module = linear_module(dtype)
    signatures = {"serving_default": module.__call__.get_concrete_function()}
    tf.saved_model.save(module, str(path.parent), signatures=signatures)


def write_litert(path, dtype):
    import tempfile

    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        write_savedmodel(Path(folder) / "saved_model.pb", dtype)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())


def write_keras(path, dtype):
    import keras

    images = keras.Input((*SIZE, 3), dtype=dtype, name="images")
    mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(images))
    head = keras.layers.Dense(4, use_bias=False)
    logits = head(mean)
    model = keras.Model(images, [logits, keras.layers.Add()([logits, logits])])
    head.set_weights([WEIGHTS])
    model.save(path)


WRITERS = {
    "onnx": write_onnx,
    "web": write_onnx,
    "openvino": write_openvino,
    "savedmodel": write_savedmodel,
    "litert": write_litert,
    "keras": write_keras,
}
