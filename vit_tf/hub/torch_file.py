"""PyTorch's files, read without PyTorch. No code in a file runs, and memory is bounded by the file's size.

Reference: https://github.com/pytorch/pytorch, `torch/serialization.py` (both formats), `torch/_utils.py`
(how tensors are rebuilt) and `torch/csrc/jit/docs/serialization.md` (TorchScript programs, whose tensors are
in the same zip format as the attributes of modules).
"""

import io
import math
import mmap
import pickle
import zipfile
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from vit_tf.checks import shown
from vit_tf.hub.lazy_tensor import BFLOAT16, LazyTensor, Refused, kind_of, map_file
from vit_tf.pickles import check_pickle

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of PyTorch before 1.6
MOST_NAMES = 1000  # of classes and functions in a pickle
PROGRAM = "__torch__"  # before the names of all classes of a TorchScript program
MOST_SIDES = 64  # of a tensor: NumPy takes no more
STORAGE_TYPES: dict[str, Any] = {  # types of elements; of kind "V", only BFLOAT16 can be read
    **{"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": BFLOAT16},
    **{"LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1"},
    **{"ByteStorage": "u1", "BoolStorage": "?", "UntypedStorage": "V1"},
    **{"ComplexFloatStorage": "V8", "ComplexDoubleStorage": "V16"},
    **{"QInt8Storage": "V1", "QUInt8Storage": "V1", "QInt32Storage": "V4"},
}
STORAGES = {kind: np.dtype(dtype) for kind, dtype in STORAGE_TYPES.items()}
DTYPES = {f"torch.uint{8 * size}": np.dtype(f"<u{size}") for size in (2, 4, 8)}  # of untyped storages


class Foreign:
    """Replaces an object of any class except PyTorch's plain tensors. The content is dropped.

    Attributes:
        name: module and name of the class, or of the function that would create the object.
    """

    name = ""

    def __init__(self, *args, **kwargs):
        pass

    def ignore(self, *args):
        pass

    __setstate__ = __setitem__ = append = extend = add = ignore


class Dictionary(dict):
    """Replaces an `OrderedDict`. Attributes are dropped, since many objects may share a large state."""

    __slots__ = ()

    def __setstate__(self, state):
        pass


class Module:
    """Replaces a module of a TorchScript program: its tensors, submodules and other attributes by name.

    The attributes are not copied, since many modules may share a large state.
    """

    attributes: dict[str, Any] = {}  # noqa: RUF012  # of a module without a state

    def __setstate__(self, state):
        if not isinstance(state, dict):
            raise ValueError("a TorchScript module without names of its attributes")
        self.attributes = state

    def __len__(self):
        return len(self.attributes)

    def items(self):
        return self.attributes.items()


@dataclass(frozen=True)
class Storage:
    """A sequence of elements in the file. The position is known after the whole pickle is read."""

    key: str
    kind: str  # such as "FloatStorage"
    offset: int  # the start within the file's storage of this key
    size: int


@dataclass(frozen=True)
class View:
    """A tensor: a part of a storage."""

    storage: Storage
    dtype: np.dtype | None  # None: NumPy has no such type
    offset: int  # in elements, like the strides
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    is_negated: bool  # PyTorch stores the sign of such a tensor separately


def is_tensor(value):
    """Whether a value in a file is a tensor, also of a kind that cannot be read."""
    return isinstance(value, View) or (isinstance(value, Foreign) and "_rebuild_" in value.name)


def read(path):
    """Returns what `torch.save` wrote, with a `View` for each plain tensor, and the places of the storages.

    Dictionaries, lists, tuples, text and numbers do not change. The modules of a TorchScript program become
    `Module`, whose source code is not read; any other object becomes `Foreign`.

    Args:
        path: of a file in PyTorch's zip format, or in the one before version 1.6.

    Returns:
        content, and a dict from the keys of storages to (offset in the file, bytes).

    Raises:
        Refused: the tensors are compressed, or have another byte order.
        ValueError and others: the file is damaged.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return read_zip(path, data) if data[:4] == b"PK\3\4" else read_legacy(data)


def read_zip(path, data):
    with zipfile.ZipFile(path) as archive:
        members = {member.filename.partition("/")[2]: member for member in archive.infolist()}
    if "data.pkl" not in members:
        raise ValueError("a zip without data.pkl")
    used = ("data.pkl", "byteorder", "data/")  # not the source code of a TorchScript program
    places = {name: place_of(member, data) for name, member in members.items() if name.startswith(used)}

    def cut(name):
        offset, size = places[name]
        return data[offset : offset + size]

    order = cut("byteorder") if "byteorder" in places else b"little"
    if order != b"little":
        raise Refused("was saved on a machine of another byte order: save it as .safetensors there")
    content = Unpickler(io.BytesIO(cut("data.pkl"))).load()
    storages = {name.removeprefix("data/"): place for name, place in places.items() if name[:5] == "data/"}
    return content, storages


def place_of(member, data):
    """Returns (offset, bytes) of the content of a zip's member."""
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise Refused("is compressed, as `torch.save` never does: unzip it, and zip it with `zip -0`")
    start = member.header_offset
    head = data[start : start + 30]
    if head[:4] != b"PK\3\4" or len(head) < 30:
        raise ValueError("a record is not where the directory says")
    offset = start + 30 + int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    if offset + member.file_size > len(data):
        raise ValueError("a record reaches beyond the end")
    return offset, member.file_size


def read_legacy(data):
    """As `read`, of PyTorch before 1.6: five pickles, and the storages in the order of the last one."""
    pickles = [Unpickler(data) for _ in range(5)]
    magic, protocol, system, content, keys = (unpickler.load() for unpickler in pickles)
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError("no pickle of tensors")
    if not system["little_endian"]:
        raise Refused("was saved on a machine of another byte order: save it as .safetensors there")
    kinds, places, offset = pickles[3].kinds, {}, data.tell()
    for key in keys:
        count = int.from_bytes(data[offset : offset + 8], "little")
        places[key] = offset + 8, count * STORAGES[kinds[key]].itemsize
        offset += 8 + places[key][1]
        if offset > len(data):
            raise ValueError(f"the storage {shown(key)} reaches beyond the end")
    return content, places


class Unpickler(pickle.Unpickler):
    """Unpickles one pickle, from its beginning in a file to its end; see `read`."""

    def __init__(self, file):
        start = file.tell()
        check_pickle(file)  # the C unpickler would allocate what a length or an index claims
        self.num_left = file.tell() - start  # items that may be copied
        file.seek(start)
        super().__init__(file, encoding="latin1")
        self.kinds = {}  # of storages, by their keys
        self.names = {
            "collections.OrderedDict": self.make_dict,
            "_codecs.encode": lambda text, *_: text,
            "torch.Size": lambda sides=(): sides,
            "torch._utils._rebuild_tensor": self.make_view,
            "torch._utils._rebuild_tensor_v2": self.make_view,
            "torch._utils._rebuild_tensor_v3": self.make_view_of_dtype,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
            "torch._tensor._rebuild_from_type_v2": lambda function, kind, args, state: function(*args),
        }

    def find_class(self, module, name):
        """Returns the function for plain tensors or dictionaries, or a class that replaces the named one."""
        if module.partition(".")[0] == PROGRAM:
            return Module
        full = f"{module}.{name}"
        if full not in self.names:
            if len(self.names) > MOST_NAMES:
                raise ValueError(f"the pickle names over {MOST_NAMES} classes")
            self.names[full] = type("Foreign", (Foreign,), {"name": full})
        return self.names[full]

    def persistent_load(self, saved):
        """Returns the `Storage` that a pickle names."""
        if saved[0] != "storage":
            return saved[1]  # a class, before the text of its source
        _, kind, key, _, size, *view = saved
        kind = kind.name.rpartition(".")[2]
        offset = 0
        if view and view[0]:  # of the old format: a part of another storage
            _, offset, size = view[0]
        self.kinds[key] = kind
        return Storage(key, kind, offset, size)

    def make_dict(self, items=()):
        self.num_left -= len(items)
        if self.num_left < 0:
            raise ValueError("the pickle has the same dictionary too often")
        return Dictionary(items)

    def make_view(self, storage, offset, shape, strides, *rest):
        """Returns the `View` that PyTorch's function would; `rest` may end in flags such as {"neg": True}."""
        if max(len(shape), len(strides)) > MOST_SIDES:  # which would be copied below
            raise ValueError(f"a tensor has over {MOST_SIDES} dimensions")
        flags = rest[2] if len(rest) > 2 and isinstance(rest[2], dict) else {}
        dtype = STORAGES.get(storage.kind)
        return View(storage, dtype, offset, tuple(shape), tuple(strides), bool(flags.get("neg")))

    def make_view_of_dtype(self, storage, offset, shape, strides, gradient, hooks, dtype, *flags):
        view = self.make_view(storage, offset, shape, strides, gradient, hooks, *flags)
        return replace(view, dtype=DTYPES.get(dtype.name))


def to_tensor(path, name, view, places):
    """Returns the `LazyTensor` of a view. The values are read on `load()`.

    Args:
        path: of the file.
        name: the name of the tensor in messages.
        view: a `View`, or a `Foreign` tensor.
        places: of the storages, see `read`.

    Raises:
        Refused: the tensor is not a plain one of real numbers, or it is larger than its storage.
    """
    name = shown(name)
    if isinstance(view, Foreign):
        raise Refused(f"has {name} sparse, quantized or without values: save it as a dense tensor")
    if view.dtype is None or (view.dtype.kind == "V" and view.dtype != BFLOAT16):
        raise Refused(f"has {name} as numbers of a {view.storage.kind} that NumPy lacks: convert it")
    storage, itemsize = view.storage, view.dtype.itemsize
    start, size = places[storage.key]
    counts = (storage.offset, storage.size, view.offset, *view.shape, *view.strides)
    if len(view.shape) != len(view.strides) or not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError(f"{name} has a shape or strides that are no ints")
    count = math.prod(view.shape)
    last = view.offset + sum((side - 1) * stride for side, stride in zip(view.shape, view.strides))
    held = min(size // itemsize - storage.offset, storage.size)
    if count > held or (count and last >= held):
        raise Refused(f"has {name} of shape {shown(view.shape)} with less data: save it after `clone()`")
    np.broadcast_to(np.zeros((), view.dtype), view.shape)  # raises where NumPy has no such shape
    offset = start + (storage.offset + view.offset) * itemsize
    load = partial(map_file, path, view.dtype, offset, view.shape, view.strides)
    tensor = LazyTensor(view.shape, load, kind_of(view.dtype))
    return tensor.map(np.negative, view.shape) if view.is_negated else tensor
