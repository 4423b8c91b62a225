"""Values of variables as arrays of NumPy, also where several processes hold parts of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True, eq=False)
class ArrayPieces:
    """The pieces of an array that the devices of this process hold; other processes hold the others.

    Args:
        shape, dtype: of the whole array.
        pieces: dict from a place, a tuple of (start, stop) for each side, to the array there.
        own: the places of the pieces that this process writes: each piece of the array has one writer.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: dict[tuple[tuple[int, int], ...], np.ndarray]
    own: frozenset

    @property
    def nbytes(self) -> int:
        return sum(self.pieces[place].nbytes for place in self.own)

    def __getitem__(self, index):
        """Returns the piece at a tuple of slices, which this process must hold."""
        return self.pieces[place_of(index, self.shape)]


def place_of(index, shape):
    """Returns a tuple of slices as a tuple of (start, stop)."""
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape))


def slices_of(place):
    return tuple(slice(*edges) for edges in place)


def is_divided(value: Any) -> bool:
    """Whether a value is an array of JAX of which other processes hold parts."""
    return not getattr(value, "is_fully_addressable", True) and not value.is_fully_replicated


def read_value(variable: keras.Variable) -> np.ndarray | ArrayPieces:
    """Returns a copy of the value of a variable."""
    value = variable.value
    if not is_divided(value):
        return np.array(keras.ops.convert_to_numpy(value))
    pieces, own = {}, set()
    for shard in value.addressable_shards:
        place = place_of(shard.index, value.shape)
        pieces[place] = np.array(shard.data)
        if shard.replica_id == 0:
            own.add(place)
    return ArrayPieces(tuple(value.shape), np.dtype(value.dtype), pieces, frozenset(own))


def write_value(variable: keras.Variable, array: Any) -> None:
    """Sets the value of a variable.

    Args:
        variable: a `keras.Variable`.
        array: an array of NumPy, the same on every process; or an object with `array[slices]` that has the
            pieces of this process.
    """
    sharding = getattr(variable.value, "sharding", None)
    if sharding is None or sharding.is_fully_addressable:
        variable.assign(array if isinstance(array, np.ndarray) else array[(slice(None),) * len(array.shape)])
        return
    import jax

    variable.assign(jax.make_array_from_callback(tuple(variable.shape), sharding, lambda index: array[index]))


def held_part(variable: keras.Variable, array: Any) -> np.ndarray | ArrayPieces:
    """Returns the part of a stored array that this process holds of a variable, in memory."""
    like = read_value(variable)
    if isinstance(like, np.ndarray):
        return np.array(array[(slice(None),) * len(array.shape)])
    pieces = {place: np.array(array[slices_of(place)]) for place in like.pieces}
    return ArrayPieces(like.shape, like.dtype, pieces, like.own)


def gather_value(variable: keras.Variable) -> np.ndarray:
    """Returns the whole value of a variable on every process, which all must call."""
    if not is_divided(variable.value):
        return keras.ops.convert_to_numpy(variable.value)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(variable.value, tiled=True))


@contextmanager
def undistributed() -> Iterator[None]:
    """A scope in which Keras makes variables on one device of this process alone."""
    if keras.backend.backend() != "jax":
        yield
        return
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)
