"""Reading regular files, and atomic writing: completely or not at all."""

import csv
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from vit_tf.checks import brief, cut

MOST_JSON_BYTES = 64 << 20
PARTIAL = "partial."  # the prefix of temporary names


@contextmanager
def atomic_path(path, rename=None):
    """Yields a path in a temporary folder beside `path`, and renames the file to `path` at the end.

    The temporary file has the same name, since libraries choose the format by the ending, and a folder of its
    own, since some libraries write temporary files beside it. An error in the block removes the folder and
    does not change an existing `path`.

    Args:
        path: the final path of the file.
        rename: optional function from the finished temporary path to another final name, for names that
            depend on the content.
    """
    path = Path(path)
    folder = Path(tempfile.mkdtemp(prefix=PARTIAL, suffix=f".{path.name[-200:]}", dir=path.parent))
    partial = folder / path.name
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # on the disk before the rename
        os.chmod(partial, 0o666 & ~file_mode_mask())  # a library may have created the file for its owner only
        os.replace(partial, path.with_name(rename(partial)) if rename else path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(path.parent)


def sync_folder(folder):
    """Flushes the names in a folder to the disk, except on Windows, which does not support it."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_partial_files(folder):
    """Removes the temporary folders of `atomic_path` that a killed process left."""
    for path in Path(folder).glob(f"{PARTIAL}????????.*"):
        shutil.rmtree(path, ignore_errors=True)


KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def cache_folder():
    """Returns the folder of vit_tf in the user's cache folder, as the operating system has it."""
    if sys.platform == "win32":
        parent = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        parent = Path.home() / "Library" / "Caches"
    else:
        parent = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(parent) / "vit_tf"


def open_regular(path, limit=None, is_regular=False):
    """Opens a regular file, also through symbolic links, for reading bytes.

    Pipes and devices are not opened, since reading them may block or never end.

    Args:
        path: str or path-like.
        limit: int, the maximum size of the file in bytes, or None.
        is_regular: bool, whether the caller has just looked that the file is regular.

    Returns:
        A binary file object.

    Raises:
        OSError: the file does not exist, or permission is denied.
        ValueError: the file is not regular, or larger than `limit`. The message does not name the file.
    """
    if not is_regular:
        require_regular(os.stat(path))
    flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
    file = open(os.open(path, os.O_RDONLY | sum(flags)), "rb")
    try:
        status = os.fstat(file.fileno())
        require_regular(status)  # the path may have changed meanwhile
        if limit is not None and status.st_size > limit:
            raise ValueError(f"the file has {status.st_size:,} bytes: at most {limit:,} are read")
    except BaseException:
        file.close()
        raise
    return file


def require_regular(status):
    """Raises a ValueError unless an `os.stat_result` is that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ValueError(f"{kind}: expected a regular file")


def read_regular(path, limit, is_regular=False):
    """Returns the bytes of a regular file of at most `limit` bytes, see `open_regular`."""
    with open_regular(path, limit, is_regular) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # without bytes that are appended meanwhile


def sha256(path):
    """Returns the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_mode_mask():
    """Returns the process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def try_lock(file):
    """Locks an open file against other processes until it is closed; returns whether it was free.

    A killed process leaves no lock. On Windows files are not locked.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def require_space(folder, num_bytes):
    """Raises an OSError if a folder's disk has less than `num_bytes` of free space.

    HDF5 aborts the process if the disk becomes full during a write.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        problem = f"No space left: {num_bytes:,} bytes are needed, {free:,} are free"
        raise OSError(errno.ENOSPC, problem, str(folder))


def read_json(path):
    """Returns the JSON object of a file, as a dict.

    Raises:
        ValueError: the file is not regular, is not JSON, holds no object, is larger than 64 MiB, or has a
            number that is not finite or exceeds 64 bits. The message names the file.
    """
    try:
        text = read_regular(path, MOST_JSON_BYTES)
        numbers = dict(parse_constant=finite_number, parse_float=finite_number, parse_int=short_int)
        content = json.loads(text, **numbers)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{str(path)!r} is not JSON that can be read: {brief(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{str(path)!r} must hold a JSON object, got {type(content).__name__}")
    return content


def finite_number(text):
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"it has the number {cut(text)}, expected finite ones")
    return number


def short_int(text):
    if len(text) > 20 or abs(int(text)) >= 1 << 63:
        raise ValueError(f"it has the number {cut(text)}, expected ints of 64 bits")
    return int(text)


def write_json(path, content):
    """Writes `content` as indented JSON, completely or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def write_csv(path, header, rows):
    """Writes a header and rows of values as CSV, completely or not at all. File names may be any bytes."""
    with atomic_path(path) as partial:
        with open(partial, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
