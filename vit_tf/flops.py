"""What a Vision Transformer costs: floating-point operations, parameters, activation memory.

FLOPs, not MACs: a multiply-add is two floating-point operations. Papers often print MACs under the
name FLOPs; ViT-B/16 at 224 pixels takes 17.6 GMACs an image, which are 35.1 GFLOPs.
`count_flops` is a table by component, from shapes alone; `get_flops` asks TensorFlow's profiler.
"""

import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from functools import singledispatch
from math import prod
from numbers import Integral

import keras

from vit_tf import layers

COMPONENTS = (
    "patch embedding",
    "class token and positions",
    "QKV",
    "attention scores",
    "attention values",
    "projection",
    "MLP",
    "norms",
    "head",
)
ITEM_SIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}  # bytes


@dataclass(frozen=True)
class Row:
    """What one component costs. MACs are those of matrix products, activations are in bytes."""

    component: str
    parameters: int = 0
    macs: int = 0
    activation_bytes: int = 0

    @property
    def flops(self):
        return 2 * self.macs

    def __add__(self, other):
        mine, other = asdict(self), asdict(other)
        return Row(self.component, *(mine[k] + other[k] for k in mine if k != "component"))

    def to_dict(self):
        return {**asdict(self), "flops": self.flops}


@dataclass(frozen=True)
class FlopsTable:
    """The cost of a forward pass of `batch_size` images, one row for each of `COMPONENTS`."""

    model: str
    batch_size: int
    rows: tuple[Row, ...]

    @property
    def totals(self):
        return sum(self.rows, Row("total"))

    def share(self, *components):
        """Returns the part of all FLOPs that these components take, from 0 to 1."""
        part = sum(row.flops for row in self.rows if row.component in components)
        return part / max(1, self.totals.flops)

    @property
    def attention_share(self):
        """The share of Q K^T and of the product with V: what grows with the tokens squared."""
        return self.share("attention scores", "attention values")

    @property
    def attention_layer_share(self):
        """The share of all of self-attention: `attention_share` and that of QKV and projection."""
        return self.attention_share + self.share("QKV", "projection")

    def to_dict(self):
        """Returns the table as plain dicts, lists and numbers, ready for JSON."""
        return {
            "model": self.model,
            "batch_size": self.batch_size,
            "components": [row.to_dict() for row in self.rows],
            "totals": self.totals.to_dict(),
            "attention_share": self.attention_share,
            "attention_layer_share": self.attention_layer_share,
        }

    def to_markdown(self):
        """Returns the table in Markdown with exact numbers, the totals in the last row."""
        lines = ["| component | parameters | MACs | FLOPs | activation bytes |"]
        lines.append("|---|---:|---:|---:|---:|")
        for row in (*self.rows, self.totals):
            numbers = (row.parameters, row.macs, row.flops, row.activation_bytes)
            lines.append(f"| {row.component} | {' | '.join(f'{n:,}' for n in numbers)} |")
        return "\n".join(lines)


def count_flops(model, batch_size=1):
    """Counts the cost of a forward pass by component, from layer configurations and shapes.

    FLOPs are those of matrix products and convolutions alone. Biases, softmax, GELU, norms and sums
    are left out: for ViT-B/16 they are 0.3 % more (`get_flops`).

    Activation memory is what training keeps for the backward pass, in each layer's compute dtype:

    - patch embedding: the cut patches, where `Patches` cuts them; the output of each dense layer or
      convolution, twice (before and after) where it has a GELU;
    - class token and positions: the tokens `(b, n, d)`, with the positions added;
    - QKV: queries, keys and values, each `(b, num_heads, n, head_dim)`;
    - attention scores: the scores and their softmax, each `(b, num_heads, n, n)`;
    - attention values: the weighted sums of the values, `(b, n, num_heads * head_dim)`;
    - projection: the tokens after this branch is added;
    - MLP: fc1 before and after its activation, `(b, n, mlp_dim)`; the tokens after this branch;
    - norms: the output of each LayerNormalization, the input of each LayerScale;
    - head: the pooled features and the logits.

    A backend keeps more than that: dropout masks, parts of a norm, a float32 softmax.

    Args:
        model: a model of `build_vit`, or a functional or Sequential model around one, in which a
            Dense layer counts as head, and layers without parameters as free.
        batch_size: int, images in the batch.

    Returns:
        A `FlopsTable`, whose parameters sum up to `model.count_params()`.

    Raises:
        ValueError: the model is not built, or neither functional nor Sequential; `batch_size` is no
            positive int; a layer with parameters is of an unknown class, or is called twice.
    """
    check_arguments(model, batch_size)
    rows = {component: Row(component) for component in COMPONENTS}
    for row in count_layer(model, (batch_size,)):
        rows[row.component] += row
    return FlopsTable(model.name, batch_size, tuple(rows.values()))


def check_arguments(model, batch_size):
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a `keras.Model`, got {type(model).__name__}")
    if not model.built:
        raise ValueError(f"{model.name!r} is not built: call it once on data, or give it an Input")
    whole = isinstance(batch_size, Integral) and not isinstance(batch_size, bool)
    if not whole or batch_size < 1:
        raise ValueError(f"`batch_size` must be a positive int, got {batch_size!r}")


@singledispatch
def count_layer(layer, shape):
    """Returns the rows of one layer for an input of `shape`, whose first number is the batch."""
    if layer.count_params():
        raise ValueError(
            f"`count_flops` does not know the layer {layer.name!r} ({type(layer).__name__}), which "
            f"has {layer.count_params():,} parameters: `get_flops` counts any model"
        )
    return []


@count_layer.register
def count_model(model: keras.Model, shape):
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"{model.name!r} ({type(model).__name__}) is neither functional nor Sequential, as "
            "`count_flops` needs it: `get_flops` counts any model"
        )
    # `get_config` would tell this without a private name, but imports TensorFlow on every backend.
    depths = getattr(model, "_nodes_by_depth", {}).values()
    calls = Counter(node.operation for nodes in depths for node in nodes)
    for layer in model.layers:
        if calls[layer] > 1 and layer.weights:
            raise ValueError(
                f"{model.name!r} calls its layer {layer.name!r} more than once, and "
                "`count_flops` counts one call: `get_flops` counts any model"
            )
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            first_input = keras.tree.flatten(layer.input)[0]
            yield from count_layer(layer, (shape[0], *first_input.shape[1:]))


@count_layer.register
def count_patch_embedding(layer: layers.PatchEmbedding, shape):
    return [matrix_product("patch embedding", layer.projection, shape)]


@count_layer.register
def count_overlap_patch_embedding(layer: layers.OverlapPatchEmbedding, shape):
    for stage in layer.stages:
        kept = 1 if stage.activation is keras.activations.linear else 2
        yield matrix_product("patch embedding", stage, shape, kept)
        shape = stage.compute_output_shape(shape)


@count_layer.register
def count_dense(layer: keras.layers.Dense, shape):
    component = "patch embedding" if layer.name == "patch_embedding" else "head"
    return [matrix_product(component, layer, shape)]


@count_layer.register
def count_block(layer: layers.EncoderBlock, shape):
    for part in (layer.attention_norm, layer.attention, layer.attention_scale):
        yield from count_layer(part, shape)
    for part in (layer.mlp_norm, layer.mlp, layer.mlp_scale):
        yield from count_layer(part, shape)


@count_layer.register
def count_attention(layer: layers.MultiHeadSelfAttention, shape):
    b, n, _ = shape
    scores = (b, layer.num_heads, n, n)
    values = (b, n, layer.num_heads * layer.head_width)
    macs = prod(scores) * layer.head_width
    yield matrix_product("QKV", layer.qkv, shape)
    yield Row("attention scores", 0, macs, 2 * tensor_bytes(layer, scores))
    yield Row("attention values", 0, macs, tensor_bytes(layer, values))
    yield matrix_product("projection", layer.projection, values)


@count_layer.register
def count_mlp(layer: layers.MLP, shape):
    yield matrix_product("MLP", layer.fc1, shape, kept=2)
    yield matrix_product("MLP", layer.fc2, (*shape[:-1], layer.mlp_dim))


def matrix_product(component, layer, shape, kept=1):
    """Returns the row of a Dense or Conv2D that keeps `kept` tensors of its output shape."""
    output = layer.compute_output_shape(shape)
    macs = prod(output[:-1]) * prod(layer.kernel.shape)
    return Row(component, layer.count_params(), macs, kept * tensor_bytes(layer, output))


def register_elementwise(component, layer_class):
    @count_layer.register(layer_class)
    def count_elementwise(layer, shape):
        memory = tensor_bytes(layer, layer.compute_output_shape(shape))
        return [Row(component, layer.count_params(), 0, memory)]


register_elementwise("patch embedding", layers.Patches)
register_elementwise("class token and positions", layers.PatchEncoder)
register_elementwise("norms", keras.layers.LayerNormalization)
register_elementwise("norms", layers.LayerScale)
register_elementwise("head", layers.TokenPooling)


def tensor_bytes(layer, shape):
    return prod(shape) * ITEM_SIZE[layer.compute_dtype]


def get_flops(model, batch_size=None):
    """Counts the floating-point operations of a forward pass as TensorFlow's profiler does.

    It takes the place of `keras_flops.get_flops`, which cannot be imported any more. The profiler
    counts matrix products, convolutions, sums, products, means, softmax and pooling; it has no
    count for Erf, Erfc, Tanh, Exp, FusedBatchNorm, Einsum and the inside of loops.

    Args:
        model: any built `keras.Model`: functional, Sequential or a subclass, of one input or more.
        batch_size: int, samples in the batch. None counts one.

    Returns:
        The number of operations: FLOPs, not MACs.

    Raises:
        ValueError: `model` is no Keras model or not built, an input dimension besides the batch is
            unknown, `batch_size` is no positive int, or the backend is not TensorFlow.

    Warns:
        UserWarning: an Einsum, or an operation of unknown shape, is not in the result.
    """
    return sum(flops_by_operation(model, batch_size).values())


def flops_by_operation(model, batch_size=None):
    """Returns the parts of `get_flops`: a dict from TensorFlow's operation types to FLOPs."""
    batch_size = 1 if batch_size is None else batch_size
    check_arguments(model, batch_size)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`get_flops` asks TensorFlow's profiler, and the backend is "
            f"{keras.backend.backend()}: use `count_flops`, or set KERAS_BACKEND=tensorflow"
        )
    from tensorflow.python.framework import ops
    from tensorflow.python.util import deprecation

    graph = inference_graph(model, batch_size)
    counts, missing = Counter(), []
    with deprecation.silence():
        for operation in graph.get_operations():
            try:
                # The profiler itself only sums these up, and prints to stdout while it does.
                value = ops.get_stats_for_node_def(graph, operation.node_def, "flops").value
            except ValueError:  # the shape is unknown
                missing.append(operation)
                continue
            if value:
                counts[operation.type] += int(value)
            elif operation.type == "Einsum":
                missing.append(operation)
    if missing:
        warnings.warn(
            f"TensorFlow's profiler has no count for {len(missing)} operations of {model.name!r}, "
            f"such as {missing[0].name!r} ({missing[0].type}): the result is too low",
            stacklevel=3,
        )
    return dict(counts)


def inference_graph(model, batch_size):
    """Returns the frozen graph of `model` at inference, as a `tf.Graph` of its own."""
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    def call(weights, args, kwargs):
        with keras.StatelessScope(state_mapping=list(zip(model.variables, weights))):
            return model(*args, **kwargs, training=False)

    # Weights are arguments: as constants, those of ViT-H would not fit into a graph (2 GiB).
    weights = [tf.TensorSpec(variable.shape, variable.dtype) for variable in model.variables]
    args, kwargs = keras.tree.map_structure(
        lambda x: tf.TensorSpec((batch_size, *x.shape[1:]), x.dtype), symbolic_inputs(model)
    )
    function = tf.function(call).get_concrete_function(weights, args, kwargs)
    frozen = convert_to_constants.convert_variables_to_constants_v2(function)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(frozen.graph.as_graph_def(), name="")
    return graph


def symbolic_inputs(model):
    """Returns KerasTensors as `model` was built to be called with: (args, kwargs)."""
    args, kwargs = (), {}
    if isinstance(model, keras.Sequential):
        args = (model.inputs[0],)
    elif getattr(model, "inputs", None):
        args = (model.input,)
    else:  # a subclass remembers shapes: of its one argument, or of all by name
        config = model.get_build_config() or {}
        if "input_shape" in config:
            args = (symbolic(model, config["input_shape"]),)
        for key, shape in config.get("shapes_dict", {}).items():
            kwargs[key.removesuffix("_shape")] = symbolic(model, shape)
    for x in keras.tree.flatten((args, kwargs)):
        if None in x.shape[1:]:
            raise ValueError(
                f"{model.name!r} takes an input of shape {tuple(x.shape)}, and all dimensions but "
                "the first must be known: build it with a fixed input size"
            )
    return args, kwargs


def symbolic(model, shapes):
    return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor(shape, model.input_dtype), shapes)
