"""Checks of hostile zips: the claimed sizes are bounded before anything is unpacked."""

import io
import math
import os
import zipfile

import numpy as np

from vit_tf.checks import require, shown

# Of all methods, Python unpacks only these in bounded chunks.
BOUNDED_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
LARGE, MOST_RATIO = 1 << 28, 200  # always allowed bytes, and unpacked bytes per byte of the zip


def check_members(archive, members, hint, size=None):
    """Raises a ValueError if members of a zip use unusual compression or encryption, or are a bomb.

    Args:
        archive: an open `zipfile.ZipFile`.
        members: the `ZipInfo`s that will be read.
        hint: how to create a valid zip.
        size: size of the zip in bytes. Defaults to the size of its file.
    """
    for member in members:
        method = zipfile.compressor_names.get(member.compress_type, member.compress_type)
        problem = f"has members packed by {method}, expected deflate, the usual method"
        require(member.compress_type in BOUNDED_METHODS, f"{problem}: {hint}")
        require(not member.flag_bits & 1, f"has encrypted members: {hint}")
    total = sum(member.file_size for member in members)
    size = os.path.getsize(archive.filename) if size is None else size
    problem = f"claims to unpack to {total:,} bytes, more than {MOST_RATIO} times its {size:,}"
    require(total <= max(LARGE, MOST_RATIO * size), f"{problem}: {hint}")


def read_npy(file, name, size, check_dtype):
    """Returns the array in a member of a zip as `np.load` does, after checking its header.

    Raises:
        ValueError: the header does not match the member's `size` in bytes; or as `check_dtype(dtype)` raises.
    """
    head = file.read(1 << 14)  # NumPy rejects longer headers only after reading them
    start = io.BytesIO(head)
    version = np.lib.format.read_magic(start)
    is_known = version in ((1, 0), (2, 0))
    require(is_known, f"{name} is of version {version} of .npy, expected (1, 0) or (2, 0)")
    read_header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
    shape, is_fortran, dtype = read_header(start)
    check_dtype(dtype)
    promised, held = math.prod(shape) * dtype.itemsize, size - start.tell()
    problem = f"{name} promises {promised:,} bytes (shape {shown(shape)}, {dtype}) but holds {held:,}"
    is_whole = promised == held and min((0, *shape)) == 0
    require(is_whole, f"{problem}: damaged, download or copy it again")
    data = bytearray(head[start.tell() :])
    while chunk := file.read(1 << 24):  # to the end, where zipfile checks the checksum
        data += chunk
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
