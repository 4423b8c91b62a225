"""Checkpoints: the whole state of a run, written atomically."""

import errno
import json
import re
import warnings
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vit_tf.checks import brief
from vit_tf.files import atomic_path, read_json, remove_partial_files, require_space, sha256
from vit_tf.training.distribution.host_arrays import ArrayPieces, read_value, write_value
from vit_tf.training.distribution.process_group import Alone
from vit_tf.training.loop.checkpoint_parts import read_index, write_parts

NAME = re.compile(r"step-([0-9]{8,})-([0-9a-f]{16})\.(safetensors|json)")


class Checkpoints:
    """The most recent states of a run, in a folder.

    A file is called step-STEP-HASH.safetensors, after the number of steps done and the first 16 digits of its
    SHA-256. It holds arrays and, in its header, a JSON object. The file is written under a temporary name,
    flushed to the disk, and renamed, so that the state before exists until the new one is complete. The main
    process of several writes it. Where weights are divided over the devices of several processes, each writes
    its part, and step-STEP-HASH.json lists them: see `vit_tf.training.loop.checkpoint_parts`.

    Args:
        folder: is created when the first state is saved. For checkpoints in parts all processes share it.
        keep: int, how many states are kept.
        group: the processes of the run, all of which call the methods. Defaults to this process alone.
    """

    def __init__(self, folder, keep=2, group=None):
        self.folder = Path(folder)
        self.keep = keep
        self.group = group or Alone()

    def save(self, step, arrays, state):
        """Writes a state, and removes states that are too old.

        Args:
            step: int, steps since the start of the run.
            arrays: dict from names to arrays, or `ArrayPieces`.
            state: dict that JSON can hold.

        Returns:
            The path.

        Raises:
            OSError: the disk is full, or the folder cannot be written to. Older states are kept.
            AgreedError: the same, for a run of several processes.
        """
        if any(isinstance(array, ArrayPieces) for array in arrays.values()):
            path = write_parts(self.folder, step, arrays, state, self.group)
        else:
            path = self.folder / self.group.on_main(lambda: self.save_whole(step, arrays, state).name)
        if self.group.is_main:
            self.prune(path)
        return path

    def save_whole(self, step, arrays, state):
        """Writes a state to one file; returns its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        require_space(self.folder, sum(array.nbytes for array in arrays.values()))
        with atomic_path(self.folder / "step.safetensors", rename=lambda _: path.name) as partial:
            try:
                save_file(arrays, partial, metadata={"state": json.dumps(state)})
            except SafetensorError as error:
                raise OSError(errno.EIO, f"cannot be written: {error}", str(self.folder)) from error
            # Set before the end of the scope, which renames the file.
            path = self.folder / f"step-{step:08d}-{sha256(partial)[:16]}.safetensors"
        return path

    def paths(self):
        """Returns the paths of the states, the newest first."""
        paths = [path for path in self.folder.glob("step-*") if NAME.fullmatch(path.name)]
        return sorted(paths, key=lambda path: (step_of(path), path.stat().st_mtime_ns), reverse=True)

    def prune(self, newest):
        """Removes all but `newest` and the states before it that are kept.

        States of later steps are corrupt, or were left behind when a corrupt one was passed over.
        """
        others = [path for path in self.paths() if path != newest]
        before = [path for path in others if step_of(path) <= step_of(newest)]
        for path in set(others) - set(before[: self.keep - 1]):
            path.unlink(missing_ok=True)
        listed = {part for path in self.paths() if path.suffix == ".json" for part in parts_of(path)}
        for path in self.folder.glob("part-*.safetensors"):
            if path.name not in listed:
                path.unlink(missing_ok=True)

    def load(self):
        """Returns `(arrays, state)` of the newest state that is intact, None if there are no states.

        A corrupt state is passed over with a warning that names it. Partial files of a killed process are
        removed.

        Returns:
            Arrays, or objects with `shape`, `dtype` and `array[slices]` that read them when needed.

        Raises:
            ValueError: there are states, and all are corrupt.
        """
        content = None

        def find():
            nonlocal content
            content = self.find_intact()
            if content is None:
                return None
            path, arrays, _ = content
            described = {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()}
            return [path.name, described]

        found = self.group.on_main(find)
        if found is None:
            return None
        if self.group.count == 1:
            return content[1:]
        name, described = found
        if name.endswith(".json"):  # each process reads what it needs
            return read(self.folder / name)
        arrays = (
            content[1]
            if content
            else {name: np.zeros(shape, dtype) for name, (shape, dtype) in described.items()}
        )
        state = self.group.share(content and content[2])
        return {name: self.group.share_array(array) for name, array in arrays.items()}, state

    def find_intact(self):
        """Returns (path, arrays, state) of the newest state that is intact, None if there are no states."""
        remove_partial_files(self.folder)
        problems = []
        for path in self.paths():
            try:
                content = read(path)
            except (ValueError, OSError) as error:
                problems.append(f"{path.name} ({error})")
                continue
            if problems:
                warnings.warn(
                    f"corrupt, and passed over: {', '.join(problems)}; resuming from {path.name}",
                    stacklevel=2,
                )
            return path, *content
        if problems:
            raise ValueError(
                f"every checkpoint in {str(self.folder)!r} is corrupt: {', '.join(problems)}; start a new "
                "run in another folder, or restore the files from a copy"
            )
        return None


def step_of(path):
    return int(NAME.fullmatch(path.name)[1])


def read(path):
    """Returns `(arrays, state)` of a checkpoint; a ValueError if its content has changed."""
    if not sha256(path).startswith(NAME.fullmatch(path.name)[2]):
        raise ValueError("its content does not have the hash in its name")
    if path.suffix == ".json":
        return read_index(path)
    try:
        with safe_open(path, framework="numpy") as file:
            state = json.loads(file.metadata()["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, state
    except (SafetensorError, KeyError, TypeError, RecursionError) as error:  # a missing or other header
        raise ValueError(brief(error)) from error


def parts_of(path):
    """Returns the names of the parts that an index lists; an empty list if the index is damaged."""
    try:
        return list(read_json(path)["parts"])
    except (ValueError, OSError, KeyError, TypeError):
        return []


def to_arrays(groups):
    """Returns variables as a dict of arrays, by names of group, position and path.

    An array of which other processes hold parts is an `ArrayPieces`.

    Args:
        groups: dict from a group's name to its `keras.Variable`s.

    Raises:
        ValueError: a value is NaN or infinite, since such a state is useless.
    """
    arrays = {}
    for name, variable in named(groups).items():
        array = arrays[name] = read_value(variable)
        pieces = array.pieces.values() if isinstance(array, ArrayPieces) else [array]
        if any(piece.dtype.kind == "f" and not np.isfinite(piece).all() for piece in pieces):
            raise ValueError(f"{variable.path} has NaN or infinite values")
    return arrays


def from_arrays(groups, arrays):
    """Assigns the arrays of `to_arrays` to the same groups of variables, all of them or none.

    Arrays of other groups are ignored.

    Raises:
        ValueError: arrays are missing, surplus, or of another shape or dtype; the message names them, and no
            variable was changed.
    """
    expected = named(groups)
    loaded = {name: array for name, array in arrays.items() if name.partition("/")[0] in groups}
    problems = [f"{name} is in the state and not in this run" for name in loaded if name not in expected]
    for name, variable in expected.items():
        shape, dtype = tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype)
        array = loaded.get(name)
        if array is None:
            problems.append(f"{name} is not in the state")
        elif (tuple(array.shape), str(array.dtype)) != (shape, dtype):
            problems.append(
                f"{name} is {array.dtype} {array.shape} in the state and {dtype} {shape} in this run"
            )
    if problems:
        first = "; ".join(problems[:5]) + ("; ..." if len(problems) > 5 else "")
        raise ValueError(
            f"the saved state does not fit this run, {len(problems)} of its variables do not: {first}. "
            "Resume with the code and the options that saved it"
        )
    for name, variable in expected.items():
        write_value(variable, loaded[name])


def named(groups):
    """Returns a dict of variables by names that are the same whenever the same run is built again."""
    return {
        f"{group}/{i:04d}/{stable_path(variable.path, group == 'optimizer')}": variable
        for group, variables in groups.items()
        for i, variable in enumerate(variables)
    }


def stable_path(path, of_optimizer):
    """Returns a variable's path without the process-wide counters of Keras's default names.

    Examples are "seed_generator_2", and "adamw_1" as the first part of an optimizer's paths.
    """
    path = re.sub(r"\bseed_generator_[0-9]+", "seed_generator", path)
    return re.sub(r"^([a-z_]+?)_[0-9]+/", r"\1/", path) if of_optimizer else path


def rng_state():
    """Returns the states of generators that are no variables, as a dict of uint8 arrays, which may be empty.

    Only PyTorch has such generators: Keras's Dropout draws from PyTorch's own there.
    """
    if keras.backend.backend() != "torch":
        return {}
    import torch

    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    states = {"cpu": torch.get_rng_state(), **{str(i): state for i, state in enumerate(devices)}}
    return {f"torch/{place}": state.cpu().numpy() for place, state in states.items()}


def restore_rng_state(arrays):
    """Restores the states of `rng_state`; other arrays are ignored."""
    states = {name: array for name, array in arrays.items() if name.startswith("torch/")}
    if not states or keras.backend.backend() != "torch":
        return
    import torch

    for name, array in states.items():
        state, place = torch.from_numpy(array.copy()), name.partition("/")[2]
        if place == "cpu":
            torch.set_rng_state(state)
        elif int(place) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, int(place))
