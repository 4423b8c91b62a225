"""Parts that are joined to one tensor, and names that only look like parts."""

import numpy as np
import pytest

from vit_tf.hub.lazy_tensor import LazyTensor
from vit_tf.weights.formats.renaming import rename

PARTS = {"q": "qkv:0/3", "k": "qkv:1/3", "v": "qkv:2/3"}


def tensors(*names):
    arrays = {name: np.random.default_rng(i).normal(size=(2, 3)) for i, name in enumerate(names)}
    return {name: LazyTensor((2, 3), lambda array=array: array) for name, array in arrays.items()}


def renamed(names):
    return rename(names, lambda name: PARTS.get(name, name))


def test_parts_are_joined_in_the_order_of_their_numbers():
    parts = tensors("v", "q", "k", "norm")
    result = renamed(parts)
    assert set(result) == {"qkv", "norm"}
    expected = np.concatenate([parts[name].load() for name in "qkv"])
    np.testing.assert_array_equal(result["qkv"].load(), expected)


def test_incomplete_parts_and_foreign_names_with_colons_are_kept():
    names = tensors("q", "v", "loss:0", "loss:1/2")
    assert set(renamed(names)) == set(names)


def test_two_tensors_of_one_name_are_an_error():
    with pytest.raises(ValueError, match="'norm' occurs under two names"):
        rename(tensors("a", "b"), lambda name: "norm")
