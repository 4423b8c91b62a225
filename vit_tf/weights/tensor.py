"""`Tensor`: a tensor of a checkpoint that is read only when asked for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tensor:
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
        return Tensor(tuple(shape), lambda: np.asarray(function(self.load())), self.kind)

    def transpose(self, *axes):
        return self._apply(lambda array: array.transpose(*axes))

    def reshape(self, *shape):
        return self._apply(lambda array: array.reshape(*shape))

    def __getitem__(self, index):
        return self._apply(lambda array: array[index])

    def __add__(self, other):
        if not isinstance(other, Tensor):
            return NotImplemented
        shape = np.broadcast_shapes(self.shape, other.shape)
        return Tensor(
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
        return Tensor(tuple(shape), lambda: np.concatenate([t.load() for t in tensors], axis), kind)


def listing(names):
    """Returns the first ten names, and how many there are."""
    listed = ", ".join(str(name)[:200] for name in names[:10])
    return listed + (f", ... ({len(names)} in all)" if len(names) > 10 else "")
