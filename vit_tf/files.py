"""Files that are written whole or not at all."""

import errno
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path):
    """Gives a temporary path beside `path`; what is written there becomes `path` at the end.

    The temporary name keeps the endings of `path`, since libraries choose the format by them. An
    error inside removes the temporary file and leaves an older `path` as it was.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix="partial.", suffix=f".{path.name[-200:]}", dir=path.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # on the disk before it takes the name
        os.chmod(partial, 0o666 & ~file_mode_mask())  # temporary files are for their owner alone
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def file_mode_mask():
    """Returns the process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def require_space(folder, num_bytes):
    """Raises an OSError where a folder's disk has less than `num_bytes` left.

    HDF5 ends the process when the disk is full in the middle of a file.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise OSError(
            errno.ENOSPC, f"No space left: {num_bytes:,} bytes are needed, {free:,} are free", str(folder)
        )


def write_json(path, content):
    """Writes `content` as indented JSON, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")
