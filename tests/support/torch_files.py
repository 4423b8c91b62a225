"""PyTorch's zip format, written without PyTorch, with a pickle that may say anything."""

import pickle
import zipfile


def op_global(name):
    module, _, name = name.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def op(value):
    """Returns the opcodes that push plain data: protocol 2, without memo."""
    return (
        pickle.dumps(value, 2)[2:-1]
        if not isinstance(value, tuple)
        else b"(" + b"".join(map(op, value)) + b"t"
    )


def op_call(name, *arguments):
    """Returns the opcodes that call a global; arguments are opcodes."""
    return op_global(name) + b"(" + b"".join(arguments) + b"tR"


def op_storage(key="0", size=6, kind="FloatStorage"):
    return b"(" + op("storage") + op_global(f"torch.{kind}") + op(key) + op("cpu") + op(size) + b"tQ"


def op_tensor(shape=(2, 3), strides=(3, 1), offset=0, storage=None, extra=b""):
    """Returns the opcodes of a tensor."""
    storage = op_storage() if storage is None else storage
    hooks = op_call("collections.OrderedDict")
    parts = (storage, op(offset), op(shape), op(strides), op(False), hooks)
    return op_call("torch._utils._rebuild_tensor_v2", *parts, extra)


def op_module(kind="__torch__.Model", /, **attributes):
    """Returns the opcodes of a module of a TorchScript program; attributes are opcodes."""
    return op_global(kind) + b")\x81" + op_dict(**attributes) + b"b"


def op_dict(**values):
    """Returns the opcodes of a dictionary; values are opcodes."""
    return b"}(" + b"".join(op(name) + value for name, value in values.items()) + b"u"


def write_torch(path, opcodes, storages=None, compression=zipfile.ZIP_STORED):
    """Writes a file as `torch.save` does, of the opcodes of its pickle and the bytes of its storages."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + opcodes + b".")
        archive.writestr("archive/byteorder", "little")
        for key, data in (storages or {"0": bytes(24)}).items():
            archive.writestr(f"archive/data/{key}", data)
    return path


def write_program(path, arrays):
    """Writes arrays by name as `torch.jit.save` does those of nested modules: float16 or float32."""
    kinds, attributes = {"float16": "HalfStorage", "float32": "FloatStorage"}, {}
    for key, (name, array) in enumerate(arrays.items()):
        *modules, name = name.split(".")
        inside = attributes
        for module in modules:
            inside = inside.setdefault(module, {})
        strides = tuple(step // array.itemsize for step in array.strides)
        storage = op_storage(str(key), array.size, kinds[array.dtype.name])
        inside[name] = op_tensor(array.shape, strides, storage=storage)

    def opcodes(attributes):
        parts = {name: opcodes(x) if isinstance(x, dict) else x for name, x in attributes.items()}
        return op_module("__torch__.nn.Module", training=op(False), **parts)

    storages = {str(key): array.tobytes() for key, array in enumerate(arrays.values())}
    return write_torch(path, opcodes(attributes), storages)


def write_legacy(path, opcodes, storages=None):
    """As `write_torch`, in the format before PyTorch 1.6, whose storages have a sixth entry."""
    storages = storages or {"0": bytes(24)}
    plain = [
        0x1950A86A20F9469CFC6C,
        1001,
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {}},
    ]
    content = [pickle.dumps(part, 2) for part in plain] + [b"\x80\x02" + opcodes + b"."]
    content.append(pickle.dumps(list(storages), 2))
    content += [(len(data) // 4).to_bytes(8, "little") + data for data in storages.values()]
    path.write_bytes(b"".join(content))
    return path
