"""Checkpoints in parts: each process of a run writes the pieces of the weights that its devices hold.

Beside the index step-STEP-HASH.json, which is written last, lie the files part-STEP-RANK-HASH.safetensors. In
these a piece is called NAME@START:STOP,START:STOP, with a range for each side of the array.
"""

import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vit_tf.checks import brief, require
from vit_tf.files import atomic_path, read_json, require_space, sha256
from vit_tf.training.distribution.host_arrays import ArrayPieces, place_of

HASH_DIGITS = 16


def write_parts(folder, step, arrays, state, group):
    """Writes a checkpoint in parts. All processes call it, with the same names in the same order.

    Args:
        folder: `pathlib.Path` that all processes share.
        step: int.
        arrays: dict from names to arrays, written by the main process, and `ArrayPieces`.
        state: dict that JSON can hold.
        group: a `vit_tf.training.distribution.process_group.Alone` or `JaxProcesses`.

    Returns:
        The path of the index.

    Raises:
        AgreedError: a process could not write, such as on a full disk. Older checkpoints are kept.
    """
    pieces = own_pieces(arrays, group.is_main)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        require_space(folder, sum(piece.nbytes for piece in pieces.values()))
        written = {"name": write_hashed(folder, f"part-{step:08d}-{group.rank}", ".safetensors", pieces)}
    except (OSError, SafetensorError) as error:
        written = {"error": f"process {group.rank}: {brief(error)}"}
    parts = group.gather(written)
    problems = [part["error"] for part in parts if "error" in part]

    def write_index():
        if problems:
            raise OSError("; ".join(problems))
        index = {
            "state": state,
            "arrays": {name: [list(array.shape), str(array.dtype)] for name, array in arrays.items()},
            "parts": [part["name"] for part in parts],
        }
        return str(write_hashed(folder, f"step-{step:08d}", ".json", index))

    return folder / group.on_main(write_index)


def own_pieces(arrays, is_main):
    """Returns the arrays that this process writes, by their names in its part."""
    pieces = {}
    for name, array in arrays.items():
        if isinstance(array, ArrayPieces):
            pieces |= {f"{name}@{describe(place)}": array.pieces[place] for place in sorted(array.own)}
        elif is_main:
            whole = tuple((0, size) for size in array.shape)
            pieces[f"{name}@{describe(whole)}"] = np.asarray(array, order="C")
    return pieces


def describe(place):
    return ",".join(f"{start}:{stop}" for start, stop in place)


def write_hashed(folder, stem, ending, content):
    """Writes arrays, or what JSON can hold, to a file with its hash in the name; returns the name."""
    name = ""
    with atomic_path(folder / f"{stem}{ending}", rename=lambda _: name) as partial:
        if ending == ".json":
            partial.write_text(json.dumps(content))
        else:
            save_file({key: np.asarray(array, order="C") for key, array in content.items()}, partial)
        name = f"{stem}-{sha256(partial)[:HASH_DIGITS]}{ending}"
    return name


def read_index(path):
    """Returns (arrays, state) of a checkpoint in parts: arrays as `StoredArray`.

    Raises:
        ValueError: a part is missing, or its content has changed.
    """
    index = read_json(path)
    try:
        names, described, state = index["parts"], index["arrays"], index["state"]
        arrays = {
            name: StoredArray(tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in described.items()
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it is no index of a checkpoint ({brief(error)})") from error
    for part in names:
        file = Path(path).parent / Path(str(part)).name
        require(file.is_file(), f"its part {file.name} is missing")
        digits = file.stem.rpartition("-")[2]
        require(sha256(file).startswith(digits), f"the content of its part {file.name} has changed")
        add_places(file, arrays)
    return arrays, state


def add_places(file, arrays):
    """Tells arrays which of their pieces lie in a part."""
    try:
        with safe_open(file, framework="numpy") as part:
            for key in part.keys():
                name, _, place = key.rpartition("@")
                edges = tuple(tuple(map(int, side.split(":"))) for side in place.split(",")) if place else ()
                arrays[name].places[edges] = file, key
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"its part {file.name} cannot be read ({brief(error)})") from error


class StoredArray:
    """An array in the parts of a checkpoint, of which ranges are read when they are needed.

    Args:
        shape, dtype: of the whole array.

    Attributes:
        places: dict from a place, a tuple of (start, stop) for each side, to (path, key) of the piece there.
    """

    def __init__(self, shape, dtype):
        self.shape = shape
        self.dtype = dtype
        self.places = {}

    def __getitem__(self, index):
        """Returns the range at a tuple of slices, an array of NumPy.

        Raises:
            ValueError: the parts do not have all of it.
        """
        wanted = place_of(index, self.shape)
        result = np.zeros([stop - start for start, stop in wanted], self.dtype)
        missing = result.size
        with ExitStack() as stack:
            for place, (file, key) in self.places.items():
                shared = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(wanted, place)]
                if any(start >= stop for start, stop in shared):
                    continue
                part = stack.enter_context(safe_open(file, framework="numpy"))
                inside = tuple(slice(start - c, stop - c) for (start, stop), (c, _) in zip(shared, place))
                target = tuple(slice(start - a, stop - a) for (start, stop), (a, _) in zip(shared, wanted))
                piece = part.get_slice(key)[inside] if inside else part.get_tensor(key)
                result[target] = piece
                missing -= piece.size
        require(not missing, "the parts of the checkpoint do not have the whole array")
        return result
