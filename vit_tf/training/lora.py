"""LoRA: small trainable matrices beside frozen kernels."""

import functools
import gc
from collections.abc import Sequence

import keras
from keras import ops

from vit_tf.checks import check_choice, check_int, check_number
from vit_tf.structure import ViTStructure
from vit_tf.training.freezing import train_only

# Each target of `add_lora`, and the names of its layers in the several kinds of blocks.
PROJECTIONS = {
    "qkv": ("qkv", "in_projection"),
    "projection": ("projection", "attention_projection", "out_projection"),
    "fc1": ("fc1", "fc1_gate", "fc1_value", "in_projection"),
    "fc2": ("fc2", "mlp_projection", "out_projection"),
}


def add_lora(
    model: keras.Model,
    rank: int = 8,
    alpha: float | None = None,
    on: str | Sequence[str] = ("qkv", "projection"),
) -> list[keras.layers.Dense]:
    """Adds a low-rank adapter to projections of every block, and freezes all other weights except the heads.

    A kernel W becomes W + alpha / rank * A B, where A (rows, rank) starts at random and B (rank, columns)
    starts at zero, so that the outputs do not change before the first step. The biases of the adapted layers
    are frozen, too. The adapters are those of Keras's `Dense.enable_lora`.

    Compile the model afterwards. Keras's `.keras` and `.weights.h5` files hold the sum of kernel and adapter:
    to continue the training from a file, save the values of `model.weights` instead.

    Args:
        model: a model of `build_vit`.
        rank: positive int, at most the smaller side of a kernel.
        alpha: positive number. Defaults to the rank, for a factor of 1.
        on: one or several of "qkv", "projection", "fc1", "fc2". Both inner layers of a gated MLP are "fc1".
            A fused matrix of a "parallel_scaling" block belongs to both of the projections that it fuses.

    Returns:
        List of the adapted `keras.layers.Dense`.

    Raises:
        ValueError: `model` is not a model of `build_vit` or has adapters already, `rank` or `alpha` is out of
            range, or a projection is unknown.

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models"
    (https://arxiv.org/abs/2106.09685), section 4.1.
    """
    if adapted_layers(model):
        raise ValueError(f"{model.name!r} has LoRA adapters already: call `merge_lora` first")
    layers = target_layers(model, (on,) if isinstance(on, str) else tuple(on))
    check_rank(rank, layers)
    check_number("alpha", alpha, "(0, inf)", optional=True)
    for layer in layers:
        layer.enable_lora(int(rank), lora_alpha=alpha)
    heads = [variable for head in ViTStructure(model).heads for variable in head.weights]
    train_only(model, heads + [x for layer in layers for x in (layer.lora_kernel_a, layer.lora_kernel_b)])
    forget_compiled(model)
    return layers


def merge_lora(model: keras.Model) -> int:
    """Adds the adapters to their kernels and removes them.

    Afterwards the model has the same variables as before `add_lora`, all trainable, and the same outputs as
    with the adapters, up to rounding. Compile the model to continue the training.

    Args:
        model: a model that `add_lora` has changed.

    Returns:
        The number of merged adapters, an int.

    Raises:
        ValueError: the model has no adapters.
    """
    layers = adapted_layers(model)
    if not layers:
        raise ValueError(f"{model.name!r} has no LoRA adapters to merge: call `add_lora` first")
    gc.freeze()  # Keras collects garbage at every `del` of a variable, which takes a quarter of a second
    try:
        for layer in layers:
            merge(layer)
    finally:
        gc.unfreeze()
    train_only(model, model.weights)
    forget_compiled(model)
    return len(layers)


def merge(layer):
    """Adds the adapter of a `Dense` to its kernel, and removes the adapter."""
    adapter = layer.lora_alpha / layer.lora_rank * ops.matmul(layer.lora_kernel_a, layer.lora_kernel_b)
    # A function that was compiled with the adapter may still add it: then it adds zeros.
    layer.lora_kernel_b.assign(ops.zeros(layer.lora_kernel_b.shape))
    del layer.lora_kernel_a, layer.lora_kernel_b
    layer.lora_enabled = False
    layer.lora_rank = layer.lora_alpha = None
    layer.kernel.assign_add(adapter)


def dense_layers(model):
    """Yields the dense layers inside the blocks. A weight's path consists of the names of attributes."""
    for block in ViTStructure(model).blocks.values():
        for variable in block.weights:
            if variable.name == "kernel":
                names = variable.path.split("/")[1:-1]
                yield functools.reduce(getattr, names, block)


def adapted_layers(model):
    return [layer for layer in dense_layers(model) if layer.lora_enabled]


def target_layers(model, on):
    """Returns the dense layers of the projections `on`, see `add_lora`."""
    for word in on:
        check_choice("on", word, PROJECTIONS)
    if not on:
        raise ValueError("`on` names no projection to adapt: choose at least one, such as 'qkv'")
    names = {name for word in on for name in PROJECTIONS[word]}
    return [layer for layer in dense_layers(model) if layer.name in names]


def check_rank(rank, layers):
    """Raises a ValueError unless `rank` is a positive int that fits all kernels of `layers`."""
    check_int("rank", rank, 1)
    for layer in layers:
        if rank > min(layer.kernel.shape):
            raise ValueError(
                f"`rank` must be at most {min(layer.kernel.shape)}, the smaller side of "
                f"{layer.kernel.path} {tuple(layer.kernel.shape)}, got {rank}"
            )


def forget_compiled(model):
    """Drops the functions that `fit`, `evaluate` and `predict` compiled before the model changed."""
    model.train_function = model.test_function = model.predict_function = None
