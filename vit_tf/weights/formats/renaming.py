"""Translates names of tensors by regular expressions."""

import re

from vit_tf.checks import shown
from vit_tf.hub.lazy_tensor import LazyTensor


def translate(name, names):
    """Returns the name of the first pattern in the dict `names` that matches the whole of a name, or None."""
    matches = ((re.fullmatch(pattern, name), new_name) for pattern, new_name in names.items())
    return next((match.expand(new_name) for match, new_name in matches if match), None)


def replace_all(name, rules):
    """Returns a name after all replacements of regular expressions, in order."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def rename(tensors, new_name):
    """Returns tensors under the names that a function of their old names returns.

    Tensors with the new names "qkv.weight:0", "qkv.weight:1" and so on are parts, which are joined along the
    first axis to "qkv.weight".

    Raises:
        ValueError: two tensors get the same name.
    """
    parts = {}
    for name, tensor in tensors.items():
        whole, _, index = new_name(name).partition(":")
        if index in parts.setdefault(whole, {}):
            raise ValueError(f"the tensor {shown(whole)} occurs under two names")
        parts[whole][index] = tensor
    return {whole: join(list(map(by_index.get, sorted(by_index)))) for whole, by_index in parts.items()}


def join(tensors):
    return tensors[0] if len(tensors) == 1 else LazyTensor.concatenate(tensors, 0)
