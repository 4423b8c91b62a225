"""LoRA: small trainable matrices beside frozen kernels."""

import functools
import gc

from keras import ops

from vit_tf.checks import check_choice, check_int, check_number
from vit_tf.layers.blocks import Block
from vit_tf.training.freezing import train_only
from vit_tf.training.optimizers import is_head

# What a projection does, and the layers that do it in the blocks of each kind.
PROJECTIONS = {
    "qkv": ("qkv", "in_projection"),
    "projection": ("projection", "attention_projection", "out_projection"),
    "fc1": ("fc1", "fc1_gate", "fc1_value", "in_projection"),
    "fc2": ("fc2", "mlp_projection", "out_projection"),
}


def add_lora(model, rank=8, alpha=None, on=("qkv", "projection")):
    """Adds a low-rank adapter to projections of every block, and freezes all else but the heads.

    A kernel W becomes W + alpha / rank * A B, where A (rows, rank) starts at random and B (rank, columns) at
    zero: the outputs are the same until the first step. The biases of adapted layers are frozen, too. It is
    Keras's own `Dense.enable_lora`.

    Keras's `.keras` and `.weights.h5` files hold the sum, not the adapters: to go on training from a file,
    save `model.weights` themselves. Compile after it.

    Args:
        model: a model of `build_vit`.
        rank: int from 1, at most the smaller side of a kernel.
        alpha: positive number. Defaults to the rank, for a factor of 1.
        on: one or several of "qkv", "projection", "fc1", "fc2". A gated MLP's two inner layers are both
            "fc1"; a fused matrix of "parallel_scaling" blocks is adapted for each of the two that it does.

    Returns:
        The adapted `keras.layers.Dense`, a list.

    Raises:
        ValueError: not a model of `build_vit`, a rank or an alpha out of range, an unknown projection, or a
            model that has adapters already.

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models"
    (https://arxiv.org/abs/2106.09685), section 4.1.
    """
    if adapted_layers(model):
        raise ValueError(f"{model.name!r} has LoRA adapters already: call `merge_lora` first")
    layers = chosen_layers(model, (on,) if isinstance(on, str) else tuple(on))
    check_rank(rank, layers)
    check_number("alpha", alpha, "(0, inf)", optional=True)
    for layer in layers:
        layer.enable_lora(int(rank), lora_alpha=alpha)
    train_only(model, lambda variable: variable.name.startswith("lora_kernel") or is_head(variable))
    forget_compiled(model)
    return layers


def merge_lora(model):
    """Adds the adapters to their kernels and removes them.

    The model has the weights again that `build_vit` gave it, all trainable, and the same outputs up to
    rounding. Compile it to train on.

    Args:
        model: a model that `add_lora` changed.

    Returns:
        The number of kernels.

    Raises:
        ValueError: the model has no adapters.
    """
    layers = adapted_layers(model)
    if not layers:
        raise ValueError(f"{model.name!r} has no LoRA adapters to merge: call `add_lora` first")
    gc.freeze()  # Keras collects garbage at every `del` of a variable: a quarter of a second each
    try:
        for layer in layers:
            merge(layer)
    finally:
        gc.unfreeze()
    train_only(model, lambda variable: True)
    forget_compiled(model)
    return len(layers)


def merge(layer):
    """Adds a `Dense`'s adapter to its kernel, and makes it the layer that it was without one."""
    adapter = layer.lora_alpha / layer.lora_rank * ops.matmul(layer.lora_kernel_a, layer.lora_kernel_b)
    # A function that was compiled around the model before may still add the adapter: of zeros.
    layer.lora_kernel_b.assign(ops.zeros(layer.lora_kernel_b.shape))
    del layer.lora_kernel_a, layer.lora_kernel_b
    layer.lora_enabled = False
    layer.lora_rank = layer.lora_alpha = None
    layer.kernel.assign_add(adapter)


def blocks(model):
    """Returns the encoder blocks of a model; a ValueError where it has none."""
    found = [layer for layer in getattr(model, "layers", ()) if isinstance(layer, Block)]
    if not found:
        raise ValueError(
            f"{getattr(model, 'name', model)!r} has no encoder blocks: give the model of `build_vit` itself"
        )
    return found


def dense_layers(model):
    """Yields the dense layers inside the blocks; their weights' paths are the attributes' names."""
    for block in blocks(model):
        for variable in block.weights:
            if variable.name == "kernel":
                names = variable.path.split("/")[1:-1]
                yield functools.reduce(getattr, names, block)


def adapted_layers(model):
    return [layer for layer in dense_layers(model) if layer.lora_enabled]


def chosen_layers(model, on):
    """Returns the layers that do one of the projections `on`."""
    for word in on:
        check_choice("on", word, PROJECTIONS)
    if not on:
        raise ValueError("`on` names no projection to adapt: choose at least one, such as 'qkv'")
    names = {name for word in on for name in PROJECTIONS[word]}
    return [layer for layer in dense_layers(model) if layer.name in names]


def check_rank(rank, layers):
    """Raises a ValueError unless `rank` is an int that all kernels of `layers` have room for."""
    check_int("rank", rank, 1)
    for layer in layers:
        if rank > min(layer.kernel.shape):
            raise ValueError(
                f"`rank` must be at most {min(layer.kernel.shape)}, the smaller side of "
                f"{layer.kernel.path} {tuple(layer.kernel.shape)}, got {rank}"
            )


def forget_compiled(model):
    """Drops the functions that `fit`, `evaluate` and `predict` compiled for the model as it was."""
    model.train_function = model.test_function = model.predict_function = None
