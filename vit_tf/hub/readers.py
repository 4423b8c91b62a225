"""Readers of weight files: .safetensors, .npz, .pth. No code in them runs; opening detects damage."""

import json
import math
import zipfile
from dataclasses import replace
from functools import partial

import numpy as np

from vit_tf.checks import brief, cut, shown
from vit_tf.hub import torch_file
from vit_tf.hub.lazy_tensor import BFLOAT16, LazyTensor, Refused, kind_of, map_file, standard
from vit_tf.hub.unwrap import flatten, unwrap
from vit_tf.zips import check_members, read_npy

SAFETENSORS_DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16, "BOOL": "?"},
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
}


def read_file(path, select=unwrap, reader=None):
    """Returns the `Unwrapped` tensors of one file; raises a ValueError that names the file and the problem.

    Args:
        path: Path of the file.
        select: function from the dict of all tensors of the file to an `Unwrapped`.
        reader: function from the path to these tensors. Defaults to the one of the file's ending.
    """
    reader = reader or check_ending(path)
    try:
        if path.stat().st_size == 0:
            raise Refused("is empty: download or save it again")
        tensors = reader(path)
        if not tensors:
            raise Refused("holds no tensors: expected a dictionary of them by name")
        unwrapped = select(tensors)
        return replace(unwrapped, tensors=make_tensors(path, unwrapped.tensors))
    except Refused as error:
        raise ValueError(f"{str(path)!r} {brief(error)}") from error
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {brief(error)}") from error
    except Exception as error:  # parsers can raise nearly anything for damaged bytes
        message = f"{str(path)!r} is damaged, or is not what its ending says ({brief(error)})"
        raise ValueError(f"{message}: download or save it again") from error


def read_safetensors(path):
    from safetensors import safe_open

    with safe_open(path, framework="numpy"):
        pass  # opening checks every name, size and offset of the header against the file
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in SAFETENSORS_DTYPES:
            expected = f"expected one of {', '.join(SAFETENSORS_DTYPES)}"
            raise Refused(f"has {shown(name)} as {cut(str(entry['dtype']))}, {expected}: convert it")
        dtype, shape = np.dtype(SAFETENSORS_DTYPES[entry["dtype"]]), tuple(entry["shape"])
        np.broadcast_to(np.zeros((), dtype), shape)  # raises where NumPy has no such shape
        offset = start + entry["data_offsets"][0]
        tensors[name] = LazyTensor(shape, partial(map_file, path, dtype, offset, shape), kind_of(dtype))
    return tensors


def read_metadata(path):
    """Returns the metadata of a .safetensors file: a dict of strings; {} of other files."""
    if path.suffix.lower() != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def read_arrays(path):
    tensors = {}
    with zipfile.ZipFile(path) as archive:
        try:
            check_members(archive, archive.infolist(), "save it with `np.savez`")
        except ValueError as error:
            raise Refused(str(error)) from error
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in tensors:
                raise Refused(f"must hold .npy arrays, each once, got {shown(name)}: save it with `np.savez`")
            with archive.open(member) as file:
                array = read_npy(file, shown(name), member.file_size, partial(check_numbers, name))
            tensors[name] = LazyTensor(array.shape, partial(standard, array), kind_of(array.dtype))
    return tensors


def check_numbers(name, dtype):
    if dtype.kind not in "biuf" and dtype != BFLOAT16:
        raise Refused(f"has {shown(name)} of type {cut(str(dtype))}, expected numbers: save it as floats")


def read_torch(path):
    content, places = torch_file.read(path)
    if isinstance(content, torch_file.Foreign):
        name = shown(content.name)
        raise Refused(f"holds {name}, and no class is loaded as it could run code: save its `state_dict()`")
    return {
        name: partial(torch_file.to_tensor, path, name, view, places)
        for name, view in flatten(content, torch_file.is_tensor).items()
    }


def make_tensors(path, named):
    """Returns the selected tensors of a file. PyTorch's tensors are made here, after the selection."""
    tensors = {name: t if isinstance(t, LazyTensor) else t() for name, t in named.items()}
    if reader_of(path) is read_torch:
        total = sum(4 * math.prod(tensor.shape) for tensor in tensors.values())
        if total > 16 * path.stat().st_size:  # one storage may have many names
            size = path.stat().st_size
            raise Refused(f"has tensors of {total:,} bytes in a file of {size:,}: save clones of them")
    return tensors


KERAS_ENDING = ".keras"  # of a whole model
READERS = {".safetensors": read_safetensors, ".npz": read_arrays}
READERS.update(dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".pth.tar"), read_torch))


def check_ending(path):
    """Returns the reader of a file, by its ending; raises a ValueError for an unknown ending."""
    reader = reader_of(path)
    if reader is None:
        hint = (
            ": this is a whole model, for `vit_tf.load`" if path.name.lower().endswith(KERAS_ENDING) else ""
        )
        raise ValueError(f"a weight file must end in {', '.join(READERS)}, got {str(path)!r}{hint}")
    return reader


def reader_of(path):
    """Returns the reader of a file, by its ending; None for an unknown ending."""
    name = path.name.lower()
    return next((reader for ending, reader in READERS.items() if name.endswith(ending)), None)
