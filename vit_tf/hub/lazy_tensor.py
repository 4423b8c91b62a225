"""`LazyTensor`: a tensor of a checkpoint that is read only when asked for; and what all readers share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vit_tf.checks import listing

BFLOAT16 = np.dtype("V2")  # NumPy has no bfloat16, and saves that of others as two bytes of anything


class Refused(ValueError):
    """What a file holds is not what is expected; the message goes on after the name of the file."""


@dataclass(frozen=True)
class LazyTensor:
    """A tensor of a checkpoint that is read only when asked for.

    Methods return new tensors, which are not read either; NumPy's rules hold for their arguments.

    Args:
        shape: The shape of what `load` returns.
        load: Reads the values, which are not to be written to: float32 for every kind of float, other
            kinds as they are.
        kind: NumPy's letter for the kind of the values, "f" for floats.
    """

    shape: tuple[int, ...]
    load: Callable[[], np.ndarray]
    kind: str = "f"

    def _apply(self, function):
        # NumPy tells the new shape from an array of this shape that takes no memory.
        shape = function(np.broadcast_to(np.float32(0), self.shape)).shape
        return self.map(function, shape)

    def map(self, function, shape):
        """`function` of the values, which must return an array of `shape`."""
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
        return LazyTensor(
            shape, lambda: np.add(self.load(), other.load()), self.kind if other.kind == "f" else other.kind
        )

    @staticmethod
    def concatenate(tensors, axis):
        """Joins tensors along `axis`, where alone their shapes may differ."""
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
    """Floats as float32, other kinds as they are, all in this machine's byte order."""
    if array.dtype == BFLOAT16:
        wide = array.view("<u2").astype(np.uint32)
        wide <<= 16  # bfloat16 is the upper half of float32
        return wide.view(np.float32)
    dtype = np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    return array.astype(dtype, copy=False)


def kind_of(dtype):
    return "f" if dtype == BFLOAT16 else dtype.kind
