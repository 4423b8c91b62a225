"""`freeze`: which weights of a ViT are trained, and which are frozen."""

import math
import re

import keras

from vit_tf.checks import check_valid, is_int, shown, suggestion
from vit_tf.structure import BEFORE_BLOCKS, ViTStructure

CHOICES = ("none", "backbone", "all-but-attention", "blocks:K")


def freeze(model: keras.Model, what: str | int) -> int:
    """Freezes some weights of a model and makes all others trainable, whatever they were before.

    The variables themselves are frozen, which also affects models that contain this one. Compile afterwards:
    a compiled training step keeps the variables that it was compiled with. Setting `trainable` of a model or
    a layer overrides the choice; `.keras` files, `keras.models.clone_model` and `vit_tf.resize_model` keep
    the choice.

    Args:
        model: a model of `build_vit`, or one that contains it.
        what: the weights to freeze:
            "none";
            "backbone": all except the heads (linear probing);
            "blocks:K" or the int K: the first K blocks and the layers before them: patch embedding, prefix
            tokens, positions;
            "all-but-attention": all except the projections and norms inside the attentions of the blocks,
            the positions and the heads. Reference: Touvron et al., "Three things everyone should know about
            Vision Transformers" (https://arxiv.org/abs/2203.09795), section 4, and `--attn-only` in the
            `main.py` of https://github.com/facebookresearch/deit.

    Returns:
        The number of trainable parameters, an int.

    Raises:
        ValueError: the model has no blocks, fewer than K blocks, no head to train, LoRA adapters, or blocks
            that compute attention and MLP by one matrix ("parallel_scaling") with "all-but-attention"; or
            `what` is unknown.
    """
    structure = ViTStructure(model, nested=True)
    if any(variable.name.startswith("lora_kernel") for variable in model.weights):
        raise ValueError(
            f"{model.name!r} has LoRA adapters, and all other weights except the heads are frozen: "
            "call `merge_lora` first"
        )
    train_only(model, weights_to_train(structure, what))
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def weights_to_train(structure, what):
    """Returns the variables that `freeze` leaves trainable."""
    weights, name = structure.model.weights, structure.model.name
    heads = [variable for head in structure.heads for variable in head.weights]
    if what == "none":
        return weights
    if what == "backbone":
        if not heads:
            raise ValueError(f"{name!r} has no head to train: build it with `num_classes`")
        return heads
    if what == "all-but-attention":
        attention = [x for x in weights if re.match(r"block_\d+/attention(_\d+)?/", x.path)]
        if not attention:
            raise ValueError(
                f"the blocks of {name!r} compute attention and MLP by one matrix, which cannot be frozen in "
                "part: choose 'backbone' or 'blocks:K'"
            )
        return heads + attention + [x for x in weights if x.name == "position_embedding"]
    count = number_of_blocks(what, len(structure.blocks))
    first = [*filter(None, map(structure.named, BEFORE_BLOCKS)), *list(structure.blocks.values())[:count]]
    frozen = {id(variable) for layer in first for variable in layer.weights}
    return [variable for variable in weights if id(variable) not in frozen]


def number_of_blocks(what, num_layers):
    """Returns K of "blocks:K" or K itself.

    Raises:
        ValueError: `what` is neither, or K is larger than `num_layers`.
    """
    word = re.fullmatch(r"blocks:(\d+)", what) if isinstance(what, str) else None
    expected = f"one of {', '.join(map(repr, CHOICES))} (K a number of blocks)"
    check_valid("what", what, word or is_int(what), expected, hint=suggestion(what, CHOICES))
    count = int(word[1]) if word else int(what)
    if not 0 <= count <= num_layers:
        raise ValueError(f"cannot freeze {shown(what)}: the model has {num_layers} blocks")
    return count


def train_only(model, weights):
    """Makes these weights of a model trainable, and freezes all others."""
    for value in (False, True):  # thaws layers that were frozen whole; TensorFlow skips True where it is True
        model.trainable = value
    # Whitening filters and averages stay frozen.
    trainable = {id(variable) for variable in model.trainable_variables} & {id(x) for x in weights}
    for variable in model.weights:
        variable.trainable = id(variable) in trainable
    for layer in model.layers:
        if layer.weights and not layer.trainable_variables:
            layer.trainable = False  # which files store
