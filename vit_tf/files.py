"""Files that are written whole or not at all."""

import csv
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

from vit_tf.checks import brief, cut

MOST_JSON_BYTES = 64 << 20
PARTIAL = "partial."  # how temporary names begin


@contextmanager
def atomic_path(path, rename=None):
    """Gives a path in a temporary folder beside `path`; what is written there becomes `path` at the end.

    The file keeps its name, since libraries choose the format by its endings, and has a folder of its
    own, since some write temporary files of theirs beside it. An error inside removes the folder and
    leaves an older `path` as it was.

    Args:
        path: where the file is to be.
        rename: function from the finished file's temporary path to the name it takes instead, for
            names that depend on the content.
    """
    path = Path(path)
    folder = Path(tempfile.mkdtemp(prefix=PARTIAL, suffix=f".{path.name[-200:]}", dir=path.parent))
    partial = folder / path.name
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())  # on the disk before it takes the name
        os.chmod(partial, 0o666 & ~file_mode_mask())  # libraries may have made it for its owner alone
        os.replace(partial, path.with_name(rename(partial)) if rename else path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(path.parent)


def sync_folder(folder):
    """Puts the names in a folder on the disk, where the system can (Windows cannot)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_partial_files(folder):
    """Removes what a killed process left of files that were not whole yet, `atomic_path`'s folders."""
    for path in Path(folder).glob(f"{PARTIAL}????????.*"):
        shutil.rmtree(path, ignore_errors=True)


KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path, limit=None):
    """Opens a regular file, behind symbolic links too, for reading bytes.

    A pipe or a device would wait for ever or never end. Neither is opened.

    Args:
        path: str or path-like.
        limit: int, the most bytes that the file may have, or None.

    Returns:
        A binary file object.

    Raises:
        OSError: there is no such file, or it may not be read.
        ValueError: it is no regular file, or larger than `limit`. The message does not name the file.
    """
    require_regular(os.stat(path))
    flags = (getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
    file = open(os.open(path, os.O_RDONLY | sum(flags)), "rb")
    try:
        status = os.fstat(file.fileno())
        require_regular(status)  # the path may lead elsewhere by now
        if limit is not None and status.st_size > limit:
            raise ValueError(f"the file has {status.st_size:,} bytes: at most {limit:,} are read")
    except BaseException:
        file.close()
        raise
    return file


def require_regular(status):
    """Raises a ValueError where an `os.stat_result` is not that of a regular file."""
    if not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise ValueError(f"{kind}: expected a regular file")


def read_regular(path, limit):
    """Returns the bytes of a regular file of at most `limit` bytes, see `open_regular`."""
    with open_regular(path, limit) as file:
        return file.read(os.fstat(file.fileno()).st_size)  # and nothing of what is added meanwhile


def sha256(path):
    """Returns the SHA-256 of a file in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def read_json(path):
    """Returns the JSON object of a file, as a dict.

    Raises:
        ValueError: it is no regular file, or no JSON, holds no object, has over 64 MiB, or has a number that
            is not finite, as `NaN`, or beyond 64 bits. The message names the file.
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
    """Writes `content` as indented JSON, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def write_csv(path, header, rows):
    """Writes rows of values under a header as CSV, whole or not at all. Names of files may be any bytes."""
    with atomic_path(path) as partial:
        with open(partial, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
