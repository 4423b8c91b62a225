"""Weights of any source as named tensors that are read one at a time, and nothing that runs code.

A source is a file (.safetensors, .npz, .pth, .pt, .bin), a folder laid out as a repository of the
Hugging Face hub, or the name of such a repository: `hf:owner/name`, `hf:owner/name@revision`.
Damage is found when a source is opened. Every mistake in it is a `ValueError`.
"""

import json
import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

CONFIG, PREPROCESSOR, INDEX = "config.json", "preprocessor_config.json", "model.safetensors.index.json"
HUB_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
BFLOAT16 = np.dtype("V2")  # NumPy has no bfloat16, and saves that of others as two bytes of anything
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin")
STATE_DICT_KEYS = (  # averaged weights first, as timm takes them
    *("state_dict_ema", "model_ema"),
    *("state_dict", "model", "model_state_dict"),
)
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and of torch.compile
SAFETENSORS_DTYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": BFLOAT16, "BOOL": "?"},
    **{f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)},
}


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
            raise ValueError(f"tensors of shapes {_listing(shapes)} cannot be joined along axis {axis}")
        shape = list(shapes[0])
        shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
        kinds = {tensor.kind for tensor in tensors}
        kind = "f" if kinds == {"f"} else min(kinds - {"f"})
        return Tensor(tuple(shape), lambda: np.concatenate([t.load() for t in tensors], axis), kind)


@dataclass(frozen=True)
class Checkpoint:
    """What a source of weights holds.

    Args:
        source: The source as the user wrote it.
        path: The weight file on this disk; of a checkpoint in parts, the index of the parts.
        tensors: Every tensor by its name in the file.
        config: The content of config.json beside it, empty for a bare file.
        preprocessor: The content of preprocessor_config.json, empty if there is none.
    """

    source: str
    path: Path
    tensors: dict[str, Tensor]
    config: dict
    preprocessor: dict


def open_checkpoint(source):
    """Opens a file, a folder or `hf:owner/name[@revision]` and returns its `Checkpoint`.

    No tensor is read, but those of an .npz file, as nothing less shows whether it is whole.
    """
    find = _finder(source)
    if find is None:
        return Checkpoint(str(source), Path(source), _open_file(Path(source)), {}, {})
    config, preprocessor = _read_configs(find)
    path = _find_weights(source, find)
    tensors = _open_parts(path, find) if path.name == INDEX else _open_file(path)
    return Checkpoint(str(source), path, tensors, config, preprocessor)


def read_config(source):
    """Returns `(config, preprocessor)` of a source, as in its `Checkpoint`, without its weights."""
    find = _finder(source)
    return _read_configs(find) if find else ({}, {})


class _Missing(ValueError):
    """A folder or a repository lacks a file, or the hub cannot be asked for it."""


def _finder(source):
    """The function that finds the files of a repository by name; None for a bare file."""
    source = str(source)
    if source.startswith("hf:"):
        match = HUB_NAME.fullmatch(source)
        if not match or ".." in source:
            raise ValueError(f"a name on the hub is hf:owner/name or hf:owner/name@revision, got {source!r}")
        return partial(_find_on_hub, *match.groups())
    if os.path.isdir(source):
        if not os.path.isfile(os.path.join(source, CONFIG)):
            raise ValueError(
                f"the folder {source!r} has no {CONFIG}, expected it beside model.safetensors as in a "
                "repository of the hub: a weight file without it can be given by its own path"
            )
        return partial(_find_in_folder, Path(source))
    if not os.path.isfile(source):
        raise ValueError(
            f"there is no file or folder {source!r}: give a {', '.join(READERS)} file, a folder with "
            f"{CONFIG} and model.safetensors, or a name on the hub as hf:owner/name"
        )
    return None


def _find_in_folder(folder, name):
    if not (folder / name).is_file():
        raise _Missing(f"the folder {str(folder)!r} has no {name}")
    return folder / name


def _find_on_hub(repository, revision, name):
    """The path of a file in the hub's cache, where it is downloaded to if need be."""
    from huggingface_hub import errors, hf_hub_download

    what = f"{name} of hf:{repository}" + (f"@{revision}" if revision else "")
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except errors.EntryNotFoundError as error:
        if not isinstance(error, errors.LocalEntryNotFoundError):
            reason = "the repository has no such file"
        elif isinstance(error.__cause__, errors.OfflineModeIsEnabled):
            reason = "it is not in the cache, and HF_HUB_OFFLINE is set: unset it to download once"
        else:
            cause = _brief(error.__cause__ or error)
            reason = f"it is not in the cache, and the hub cannot be reached ({cause}): see to the network"
        raise _Missing(f"{what}: {reason}") from error
    except Exception as error:  # HTTP, disk and transfer errors of several libraries
        reasons = {  # the first is a kind of the second
            errors.GatedRepoError: f"gated: accept its terms on huggingface.co/{repository} and log in",
            errors.RepositoryNotFoundError: "no such repository, or a private one: check the name, or log in",
            errors.RevisionNotFoundError: f"no revision {revision!r}: give a branch, a tag or a commit",
        }
        reason = next((text for kind, text in reasons.items() if isinstance(error, kind)), _brief(error))
        raise ValueError(f"{what} cannot be downloaded: {reason}") from error


def _read_configs(find):
    config = _read_json(find(CONFIG))
    try:
        path = find(PREPROCESSOR)
    except _Missing:
        return config, {}
    return config, _read_json(path)


def _read_json(path):
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not JSON that can be read: {_brief(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} must hold a JSON object, got {type(content).__name__}")
    return content


def _find_weights(source, find):
    missing = []
    for name in WEIGHTS:
        try:
            return find(name)
        except _Missing as error:
            missing.append(error)
    if str(source).startswith("hf:"):
        raise ValueError(f"no weights ({', '.join(WEIGHTS)}) in {source}: {missing[0]}") from missing[0]
    found = [path for path in sorted(Path(source).iterdir()) if path.suffix.lower() in READERS]
    if len(found) != 1:
        raise ValueError(
            f"the folder {str(source)!r} must hold one of {', '.join(WEIGHTS)}, or a single other weight "
            f"file, got {_listing([path.name for path in found]) or 'none'}: give one by its own path"
        )
    return found[0]


def _open_parts(index, find):
    """The tensors of a checkpoint in several files."""
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{str(index)!r} must name the file of every tensor in `weight_map`")
    parts = {}
    for part in dict.fromkeys(map(str, weight_map.values())):
        # The name is a stranger's: it must not lead out of the folder.
        if not re.fullmatch(r"[^/\\:\0]+\.safetensors", part):
            raise ValueError(f"{str(index)!r} must name plain .safetensors files, got {part[:200]!r}")
        path = Path(os.path.abspath(find(part)))
        # In the hub's cache, cache/models--owner--name/snapshots/commit/file is a link to elsewhere in it.
        root = path.parents[3] if path.parent.parent.name == "snapshots" else path.parent
        if not path.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{str(path)!r} is a link out of its folder: put the file itself there")
        parts[part] = _open_file(path)
    lacking = [name for name, part in weight_map.items() if name not in parts[part]]
    if lacking:
        raise ValueError(f"{str(index)!r} names tensors that are not in their files: {_listing(lacking)}")
    return {name: parts[part][name] for name, part in weight_map.items()}


class _Refused(ValueError):
    """What a file holds is not what is expected; the message goes on after the name of the file."""


def _open_file(path):
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
        raise ValueError(f"{str(path)!r} {_brief(error)}") from error
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {_brief(error)}") from error
    except Exception as error:  # parsers of foreign bytes raise nearly everything
        message = f"{str(path)!r} is damaged, or is not what its ending says ({_brief(error)})"
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


def _listing(names):
    listed = ", ".join(str(name)[:200] for name in names[:10])
    return listed + (f", ... ({len(names)} in all)" if len(names) > 10 else "")


def _brief(error):
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 500 else text[:500] + "..."


READERS = {".safetensors": _read_safetensors, ".npz": _read_npz}
READERS.update(dict.fromkeys((".pth", ".pt", ".bin"), _read_torch))
