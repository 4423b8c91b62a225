"""Checkpoints: the whole state of a run in one file, which is there whole or not at all."""

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
from vit_tf.files import atomic_path, remove_partial_files, require_space, sha256

NAME = re.compile(r"step-([0-9]{8,})-([0-9a-f]{16})\.safetensors")


class Checkpoints:
    """The last states of a run, in a folder of their own.

    A file is called step-STEP-HASH.safetensors, after the steps that were done and the first 16 digits
    of its SHA-256, and holds arrays and, in its header, a JSON object. It is written to a temporary
    name, flushed to the disk, and renamed: at no moment is there less than the state before.

    Args:
        folder: is made when the first state is saved.
        keep: int, how many states stay.
    """

    def __init__(self, folder, keep=2):
        self.folder = Path(folder)
        self.keep = keep

    def save(self, step, arrays, state):
        """Writes a state, and removes those that are too old.

        Args:
            step: int, steps since the start of the run.
            arrays: dict from names to arrays.
            state: what JSON can hold.

        Returns:
            The path.

        Raises:
            OSError: the disk is full, or the folder cannot be written to. Older states stay.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        require_space(self.folder, sum(array.nbytes for array in arrays.values()))
        written = []

        def name(partial):
            written.append(self.folder / f"step-{step:08d}-{sha256(partial)[:16]}.safetensors")
            return written[0].name

        with atomic_path(self.folder / "step.safetensors", rename=name) as partial:
            try:
                save_file(arrays, partial, metadata={"state": json.dumps(state)})
            except SafetensorError as error:
                raise OSError(errno.EIO, f"cannot be written: {error}", str(self.folder)) from error
        self.prune(written[0])
        return written[0]

    def paths(self):
        """Returns the paths of the states, the newest first."""
        found = [path for path in self.folder.glob("step-*.safetensors") if NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (step_of(path), path.stat().st_mtime_ns), reverse=True)

    def prune(self, newest):
        """Removes all but `newest` and the states before it that are kept.

        States of later steps are broken, or belong to a past that a broken one has ended.
        """
        others = [path for path in self.paths() if path != newest]
        before = [path for path in others if step_of(path) <= step_of(newest)]
        for path in set(others) - set(before[: self.keep - 1]):
            path.unlink(missing_ok=True)

    def load(self):
        """Returns `(arrays, state)` of the newest state that is whole, None where there is none at all.

        A broken one is passed over with a warning that names it. What a killed process left of an
        unfinished one is removed.

        Raises:
            ValueError: there are states, and all are broken.
        """
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
                    f"broken, and passed over: {', '.join(problems)}; going on from {path.name}", stacklevel=2
                )
            return content
        if problems:
            raise ValueError(
                f"every checkpoint in {str(self.folder)!r} is broken: {', '.join(problems)}; start the run "
                "anew in another folder, or bring the files back from a copy"
            )
        return None


def step_of(path):
    return int(NAME.fullmatch(path.name)[1])


def read(path):
    """Returns `(arrays, state)` of a checkpoint; a ValueError where its content is not what was written."""
    if not sha256(path).startswith(NAME.fullmatch(path.name)[2]):
        raise ValueError("its content does not have the hash in its name")
    try:
        with safe_open(path, framework="numpy") as file:
            state = json.loads(file.metadata()["state"])
            return {name: file.get_tensor(name) for name in file.keys()}, state
    except (SafetensorError, KeyError, TypeError, RecursionError) as error:  # no or another header
        raise ValueError(brief(error)) from error


def to_arrays(groups):
    """Returns variables as a dict of arrays, by names that tell group, place and path.

    Args:
        groups: dict from a group's name to its `keras.Variable`s.

    Raises:
        ValueError: a value is NaN or infinite, since such a state is worth nothing.
    """
    arrays = {}
    for name, variable in named(groups).items():
        arrays[name] = np.array(keras.ops.convert_to_numpy(variable.value))
        if arrays[name].dtype.kind == "f" and not np.isfinite(arrays[name]).all():
            raise ValueError(f"{variable.path} has NaN or infinite values")
    return arrays


def from_arrays(groups, arrays):
    """Puts the arrays of `to_arrays` into the same groups of variables, all of them or none.

    Arrays of other groups are left alone.

    Raises:
        ValueError: names what is missing, surplus, or of another shape or type. Nothing is changed then.
    """
    ours = named(groups)
    theirs = {name: array for name, array in arrays.items() if name.partition("/")[0] in groups}
    problems = [f"{name} is in the state and not here" for name in theirs if name not in ours]
    for name, variable in ours.items():
        expected = (tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))
        if name not in theirs:
            problems.append(f"{name} is not in the state")
        elif (found := (theirs[name].shape, str(theirs[name].dtype))) != expected:
            problems.append(
                f"{name} is {found[1]} {found[0]} in the state and {expected[1]} {expected[0]} here"
            )
    if problems:
        raise ValueError(
            f"the saved state does not fit this run, {len(problems)} of its variables do not: "
            + "; ".join(problems[:5])
            + ("; ..." if len(problems) > 5 else "")
            + ". Resume with the code and the options that saved it"
        )
    for name, variable in ours.items():
        variable.assign(theirs[name])


def named(groups):
    """Returns variables by names that are the same whenever the same run is built again."""
    return {
        f"{group}/{i:04d}/{stable_path(variable.path, group == 'optimizer')}": variable
        for group, variables in groups.items()
        for i, variable in enumerate(variables)
    }


def stable_path(path, of_optimizer):
    """Returns a variable's path without the numbers that Keras gives to what has no name of its own.

    It counts through a process: "seed_generator_2", and "adamw_1" as the first part of an optimizer's.
    """
    path = re.sub(r"\bseed_generator_[0-9]+", "seed_generator", path)
    return re.sub(r"^([a-z_]+?)_[0-9]+/", r"\1/", path) if of_optimizer else path
