"""One graph for several image sizes: it has a position table for each, and chooses by the images' size.

Shapes: b images, h and w their sides, s sizes, n tokens, d model width.
"""

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from vit_tf.deploy.inference_model import check_positions
from vit_tf.deploy.onnx.emitters import values
from vit_tf.deploy.onnx.graph import Graph, Tensor
from vit_tf.structure import ViTStructure
from vit_tf.weights import resize_model

INPUT = "images"


def position_tables(model: Any, image_sizes: Iterable[tuple[int, int]]) -> dict[tuple[int, int], np.ndarray]:
    """Returns a dict from (height, width) in pixels to the position table (1, n, d) for that size.

    The tables of a model without a position table are zeros (1, n, 1).

    Args:
        model: a model of `build_vit`.

    Raises:
        ValueError: the model does not take a size, or has relative positions, whose tables are not chosen.
    """
    check_positions(model)

    def table(size):
        structure = ViTStructure(resize_model(model, size))
        encoder = structure.patch_encoder
        if encoder is None or encoder.position_table:
            return None if encoder is None else values(encoder.position_embedding)
        return np.zeros((1, prod(structure.grid_size), 1), "float32")

    return {size: table(size) for size in image_sizes}


def choose_table(
    graph: Graph,
    tables: dict[tuple[int, int], np.ndarray],
    like: Tensor,
    name: str = "tokens_and_positions",
) -> Tensor:
    """Adds tables (1, n, d), and returns the one for the size of the images.

    For a size without a table it has no rows, so that the runtime fails at the sum of tokens and positions.
    """
    counts = np.array([table.shape[1] for table in tables.values()])
    joined = graph.weight(np.concatenate(list(tables.values()), axis=1), name, like)
    size = graph.add("Shape", Tensor(INPUT, "int64"), start=1, end=3)
    equal = graph.add("Equal", size, graph.constant(np.array(list(tables), "int64"), "sizes"), dtype="bool")
    is_size = graph.add("ReduceMin", graph.cast(equal, "int64"), graph.ints(1), keepdims=0)  # (s,)

    def chosen(numbers, name):
        number = graph.add("Mul", is_size, graph.constant(numbers.astype("int64"), name))
        return graph.add("ReduceSum", number, graph.ints(0), keepdims=1)

    begin = chosen(np.cumsum(counts) - counts, "first_rows")
    end = graph.add("Add", begin, chosen(counts, "num_rows"))
    return graph.add("Slice", joined, begin, end, graph.ints(1))


def split_sides(graph: Graph, x: Tensor, patch_size: tuple[int, int], channels: int) -> Tensor:
    """Reshapes images (b, h, w, c) of any size to (b, h / rows, rows, w / columns, columns * c)."""
    rows, columns = patch_size
    height, width = (
        graph.add("Div", graph.add("Shape", x, dtype="int64", start=axis, end=axis + 1), graph.ints(side))
        for axis, side in ((1, rows), (2, columns))
    )
    shape = [graph.ints(0), height, graph.ints(rows), width, graph.ints(columns * channels)]
    return graph.add("Reshape", x, graph.add("Concat", *shape, axis=0))
