"""`LazyTensor`: a tensor of a checkpoint that is read on `load()`; and helpers that all readers share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vit_tf.checks import listing

BFLOAT16 = np.dtype("V2")  # NumPy has no bfloat16, and saves other libraries' bfloat16 as two raw bytes


class Refused(ValueError):
    """The content of a file is not as expected. The message continues a sentence after the file name."""


class MissingFile(ValueError):
    """A folder or a repository lacks a file, or the hub cannot be reached."""


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of a checkpoint that is read only by `load()`.

    Methods return new lazy tensors. Their arguments follow NumPy's rules.

    Args:
        shape: tuple of ints, the shape of the array that `load` returns.
        load: function that reads the values. Callers must not modify them. Floats of every width become
            float32; other dtypes do not change.
        kind: NumPy's letter for the kind of the dtype, "f" for floats.
    """

    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]
    kind: str = "f"

    def _apply(self, function):
        # A broadcast array has this shape and takes no memory: NumPy computes the new shape from it.
        shape = function(np.broadcast_to(np.float32(0), self.shape)).shape
        return self.map(function, shape)

    def map(self, function, shape):
        """Returns the tensor of `function(values)`, which must have the given shape."""
        return LazyTensor(tuple(shape), lambda: np.asarray(function(self.load())), self.kind)

    def transpose(self, *axes):
        return self._apply(lambda array: array.transpose(*axes))

    def reshape(self, *shape):
        return self._apply(lambda array: array.reshape(*shape))

    def __getitem__(self, index):
        return self._apply(lambda array: array[index])

    def __add__(self, other):
        if not isinstance(other, LazyTensor):
            return NotImplemented
        shape = np.broadcast_shapes(self.shape, other.shape)
        kind = self.kind if other.kind == "f" else other.kind
        return LazyTensor(shape, lambda: np.add(self.load(), other.load()), kind)

    @staticmethod
    def concatenate(tensors, axis):
        """Joins tensors along `axis`. Their shapes may differ along this axis only."""
        tensors = list(tensors)
        shapes = [tensor.shape for tensor in tensors]
        others = {shape[:axis] + shape[axis:][1:] for shape in shapes}
        if len(others) != 1 or not all(-len(shape) <= axis < len(shape) for shape in shapes):
            raise ValueError(f"tensors of shapes {listing(shapes)} cannot be joined along axis {axis}")
        shape = list(shapes[0])
        shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
        kinds = {tensor.kind for tensor in tensors}
        kind = "f" if kinds == {"f"} else min(kinds - {"f"})
        return LazyTensor(tuple(shape), lambda: np.concatenate([t.load() for t in tensors], axis), kind)


def standard(array):
    """Returns an array in native byte order: floats as float32, other dtypes unchanged."""
    if array.dtype == BFLOAT16:
        wide = array.view("<u2").astype(np.uint32)
        wide <<= 16  # bfloat16 is the upper half of float32
        return wide.view(np.float32)
    dtype = np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    return array.astype(dtype, copy=False)


def kind_of(dtype):
    """Returns NumPy's letter for the kind of a dtype; "f" for bfloat16, too."""
    return "f" if dtype == BFLOAT16 else dtype.kind


def map_file(path, dtype, offset, shape, strides=None):
    """Returns an array that is mapped from a file and read on use; `strides` are in elements."""
    if 0 in shape:  # NumPy before 2.2 cannot map an empty array
        return standard(np.empty(shape, dtype))
    size = shape if strides is None else 1 + sum((side - 1) * step for side, step in zip(shape, strides))
    # "c": writes never reach the file. PyTorch warns about read-only arrays.
    array = np.asarray(np.memmap(path, dtype, "c", offset, size))
    if strides is not None:
        array = np.lib.stride_tricks.as_strided(array, shape, [step * dtype.itemsize for step in strides])
    return standard(array)
