"""How much memory a model takes: a lower bound before it is built, and an estimate of a training step."""

from math import prod

from vit_tf.flops.count import count_flops
from vit_tf.memory import OutOfMemory, gigabytes, total_memory
from vit_tf.variants import get_variant

# A refusal must be right: what a machine swaps, and memory of a GPU beyond the machine's own, is allowed for.
MOST = 2  # times the machine's memory


def require_memory(variant, hyperparameters, batch_size=1, trains_blocks=False):
    """Raises an error where a model cannot fit the machine's memory by far, before any of it is taken.

    Args:
        variant: name of a variant.
        hyperparameters: dict, overrides of it.
        batch_size: int, the images of a batch.
        trains_blocks: bool, whether gradients flow through all blocks.

    Raises:
        OutOfMemory: even the least that the model needs is more than twice the memory.
    """
    spec, total = get_variant(variant, **hyperparameters), total_memory()
    needed = least_bytes(spec, batch_size, trains_blocks)
    if total is None or needed <= MOST * total:
        return
    size = "x".join(map(str, spec.image_size))
    images = "an image" if batch_size == 1 else f"{batch_size} images"
    raise OutOfMemory(
        f"{variant} with {images} of {size} pixels needs at least {gigabytes(needed)} of memory "
        f"({least_parameters(spec):,} parameters, {prod(spec.grid_size):,} patches), and this machine has "
        f"{gigabytes(total)}: choose smaller images, a larger patch size or a smaller model or batch"
    )


def least_parameters(spec):
    """Returns a lower bound of a variant's parameters: those of positions, blocks and head."""
    head_dim = spec.head_dim or spec.hidden_dim // spec.num_heads
    block = spec.hidden_dim * (4 * spec.num_heads * head_dim + 2 * spec.mlp_dim)
    return spec.hidden_dim * (prod(spec.grid_size) + spec.num_classes) + spec.num_layers * block


def least_bytes(spec, batch_size, trains_blocks):
    """Returns a lower bound of the memory of a batch: float32 weights, and tokens of two bytes a number.

    It holds for every precision, and for blocks that compute their activations again.
    """
    per_token = max(spec.mlp_dim, 3 * spec.hidden_dim)
    if trains_blocks:
        per_token += spec.num_layers * spec.hidden_dim
    pixels = prod(spec.image_size) * spec.in_channels
    return 4 * least_parameters(spec) + batch_size * (pixels + 2 * prod(spec.grid_size) * per_token)


def training_bytes(network, batch_size):
    """Estimates the memory of a training step: weights, gradients, two moments, activations.

    The latter are those of `count_flops`: more than a step takes that computes them again (`--remat`).

    Args:
        network: a model of `build_vit`.
        batch_size: int.

    Returns:
        Bytes; None for a model that `count_flops` does not know.
    """
    try:
        activations = count_flops(network, batch_size).totals.activation_bytes
    except ValueError:
        return None
    trained = sum(prod(variable.shape) for variable in network.trainable_variables)
    return 4 * network.count_params() + 12 * trained + activations * bool(trained)
