"""The processes of a run: what each tells the others.

The run of one process has an `Alone`; that of several has the same methods in a `JaxProcesses`. Every process
must call the same methods in the same order, since each call waits for all processes.
"""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from vit_tf.checks import brief


class Alone:
    """The group of a run with one process.

    Attributes:
        rank: int, the number of this process in 0 .. count - 1.
        count: int, the number of processes.
    """

    rank = 0
    count = 1

    @property
    def is_main(self) -> bool:
        """Whether this process decides for all, and writes the files of the run."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, by rank. A value is anything that JSON can hold."""
        return [value]

    def share(self, value: Any) -> Any:
        """Returns the value of the main process. The values of the others are ignored."""
        return value

    def gather_numbers(self, numbers: np.ndarray) -> np.ndarray:
        """Returns an array (count, n) of the float64 numbers (n,) of each process."""
        return np.asarray(numbers, np.float64)[None]

    def share_array(self, array: np.ndarray) -> np.ndarray:
        """Returns an array of the main process. Those of the others have the same shape and dtype."""
        return array

    def on_main(self, function: Callable, *arguments: Any) -> Any:
        """Returns the result of a function that the main process alone calls, ready for JSON.

        Raises:
            AgreedError: on all processes, if the function raises a ValueError or an OSError.
        """
        return function(*arguments)

    def on_all(self, function: Callable, *arguments: Any) -> Any:
        """Returns this process's result of a function that every process calls.

        Raises:
            AgreedError: on all processes, if the function raises a ValueError or an OSError on one.
        """
        return function(*arguments)

    def require_equal(self, values: dict[str, Any], hint: str) -> None:
        """Raises an `AgreedError` on all processes unless all have equal values, which JSON can hold."""


class AgreedError(ValueError):
    """An error that every process of the run raises, so that each one ends."""


class JaxProcesses(Alone):
    """The group of the processes that `jax.distributed.initialize` has connected."""

    def __init__(self):
        import jax
        from jax.experimental import multihost_utils

        self.rank, self.count = jax.process_index(), jax.process_count()
        self.communication = multihost_utils

    def gather(self, value):
        own = json.dumps(value).encode()
        lengths = self.communication.process_allgather(np.int32(len(own)))
        padded = np.zeros(int(lengths.max()), np.uint8)
        padded[: len(own)] = np.frombuffer(own, np.uint8)
        texts = self.communication.process_allgather(padded)
        return [json.loads(bytes(text[:length])) for text, length in zip(texts, lengths)]

    def share(self, value):
        own = json.dumps(value).encode() if self.is_main else b""
        length = int(self.communication.broadcast_one_to_all(np.int32(len(own))))
        text = np.frombuffer(own, np.uint8) if self.is_main else np.zeros(length, np.uint8)
        return json.loads(bytes(self.communication.broadcast_one_to_all(text)))

    def gather_numbers(self, numbers):
        # As bytes: JAX rounds float64 to float32.
        parts = np.asarray(numbers, np.float64).view(np.uint8)
        return np.asarray(self.communication.process_allgather(parts)).view(np.float64)

    def share_array(self, array):
        if not array.size:
            return array
        parts = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        shared = np.asarray(self.communication.broadcast_one_to_all(parts))
        return shared.view(array.dtype).reshape(array.shape)

    def on_main(self, function, *arguments):
        outcome = None
        if self.is_main:
            try:
                outcome = {"result": function(*arguments)}
            except (ValueError, OSError) as error:
                outcome = {"error": brief(error)}
        outcome = self.share(outcome)
        if "error" in outcome:
            raise AgreedError(outcome["error"])
        return outcome["result"]

    def on_all(self, function, *arguments):
        result, problem = None, None
        try:
            result = function(*arguments)
        except (ValueError, OSError) as error:
            problem = brief(error)
        problems = self.gather(problem)
        if failed := [rank for rank, text in enumerate(problems) if text is not None]:
            raise AgreedError(f"process {failed[0]}: {problems[failed[0]]}")
        return result

    def require_equal(self, values, hint):
        gathered = self.gather(values)
        for rank, other in enumerate(gathered):
            names = [name for name in {**gathered[0], **other} if gathered[0].get(name) != other.get(name)]
            if names:
                differences = "; ".join(
                    f"{name} {other.get(name)!r} there, {gathered[0].get(name)!r} in process 0"
                    for name in names
                )
                raise AgreedError(f"process {rank} differs: {differences}: {hint}")
