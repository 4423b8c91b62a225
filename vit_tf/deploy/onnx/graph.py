"""A small builder of ONNX graphs: nodes in the order of computation, weights and constants by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import helper, numpy_helper

from vit_tf.checks import shown

PRODUCER = "vit_tf"
LARGEST_IN_FILE = 1 << 30  # bytes of weights in the model's file; protobuf's limit is 2 GiB
LEAST_OUTSIDE = 1024  # bytes of a weight in a second file; shapes must be in the model's
HALF_LIMIT = 65_504  # the largest float16
TYPES = {
    "float32": onnx.TensorProto.FLOAT,
    "float16": onnx.TensorProto.FLOAT16,
    "float64": onnx.TensorProto.DOUBLE,
    "uint8": onnx.TensorProto.UINT8,
    "int64": onnx.TensorProto.INT64,
    "bool": onnx.TensorProto.BOOL,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor in a `Graph`: its name, and the name of its dtype."""

    name: str
    dtype: str


class Graph:
    """The nodes and weights of a model.

    Args:
        precision: "float32" or "float16", of weights and computation between the image and the pooling.
        opset: int, the version of ONNX's operators.
        num_tokens: int, the number of tokens in the blocks; None if unknown.
        position_tables: see `vit_tf.deploy.onnx.image_sizes`; None for a graph of one image size.
        patch_size: (height, width) in pixels; only of a graph of several image sizes.
    """

    def __init__(
        self,
        precision: str = "float32",
        opset: int = 20,
        num_tokens: int | None = None,
        position_tables: dict[tuple[int, int], np.ndarray] | None = None,
        patch_size: tuple[int, int] = (1, 1),
    ):
        self.num_tokens = num_tokens
        self.position_tables = position_tables
        self.patch_size = patch_size
        self.rotary_factors: dict[tuple, list[Tensor]] = {}  # that several blocks need
        self.precision = precision
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.shared: dict[tuple, Tensor] = {}
        self.names: set[str] = set()
        self.scopes: list[str] = []

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Puts `name/` before the names of the nodes and weights that are added inside."""
        self.scopes.append(name)
        try:
            yield
        finally:
            self.scopes.pop()

    def unique_name(self, name: str) -> str:
        name = "/".join([*self.scopes, name])
        unique, count = name, 0
        while unique in self.names:
            count += 1
            unique = f"{name}_{count}"
        self.names.add(unique)
        return unique

    def input(self, name: str, dtype: str) -> Tensor:
        self.names.add(name)
        return Tensor(name, dtype)

    def weight(self, values: Any, name: str, like: Tensor) -> Tensor:
        """Adds an array, in the dtype of the tensor `like` that the weight is combined with.

        Raises:
            ValueError: the array has values that float16 cannot hold.
        """
        array, name = np.asarray(values, "float32"), self.unique_name(name)
        if like.dtype == "float16" and np.abs(array).max(initial=0) > HALF_LIMIT:
            raise ValueError(f"the weight {shown(name)} has values above 65,504: choose precision 'float32'")
        self.weights[name] = np.ascontiguousarray(array, like.dtype)
        return Tensor(name, like.dtype)

    def ints(self, *values: int) -> Tensor:
        """Returns a constant vector of int64, one tensor for all nodes that need it."""
        return self.constant(np.array(values, "int64"), "_".join(["ints", *map(str, values)]))

    def scalar(self, value: float, like: Tensor) -> Tensor:
        """Returns a constant of the dtype of `like`, one tensor for all nodes that need it."""
        return self.constant(np.array(value, like.dtype), f"scalar_{value:g}")

    def constant(self, array: np.ndarray, name: str) -> Tensor:
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self.shared:
            scopes, self.scopes = self.scopes, []
            self.shared[key] = Tensor(self.unique_name(f"constants/{name}"), array.dtype.name)
            self.scopes = scopes
            self.weights[self.shared[key].name] = array
        return self.shared[key]

    def add(
        self, operator: str, *inputs: Tensor | None, dtype: str | None = None, **attributes: Any
    ) -> Tensor:
        """Adds a node with one output, whose dtype is that of the first input unless given."""
        return self.add_outputs(operator, 1, *inputs, dtype=dtype, **attributes)[0]

    def add_outputs(
        self, operator: str, count: int, *inputs: Tensor | None, dtype: str | None = None, **attributes: Any
    ) -> list[Tensor]:
        """Adds a node with `count` outputs of one dtype. None leaves an optional input out."""
        name = self.unique_name(operator)
        outputs = [name] if count == 1 else [self.unique_name(f"{operator}_output") for _ in range(count)]
        names = ["" if x is None else x.name for x in inputs]
        self.nodes.append(helper.make_node(operator, names, outputs, name=name, **attributes))
        dtype = dtype or next(x.dtype for x in inputs if x is not None)
        return [Tensor(output, dtype) for output in outputs]

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return x if x.dtype == dtype else self.add("Cast", x, dtype=dtype, to=TYPES[dtype])

    def alike(self, *tensors: Tensor) -> list[Tensor]:
        """Returns tensors of one dtype: float32 if theirs differ."""
        dtypes = {x.dtype for x in tensors}
        return list(tensors) if len(dtypes) == 1 else [self.cast(x, "float32") for x in tensors]

    def split(self, x: Tensor, count: int, axis: int = -1) -> list[Tensor]:
        return self.add_outputs("Split", count, x, axis=axis, num_outputs=count)

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        """Reshapes; 0 keeps a size, -1 is the rest."""
        return self.add("Reshape", x, self.ints(*shape))

    def transpose(self, x: Tensor, *axes: int) -> Tensor:
        return self.add("Transpose", x, perm=axes)

    def finish(
        self, inputs: dict[Tensor, tuple], outputs: dict[str, tuple[Tensor, tuple]]
    ) -> onnx.GraphProto:
        """Returns the graph, without its weights.

        Args:
            inputs: the shapes of the inputs; a str is the name of an unknown size.
            outputs: dict from the names of the outputs to their tensors and shapes.
        """
        self.scopes, names = [], {}
        results = {name for node in self.nodes for name in node.output}
        for name, (x, _) in outputs.items():
            if x.name in results and x.name not in names:
                names[x.name] = name
            else:  # an input of the model, or a result that has the name of another output
                source = names.get(x.name, x.name)
                self.nodes.append(helper.make_node("Identity", [source], [name], name=f"Identity/{name}"))
        for node in self.nodes:
            for values in (node.input, node.output):
                values[:] = [names.get(value, value) for value in values]
        return helper.make_graph(
            self.nodes,
            PRODUCER,
            [helper.make_tensor_value_info(x.name, TYPES[x.dtype], shape) for x, shape in inputs.items()],
            [
                helper.make_tensor_value_info(name, TYPES[x.dtype], shape)
                for name, (x, shape) in outputs.items()
            ],
        )


def save(graph: onnx.GraphProto, weights: dict[str, np.ndarray], opset: int, path: Path) -> onnx.ModelProto:
    """Writes a model; more than 1 GiB of weights go into a second file, `path` with ".data" appended.

    Returns:
        The model that was written.
    """
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(domain, 1) for domain in {node.domain for node in graph.node} - {""}]
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets[:1]),
        producer_name=PRODUCER,
    )
    initializers = model.graph.initializer
    if sum(array.nbytes for array in weights.values()) <= LARGEST_IN_FILE:
        initializers.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    else:
        data = path.with_name(f"{path.name}.data")
        with open(data, "wb") as file:
            for name, array in weights.items():
                if array.nbytes < LEAST_OUTSIDE:
                    initializers.append(numpy_helper.from_array(array, name))
                else:
                    initializers.append(write_external(file, data.name, name, array))
    onnx.save_model(model, str(path))
    return model


def write_external(file: BinaryIO, location: str, name: str, array: np.ndarray) -> onnx.TensorProto:
    """Appends an array to an open file of weights, and returns the tensor that points there."""
    file.write(bytes(-file.tell() % 64))  # runtimes map the file into memory
    tensor = onnx.TensorProto(
        name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype)
    )
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", file.tell()), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    array.tofile(file)
    return tensor
