"""Which weights of a ViT are trained, and which stay as they are."""

import math
import re

from vit_tf.checks import is_int, shown, suggestion
from vit_tf.training.optimizers import STEM, block_index, count_blocks, is_head

CHOICES = ("none", "backbone", "all-but-attention", "blocks:K")


def freeze(model, what):
    """Freezes weights of a model, and makes all others trainable, whatever they were before.

    It is the variables that are frozen, so a model around this one sees it, too. Compile after it: a compiled
    training step keeps what it was compiled with. Setting `trainable` of a model or a layer undoes it.
    `.keras` files, `keras.models.clone_model` and `vit_tf.resize_model` keep it.

    Args:
        model: a model of `build_vit`.
        what: what to freeze:
            "none";
            "backbone", all but the heads (linear probing);
            "blocks:K" or the int K, the first K blocks and what comes before them: patch embedding, prefix
            tokens, positions;
            "all-but-attention", all but the projections and norms inside the blocks' attentions, the
            positions and the heads. Reference: Touvron et al., "Three things everyone should know about
            Vision Transformers" (https://arxiv.org/abs/2203.09795), section 4, and `--attn-only` in the
            `main.py` of https://github.com/facebookresearch/deit.

    Returns:
        The number of parameters that are trainable now, an int.

    Raises:
        ValueError: an unknown word; more blocks than there are; no head to be trained; blocks whose
            attention shares a matrix with their MLP ("parallel_scaling"); adapters, which `add_lora` has
            frozen the rest for.
    """
    num_layers = count_blocks(model)
    if any(variable.name.startswith("lora_kernel") for variable in model.weights):
        raise ValueError(
            f"{model.name!r} has LoRA adapters, beside which all but the heads is frozen: "
            "call `merge_lora` first"
        )
    trainable = trainable_predicate(model, what, num_layers)
    train_only(model, trainable)
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def trainable_predicate(model, what, num_layers):
    """Returns the function that says of a variable whether it is trained."""
    if what == "none":
        return lambda variable: True
    if what == "backbone":
        if not any(map(is_head, model.weights)):
            raise ValueError(
                f"{model.name!r} has no head that would be left to train: build it with `num_classes`"
            )
        return is_head
    if what == "all-but-attention":
        if not any(map(is_attention, model.weights)):
            raise ValueError(
                f"the blocks of {model.name!r} have attention and MLP in one matrix, which cannot be frozen "
                "in part: choose 'backbone' or 'blocks:K'"
            )
        return lambda variable: (
            is_attention(variable) or is_head(variable) or variable.name == "position_embedding"
        )
    count = number_of_blocks(what, num_layers)
    return lambda variable: not is_before(variable, count)


def is_before(variable, count):
    """Whether a variable belongs to the first `count` blocks, or to what comes before them."""
    index = block_index(variable.path)
    return variable.path.partition("/")[0] in STEM if index is None else index < count


def is_attention(variable):
    return re.match(r"block_\d+/attention(_\d+)?/", variable.path) is not None


def number_of_blocks(what, num_layers):
    """Returns K of "blocks:K" or K itself; a ValueError where it is neither, or too large."""
    word = re.fullmatch(r"blocks:(\d+)", what) if isinstance(what, str) else None
    whole = is_int(what)
    if not word and not whole:
        known = ", ".join(map(repr, CHOICES))
        raise ValueError(
            f"`what` must be one of {known} (K a number of blocks), got {shown(what)}"
            f"{suggestion(what, CHOICES)}"
        )
    count = int(word[1]) if word else int(what)
    if not 0 <= count <= num_layers:
        raise ValueError(f"{shown(what)} is not a number of blocks of this model: it has {num_layers}")
    return count


def train_only(model, chosen):
    """Makes the variables trainable of which `chosen` is true, and freezes the others."""
    for value in (False, True):  # thaws layers that were frozen whole; TensorFlow skips True where it is True
        model.trainable = value
    can_train = {id(variable) for variable in model.trainable_variables}  # no whitening, no averages
    for variable in model.weights:
        variable.trainable = id(variable) in can_train and bool(chosen(variable))
    for layer in model.layers:
        if layer.weights and not layer.trainable_variables:
            layer.trainable = False  # which files store
