"""`write_onnx`: a Keras model as an ONNX file, written layer by layer."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import onnx

from vit_tf.checks import check_choice, require, shown
from vit_tf.deploy.onnx import attention_layers, hybrid_layers, keras_layers, vit_layers  # noqa: F401  # they fill the table of emitters
from vit_tf.deploy.onnx.emitters import emit, emit_model
from vit_tf.deploy.onnx.graph import Graph, Tensor, save
from vit_tf.deploy.onnx.image_sizes import position_tables
from vit_tf.deploy.onnx.input_graph import emit_decoded, emit_normalized
from vit_tf.preprocessing import Preprocessing
from vit_tf.preprocessing.layer import PreprocessImages
from vit_tf.structure import ViTStructure, flat_layers

PRECISIONS = ("float32", "float16")
ENCODED = "encoded"  # the input for the bytes of an image file
LOWEST_OPSET, HIGHEST_OPSET = 20, 25


def write_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    precision: str = "float32",
    opset: int = 20,
    preprocessing: Preprocessing | None = None,
    encoded: bool = False,
    attention_output: bool = False,
    image_sizes: Sequence[tuple[int, int]] | None = None,
) -> tuple[str, ...]:
    """Writes a model as an ONNX file: one emitter per layer, without another converter.

    The batch size is free, the image size is that of the model, or one of `image_sizes`. The input is
    "images" (b, h, w, 3). The outputs are float32: "logits", for two heads also "distillation_logits";
    "features" for a model without a head. More than 1 GiB of weights go into a second file, `path` with
    ".data" appended.

    Args:
        model: a model of `build_vit`, or a functional or Sequential model around one.
        path: the file to write.
        precision: "float32", or "float16" for weights and computation in half precision; mean, variance and
            softmax, and all that follows the pooling, stay in float32.
        opset: int from 20, the version of ONNX's operators. From 23 on, attention is the operator Attention.
        preprocessing: a `Preprocessing`, for uint8 pixels of `model`'s image size as input, which the graph
            normalises. A model with its own `normalization` only takes them as they are. None for the
            model's own input, float32.
        encoded: bool. True makes the input "encoded", the bytes of one JPEG or PNG file as a vector of uint8.
            The graph decodes, resizes and crops the image as `preprocessing` does, which must be given. ONNX
            Runtime needs the package onnxruntime-extensions for its operator DecodeImage.
        attention_output: bool, whether the attention probabilities of the last block are the last output,
            "attention" (b, heads, n, n).
        image_sizes: pairs (height, width) in pixels, all that the graph takes. It holds a position table for
            each, resampled as `vit_tf.resize_model` does. None for the model's own size alone.

    Returns:
        The names of the outputs.

    Raises:
        ValueError: the model has a layer or activation that the writer does not know, is quantized, or does
            not take images of a known size.
    """
    check_choice("precision", precision, PRECISIONS)
    problem = f"`opset` must be an int from {LOWEST_OPSET} to {HIGHEST_OPSET}, got {shown(opset)}"
    require(type(opset) is int and LOWEST_OPSET <= opset <= HIGHEST_OPSET, problem)
    check_model(model)
    structure = find_structure(model)
    require(not (encoded and image_sizes), "an encoded image is resized to one size: leave `image_sizes` out")
    tables = None if image_sizes is None else position_tables(model, image_sizes)
    patch_size = (1, 1) if tables is None else structure.patch_size
    graph = Graph(precision, opset, structure and structure.num_tokens, tables, patch_size)
    x, inputs = emit_input(graph, model, preprocessing, encoded)
    results, scores = emit_all(graph, model, x, attention_output)
    outputs = {name: (graph.cast(x, "float32"), shape) for name, x, shape in results}
    if scores is not None:
        heads = watched_block(model).config.num_heads
        count = graph.num_tokens if tables is None else "tokens"
        outputs["attention"] = (graph.cast(scores, "float32"), ("batch", heads, count, count))
    proto = graph.finish(inputs, outputs)
    save(proto, graph.weights, opset, Path(path))
    onnx.checker.check_model(str(path), full_check=True)
    return tuple(outputs)


def emit_input(
    graph: Graph, model: Any, preprocessing: Preprocessing | None, encoded: bool
) -> tuple[Tensor, dict[Tensor, tuple]]:
    """Adds the nodes before the model; returns its input, and the input of the graph with its shape."""
    height, width, channels = model.input_shape[1:]
    if graph.position_tables is not None:
        height = width = None
    shape: tuple = ("batch", height or "height", width or "width", channels)
    if preprocessing is None:
        require(not encoded, "`encoded=True` needs `preprocessing`, which says how images are resized")
        images = graph.input("images", "float32")
        return images, {images: shape}
    if encoded:
        source = graph.input(ENCODED, "uint8")
        pixels, shape = emit_decoded(graph, source, preprocessing), ("length",)
    else:
        source = pixels = graph.input("images", "uint8")
    return emit_normalized(graph, model, pixels, preprocessing), {source: shape}


def check_model(model):
    require(isinstance(model, keras.Model), f"`model` must be a `keras.Model`, got {type(model).__name__}")
    shape = getattr(model, "input_shape", None)
    takes_images = isinstance(shape, tuple) and len(shape) == 4 and shape[-1] is not None
    if takes_images and None in shape[1:]:
        takes_images = any(isinstance(layer, PreprocessImages) for layer in flat_layers(model))
    problem = f"{shown(model.name)} does not take images (b, h, w, c), but {shown(shape)}"
    require(
        takes_images, f"{problem}: give a model of `build_vit`, or one around it, with a fixed image size"
    )


def find_structure(model):
    """Returns the `ViTStructure` of a model; None for a model without blocks."""
    try:
        return ViTStructure(model, nested=True)
    except ValueError:
        return None


def watched_block(model):
    """Returns the last encoder block."""
    return list(ViTStructure(model, nested=True).blocks.values())[-1]


def emit_all(graph: Graph, model: Any, x: Tensor, attention_output: bool) -> tuple[list, Tensor | None]:
    """Adds the nodes of a model; returns (name, tensor, shape) of its outputs, and attention or None."""
    watched = watched_block(model) if attention_output else None
    found: list[Tensor] = []

    def on_call(graph, layer, *args, **kwargs):
        if isinstance(layer, keras.Model):
            return emit_model(graph, layer, *args, on_call=on_call)
        if layer is not watched:
            return emit(graph, layer, *args, **kwargs)
        y, scores = emit(graph, layer, *args, return_attention_scores=True)
        found.append(scores)
        return y

    results = keras.tree.flatten(emit_model(graph, model, x, on_call=on_call))
    shapes = [("batch", *output.shape[1:]) for output in model.outputs]
    names = output_names(model, len(results))
    return list(zip(names, results, shapes)), found[0] if found else None


def output_names(model, count):
    """Returns the names of a model's outputs."""
    kind, second = "logits", "output_1"
    structure = find_structure(model)
    if structure is not None:
        kind = "logits" if structure.heads else "features"
        if structure.named("distillation_pooling") is not None:
            second = f"distillation_{kind}"
    return [kind, second, *(f"output_{i}" for i in range(2, count))][:count]
