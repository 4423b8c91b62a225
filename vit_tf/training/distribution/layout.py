"""How the weights of a ViT are divided over the devices of one copy of the model, on JAX.

As in Megatron-LM (Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053, section 3): the products that widen
(queries, keys and values; the first of the MLP) are divided by columns, those that return to the width of the
tokens by rows. The heads are divided by classes, the position table by channels. All else is on every device,
and so is a weight whose divided side is no multiple of the number of devices.
"""

from typing import Any

import keras

from vit_tf.structure import HEADS, ViTStructure

MODEL = "model"  # the axis of the mesh over which weights are divided
WIDENING = ("qkv", "query", "key_value", "fc1", "fc1_gate", "fc1_value", "in_projection")
NARROWING = ("projection", "fc2", "attention_projection", "mlp_projection", "out_projection")
WIDENED = ("query_bias", "value_bias", "mlp_bias")  # biases that a block holds itself


def axes_of(path: str, shape: tuple[int, ...], mesh: Any) -> list[str | None]:
    """Returns the axis of the mesh over which each side of a weight is divided, None for an undivided side.

    Args:
        path: of a variable of a model of `build_vit`, such as "block_0/attention/qkv/kernel".
        shape: of the variable.
        mesh: a `keras.distribution.DeviceMesh` with the axis "model".
    """
    axes: list[str | None] = [None for _ in shape]
    side = divided_side(path.split("/"))
    num_devices = mesh.shape[mesh.axis_names.index(MODEL)]
    if side is not None and shape[side] % num_devices == 0:
        axes[side] = MODEL
    return axes


def divided_side(parts):
    """Returns the side of a weight that is divided, from the parts of its path; None for no side."""
    layer, name = ["", *parts][-2:]
    if layer == "patch_encoder" and name == "position_embedding":
        return 2  # (1, tokens, channels)
    in_block = any(part.startswith(("block_", "pooling")) for part in parts)
    if layer in HEADS or (in_block and layer in WIDENING):
        return {"kernel": 1, "bias": 0}.get(name)
    if in_block and name in WIDENED:
        return 0
    return 0 if in_block and layer in NARROWING and name == "kernel" else None


class ViTModelParallel(keras.distribution.ModelParallel):
    """Keras's `ModelParallel` with the layouts of ViTs, of every variant of `build_vit`.

    Args:
        mesh: `keras.distribution.DeviceMesh` of two axes, the first for the batch, the second called "model".
    """

    def __init__(self, mesh: Any):
        super().__init__(layout_map=keras.distribution.LayoutMap(mesh), auto_shard_dataset=False)

    def get_variable_layout(self, variable):
        known = getattr(variable, "_layout", None)  # of an optimizer's variable: that of the weight
        if known is not None:
            return known
        axes = axes_of(variable.path, tuple(variable.shape), self.device_mesh)
        return keras.distribution.TensorLayout(axes, self.device_mesh)


def layout_map(model: keras.Model, mesh: Any) -> keras.distribution.LayoutMap:
    """Returns the layouts of the weights of a model, for `keras.distribution.ModelParallel`.

    Keras divides weights where they are made: set the distribution, then build the same model again.

    Args:
        model: a `keras.Model` of `build_vit`, or one that contains its blocks.
        mesh: `keras.distribution.DeviceMesh` with an axis "model".

    Returns:
        A mapping (`keras.distribution.LayoutMap`) with an entry for each weight that is divided.

    Raises:
        ValueError: the model has no encoder blocks, or the mesh has no such axis.

    Example:
        mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), keras.distribution.list_devices())
        layouts = layout_map(build_vit("vit_b16"), mesh)
        keras.distribution.set_distribution(keras.distribution.ModelParallel(layout_map=layouts))
        model = build_vit("vit_b16")
    """
    if MODEL not in mesh.axis_names:
        raise ValueError(f"the mesh needs an axis {MODEL!r}, got {list(mesh.axis_names)}")
    ViTStructure(model, nested=True)  # raises unless the model has blocks
    layouts = keras.distribution.LayoutMap(mesh)
    for variable in model.variables:
        axes = axes_of(variable.path, tuple(variable.shape), mesh)
        if any(axes) and layouts[variable.path] is None:  # `in` is always true: no key raises a KeyError
            layouts[variable.path] = keras.distribution.TensorLayout(axes, mesh)
    return layouts
