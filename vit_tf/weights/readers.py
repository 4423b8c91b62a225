"""The containers of weights: .safetensors, .npz, .pth. Nothing in them runs, and damage is found at once."""

import json
import math
import pickle
import re
import zipfile
from functools import partial

import numpy as np

from vit_tf.weights.tensor import Tensor

BFLOAT16 = np.dtype("V2")  # NumPy has no bfloat16, and saves that of others as two bytes of anything
STATE_DICT_KEYS = (  # averaged weights first, as timm takes them
    *("state_dict_ema", "model_ema"),
    *("state_dict", "model", "model_state_dict"),
)
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
SAFETENSORS_DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16, "BOOL": "?"},
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
}


class _Refused(ValueError):
    """What a file holds is not what is expected; the message goes on after the name of the file."""


def read_file(path):
    """Returns the tensors of one file by name; a ValueError names the file and what is wrong with it."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"a weight file must end in {', '.join(READERS)}, got {str(path)!r}")
    try:
        if path.stat().st_size == 0:
            raise _Refused("is empty: download or save it again")
        tensors = reader(path)
        if not tensors:
            raise _Refused("holds no tensors: expected a dictionary of them by name")
        return tensors
    except _Refused as error:
        raise ValueError(f"{str(path)!r} {brief(error)}") from error
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {brief(error)}") from error
    except Exception as error:  # parsers of foreign bytes raise nearly everything
        message = f"{str(path)!r} is damaged, or is not what its ending says ({brief(error)})"
        raise ValueError(f"{message}: download or save it again") from error


def _read_safetensors(path):
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
            known = ", ".join(SAFETENSORS_DTYPES)
            raise _Refused(f"has {name!r} as {entry['dtype']}, expected one of {known}: convert it")
        dtype, shape = np.dtype(SAFETENSORS_DTYPES[entry["dtype"]]), tuple(entry["shape"])
        np.broadcast_to(np.zeros((), dtype), shape)  # raises where NumPy has no such shape
        offset = start + entry["data_offsets"][0]
        tensors[name] = Tensor(shape, partial(_map_file, path, dtype, offset, shape), _kind(dtype))
    return tensors


def _map_file(path, dtype, offset, shape):
    """An array that lies in the file: it is read as it is used, and given up with the array."""
    if 0 in shape:  # NumPy before 2.2 cannot map nothing
        return _standard(np.empty(shape, dtype))
    # "c": writable, but never to the file; PyTorch warns of arrays that are not writable.
    return _standard(np.asarray(np.memmap(path, dtype, "c", offset, shape)))


def _standard(array):
    """Floats as float32, other kinds as they are, all in this machine's byte order."""
    if array.dtype == BFLOAT16:
        wide = array.view("<u2").astype(np.uint32)
        wide <<= 16  # bfloat16 is the upper half of float32
        return wide.view(np.float32)
    dtype = np.float32 if array.dtype.kind == "f" else array.dtype.newbyteorder("=")
    return array.astype(dtype, copy=False)


def _kind(dtype):
    return "f" if dtype == BFLOAT16 else dtype.kind


def read_metadata(path):
    """Returns the metadata of a .safetensors file: a dict of strings; {} of other files."""
    if path.suffix.lower() != ".safetensors":
        return {}
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def _read_npz(path):
    tensors = {}
    with zipfile.ZipFile(path) as archive:
        _refuse_bomb(path, archive)
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename or name in tensors:
                raise _Refused(f"must hold .npy arrays, each once, got {name!r}: save it with `np.savez`")
            with archive.open(member) as file:
                array = _read_npy(file, name, member.file_size)
            tensors[name] = Tensor(array.shape, partial(_standard, array), _kind(array.dtype))
    return tensors


def _read_npy(file, name, size):
    """Reads one array, as `np.load` would, but with its header checked before memory is taken."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise _Refused(f"has {name!r} in version {version} of .npy, expected (1, 0) or (2, 0)")
    read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
    shape, is_fortran, dtype = read_header(file)
    if dtype.kind not in "biuf" and dtype != BFLOAT16:
        raise _Refused(f"has {name!r} of type {dtype}, expected numbers: save it as arrays of floats")
    if size != file.tell() + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name!r} has a header for shape {shape} and {size} bytes")
    data = bytearray()
    while chunk := file.read(1 << 24):  # to the end, where zipfile checks the sum
        data += chunk
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def _refuse_bomb(path, archive):
    total = sum(member.file_size for member in archive.infolist())
    if total > max(1 << 30, 200 * path.stat().st_size):
        size = f"{total:,} bytes, more than 200 times its {path.stat().st_size:,}"
        raise _Refused(f"claims to unpack to {size}: save it without compression")


def _read_torch(path):
    try:
        import torch
    except ImportError as error:
        raise _Refused("needs PyTorch: `pip install torch`, or convert it to .safetensors") from error
    with open(path, "rb") as file:
        is_zip = file.read(4) == b"PK\3\4"  # PyTorch before 1.6 wrote another format, which cannot be mapped
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            _refuse_bomb(path, archive)
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise _Refused("is a TorchScript program: load it in PyTorch and save its `state_dict()`")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not kind:
            raise ValueError("no pickle of tensors") from error  # PyTorch's own words advise to run the code
        raise _Refused(
            f"holds {kind[1]} beside tensors, and Python objects are not loaded as they could run code: "
            "if you trust it, load it in PyTorch and save the `state_dict()` alone"
        ) from error
    tensors = _find_state_dict(content, torch.is_tensor)
    return {name: _from_torch(name, value) for name, value in tensors.items()}


def _find_state_dict(content, is_tensor):
    """The tensors by name; training scripts keep them under a key, beside the optimizer's and others."""
    if not isinstance(content, dict):
        return {}
    for group in [*(content.get(key) for key in STATE_DICT_KEYS), content]:
        tensors = {n: v for n, v in group.items() if is_tensor(v)} if isinstance(group, dict) else {}
        if tensors:
            break
    tensors = {str(name): value for name, value in tensors.items()}
    for prefix in PREFIXES * 2:  # in either order
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _from_torch(name, value):
    if str(value.layout) != "torch.strided" or value.is_quantized or value.device.type != "cpu":
        raise _Refused(f"has {name!r} sparse, quantized or without values: save it as a dense tensor")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise _Refused(f"has {name!r} of shape {tuple(value.shape)} with less data: save it after `clone()`")

    def to_numpy(value):
        value = value.detach()
        return value.float().numpy() if value.is_floating_point() else value.numpy()

    kind = to_numpy(value.new_empty(1)).dtype.kind  # raises here, not half-way, if NumPy has no such type
    return Tensor(tuple(value.shape), partial(to_numpy, value), kind)


def brief(error):
    """Returns the message of an error on one line, cut where it is long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 500 else text[:500] + "..."


READERS = {".safetensors": _read_safetensors, ".npz": _read_npz}
READERS.update(dict.fromkeys((".pth", ".pt", ".bin"), _read_torch))
