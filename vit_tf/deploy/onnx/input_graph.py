"""From files or pixels to the normalised input of a model, in the graph.

Shapes in the comments: b batch, h rows and w columns before the resize, H and W of the model's input.
"""

from typing import Any

import numpy as np

from vit_tf.checks import pair, require
from vit_tf.deploy.onnx.emitters import emits
from vit_tf.deploy.onnx.graph import Graph, Tensor
from vit_tf.deploy.onnx.keras_layers import affine
from vit_tf.preprocessing import Preprocessing
from vit_tf.preprocessing.layer import PreprocessImages
from vit_tf.structure import flat_layers

EXTENSIONS = "com.microsoft.extensions"  # the operators of the package onnxruntime-extensions
MODES = {"bicubic": "cubic", "bilinear": "linear"}


def emit_normalized(graph: Graph, model: Any, x: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Casts pixels in [0, 255] to float32, and normalises them unless the model does so itself."""
    x = graph.cast(x, "float32")
    own = (
        layer.name == "normalization" or isinstance(layer, PreprocessImages) for layer in flat_layers(model)
    )
    if any(own):
        return x
    with graph.scope("normalization"):
        return normalize(graph, x, preprocessing)


def normalize(graph: Graph, x: Tensor, preprocessing: Preprocessing) -> Tensor:
    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    return affine(graph, x, 1 / (255 * std), -mean / std)


def emit_decoded(graph: Graph, encoded: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Returns the pixels (1, H, W, 3) of an encoded image, a vector of bytes: decoded, resized, cropped.

    ONNX's own operator ImageDecoder would do, but no runtime has it.
    """
    with graph.scope("preprocessing"):
        image = graph.add("DecodeImage", encoded, domain=EXTENSIONS, color_space="rgb")  # (h, w, 3)
        return resize_and_crop(graph, graph.add("Unsqueeze", image, graph.ints(0)), preprocessing)


@emits(PreprocessImages)
def emit_preprocess_images(graph: Graph, layer: Any, x: Tensor) -> Tensor:
    x = resize_and_crop(graph, x, layer.preprocessing)
    return normalize(graph, x, layer.preprocessing)


def resize_and_crop(graph: Graph, images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Returns images (b, h, w, 3) as float32 pixels (b, H, W, 3), as `Preprocessing` does with Pillow.

    The columns are resized before the rows, and the pixels are rounded to bytes after each.

    Raises:
        ValueError: the operator Resize has no such interpolation.
    """
    mode = MODES.get(preprocessing.interpolation)
    problem = f"the ONNX writer resizes by 'bicubic' or 'bilinear', got {preprocessing.interpolation!r}"
    require(mode is not None, f"{problem}: preprocess the images outside of the graph")
    sizes = resized_sizes(graph, graph.add("Shape", images, dtype="int64", start=1, end=3), preprocessing)
    x = graph.transpose(graph.cast(images, "float32"), 0, 3, 1, 2)
    kept = graph.add("Shape", x, dtype="int64", start=0, end=3)
    width = graph.add("Slice", sizes, graph.ints(1), graph.ints(2))
    first = graph.add("Concat", kept, width, axis=0)
    kept = graph.add("Slice", kept, graph.ints(0), graph.ints(2))
    second = graph.add("Concat", kept, sizes, axis=0)
    options: dict[str, Any] = dict(
        antialias=1, mode=mode, cubic_coeff_a=-0.5, exclude_outside=int(mode == "cubic")
    )
    for size in (first, second):  # whole shapes: ONNX Runtime confuses the axes of part of a shape
        x = graph.add("Resize", x, None, None, size, **options)
        x = graph.add("Floor", graph.add("Add", x, graph.scalar(0.5, x)))
        x = graph.add("Clip", x, graph.scalar(0.0, x), graph.scalar(255.0, x))
    return graph.transpose(crop(graph, x, sizes, preprocessing), 0, 2, 3, 1)


def resized_sizes(graph: Graph, sizes: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Returns the vector (height, width) after the resize, see `Preprocessing.resized_size`."""
    scaled = [
        int(side / preprocessing.crop_fraction) for side in pair(preprocessing.image_size, "image_size")
    ]
    if preprocessing.crop_mode == "squash":
        return graph.ints(*scaled)
    if preprocessing.crop_mode == "center" and scaled[0] == scaled[1]:
        smallest = graph.add("ReduceMin", sizes, keepdims=1)
        return graph.add("Div", graph.add("Mul", sizes, graph.ints(*scaled)), smallest)
    fit = "ReduceMin" if preprocessing.crop_mode == "center" else "ReduceMax"
    sizes = graph.cast(sizes, "float64")
    ratio = graph.add(fit, graph.add("Div", sizes, doubles(graph, *scaled)), keepdims=1)
    rounded = graph.cast(graph.add("Round", graph.add("Div", sizes, ratio)), "int64")
    return graph.add("Max", rounded, graph.ints(1))


def crop(graph: Graph, x: Tensor, sizes: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Returns the centre (b, 3, H, W) of images (b, 3, *sizes); "border" fills what they do not cover."""
    kept = graph.ints(*pair(preprocessing.image_size, "image_size"))
    margin = graph.cast(graph.add("Sub", sizes, kept), "float64")
    margin = graph.add("Mul", margin, doubles(graph, 0.5))
    start = graph.add("Round", margin)
    if preprocessing.crop_mode != "border":
        start = graph.cast(start, "int64")
        return graph.add("Slice", x, start, graph.add("Add", start, kept), graph.ints(2, 3))
    is_inside = graph.add("GreaterOrEqual", margin, doubles(graph, 0), dtype="bool")
    start = graph.add("Where", is_inside, start, graph.add("Ceil", margin), dtype="float64")
    start = graph.cast(start, "int64")
    begin = graph.add("Max", start, graph.ints(0))
    end = graph.add("Min", graph.add("Add", start, kept), sizes)
    before = graph.add("Max", graph.add("Neg", start), graph.ints(0))
    after = graph.add("Sub", graph.add("Sub", kept, before), graph.add("Sub", end, begin))
    fill = graph.weight(np.reshape(preprocessing.fill, (3, 1, 1)), "fill", x)
    x = graph.add("Sub", graph.add("Slice", x, begin, end, graph.ints(2, 3)), fill)
    none = graph.ints(0, 0)
    pads = graph.add("Concat", none, before, none, after, axis=0)
    return graph.add("Add", graph.add("Pad", x, pads), fill)


def doubles(graph: Graph, *numbers: float) -> Tensor:
    return graph.constant(np.array(numbers, "float64"), "_".join(["doubles", *map(str, numbers)]))
