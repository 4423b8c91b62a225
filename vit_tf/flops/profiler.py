"""`get_flops`: the operations of any Keras model, counted by TensorFlow's profiler. TensorFlow only.

The profiler and the freezing of graphs are private modules of TensorFlow.
"""

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import keras

from vit_tf.flops.count import check_arguments, input_shape

if TYPE_CHECKING:
    import tensorflow as tf


def get_flops(model: keras.Model, batch_size: int | None = None, image_size: Any = None) -> int:
    """Counts the floating-point operations of a forward pass by TensorFlow's profiler. TensorFlow only.

    The function replaces `keras_flops.get_flops`, which cannot be imported with current versions. The
    profiler counts matrix products, convolutions, sums, products, means, softmax and pooling. It does not
    count Erf, Erfc, Tanh, Exp, FusedBatchNorm, Einsum and the bodies of loops.

    Args:
        model: any built `keras.Model`: functional, Sequential or a subclass, with one or more inputs.
        batch_size: int, samples per batch. None is 1.
        image_size: int or (height, width) in pixels; needed if the model takes images of any size.

    Returns:
        The number of operations: FLOPs, not MACs.

    Raises:
        ValueError: `model` is not a built Keras model, an input dimension besides the batch is unknown,
            `image_size` differs from the model's, `batch_size` is not a positive int, or the backend is not
            TensorFlow.

    Warns:
        UserWarning: the result lacks an Einsum or an operation of unknown shape.
    """
    return sum(flops_by_operation(model, batch_size, image_size).values())


def flops_by_operation(
    model: keras.Model, batch_size: int | None = None, image_size: Any = None
) -> dict[str, int]:
    """Returns the parts of `get_flops`: a dict from TensorFlow's operation types to FLOPs."""
    batch_size = 1 if batch_size is None else batch_size
    check_arguments(model, batch_size)
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "`get_flops` runs TensorFlow's profiler, and the backend is "
            f"{keras.backend.backend()}: use `count_flops`, or set KERAS_BACKEND=tensorflow"
        )
    from tensorflow.python.framework import ops
    from tensorflow.python.util import deprecation

    graph = inference_graph(model, batch_size, image_size)
    counts: Counter[str] = Counter()
    missing = []
    with deprecation.silence():
        for operation in graph.get_operations():
            try:
                # The profiler itself only sums these numbers up, and prints to stdout.
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


def inference_graph(model: keras.Model, batch_size: int, image_size: Any = None) -> "tf.Graph":
    """Returns the frozen graph of `model` at inference, a `tf.Graph`; see `get_flops`."""
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    def call(weights, args, kwargs):
        with keras.StatelessScope(state_mapping=list(zip(model.variables, weights))):
            return model(*args, **kwargs, training=False)

    # Weights are arguments: as constants, those of ViT-H exceed the size limit of a graph (2 GiB).
    weights = [tf.TensorSpec(variable.shape, variable.dtype) for variable in model.variables]
    args, kwargs = keras.tree.map_structure(
        lambda x: tf.TensorSpec((batch_size, *x.shape[1:]), x.dtype), symbolic_inputs(model, image_size)
    )
    function = tf.function(call).get_concrete_function(weights, args, kwargs)
    frozen = convert_to_constants.convert_variables_to_constants_v2(function)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(frozen.graph.as_graph_def(), name="")
    return graph


def symbolic_inputs(model, image_size=None):
    """Returns the KerasTensors that `model` takes: (args, kwargs)."""
    args, kwargs = (), {}
    if image_size is not None:
        args = (symbolic(model, (None, *input_shape(model, image_size))),)
    elif isinstance(model, keras.Sequential):
        args = (model.inputs[0],)
    elif getattr(model, "inputs", None):
        args = (model.input,)
    else:  # the build config of a subclass has the shape of its only argument, or all shapes by name
        config = model.get_build_config() or {}
        if "input_shape" in config:
            args = (symbolic(model, config["input_shape"]),)
        for key, shape in config.get("shapes_dict", {}).items():
            kwargs[key.removesuffix("_shape")] = symbolic(model, shape)
    for x in keras.tree.flatten((args, kwargs)):
        if None in x.shape[1:]:
            raise ValueError(
                f"{model.name!r} takes an input of shape {tuple(x.shape)}, and all dimensions but "
                "the first must be known: give `image_size`, or build the model with a fixed input size"
            )
    return args, kwargs


def symbolic(model, shapes):
    return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor(shape, model.input_dtype), shapes)
