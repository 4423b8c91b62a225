"""The memory that a model takes: a lower bound before it is built, and an estimate of a training step."""

from math import prod

import keras

from vit_tf.flops.count import count_flops
from vit_tf.memory import OutOfMemory, gigabytes, total_memory
from vit_tf.variants import get_variant

# Times the memory of the machine: leaves room for swap, and for GPU memory beyond it.
MOST = 2


def require_memory(
    variant: str, hyperparameters: dict, batch_size: int = 1, trains_blocks: bool = False
) -> None:
    """Raises an error, before anything is allocated, if a model is far too large for the memory.

    Args:
        variant: name of a variant.
        hyperparameters: dict, overrides of its fields.
        batch_size: int, images per batch.
        trains_blocks: bool, whether gradients flow through all blocks.

    Raises:
        OutOfMemory: the lower bound of the model's memory is more than twice the memory of the machine.
    """
    config, total = get_variant(variant, **hyperparameters), total_memory()
    needed = least_bytes(config, batch_size, trains_blocks)
    if total is None or needed <= MOST * total:
        return
    size = "x".join(map(str, config.native_size))
    images = "an image" if batch_size == 1 else f"{batch_size} images"
    costs = f"{config.least_parameters:,} parameters, {prod(config.native_grid):,} patches"
    raise OutOfMemory(
        f"{variant} with {images} of {size} pixels needs at least {gigabytes(needed)} of memory ({costs}), "
        f"and this machine has {gigabytes(total)}: choose smaller images, a larger patch size or a smaller "
        "model or batch"
    )


def least_bytes(config, batch_size, trains_blocks):
    """Returns a lower bound of the memory of a batch: float32 weights, and tokens of two bytes per number.

    The bound holds for every precision, and for rematerialised blocks.
    """
    per_token = max(config.mlp_dim, 3 * config.hidden_dim)
    if trains_blocks:
        per_token += config.num_layers * config.hidden_dim
    pixels = prod(config.native_size) * config.in_channels
    num_patches = prod(config.native_grid)
    return 4 * config.least_parameters + batch_size * (pixels + 2 * num_patches * per_token)


def training_bytes(model: keras.Model, batch_size: int) -> int | None:
    """Estimates the memory of a training step: weights, gradients, two moments, activations.

    The activations are those of `count_flops`: a step with rematerialisation (`--remat`) keeps fewer.

    Args:
        model: a model of `build_vit`.
        batch_size: int.

    Returns:
        int, bytes; None for a model that `count_flops` cannot count, such as one for images of any size.
    """
    try:
        activations = count_flops(model, batch_size).totals.activation_bytes
    except ValueError:
        return None
    trained = sum(prod(variable.shape) for variable in model.trainable_variables)
    return 4 * model.count_params() + 12 * trained + activations * bool(trained)
