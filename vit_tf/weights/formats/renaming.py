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

    Tensors with the new names "qkv.weight:0/3" to "qkv.weight:2/3" are parts, which are joined along the
    first axis to "qkv.weight". If a part is missing, the others keep their old names.

    Raises:
        ValueError: two tensors get the same name, or parts do not fit each other.
    """
    parts = {}
    for name, tensor in tensors.items():
        whole = new_name(name)
        match = re.fullmatch(r"(.+):(\d)/(\d)", whole) if whole != name else None
        whole, index, count = match.groups() if match else (whole, 0, 1)
        numbered = parts.setdefault((whole, int(count)), {})
        if int(index) in numbered:
            raise ValueError(f"the tensor {shown(whole)} occurs under two names")
        numbered[int(index)] = name, tensor
    result = {}
    for (whole, count), numbered in parts.items():
        ordered = [tensor for _, (_, tensor) in sorted(numbered.items())]
        if len(ordered) < count:
            result |= dict(numbered.values())
        else:
            result[whole] = ordered[0] if count == 1 else LazyTensor.concatenate(ordered, 0)
    return result
