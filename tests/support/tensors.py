"""Compares tensors of checkpoints, and what opening them raises."""

import os

import numpy as np
import pytest

from vit_tf.hub import sources
from vit_tf.hub.sources import open_checkpoint


def assert_equal(tensors, arrays):
    assert set(tensors) == set(arrays)
    for name, array in arrays.items():
        loaded = tensors[name].load()
        assert tensors[name].shape == loaded.shape == array.shape
        assert loaded.dtype == array.dtype and loaded.flags.writeable
        np.testing.assert_array_equal(loaded, array)


def fails(source, *parts):
    """Opening `source` is one ValueError, whose message holds every part of `parts`."""
    with pytest.raises(ValueError) as caught:
        open_checkpoint(source)
    assert type(caught.value) is ValueError or isinstance(caught.value, sources.MissingFile)
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 1000
    return str(caught.value)


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
