"""Writing a folder completely or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vit_tf.checks import brief
from vit_tf.deploy.export_formats import MANIFEST
from vit_tf.files import PARTIAL, file_mode_mask, sync_folder

DEEPEST = 3  # of a manifest in an exported folder: SIZE or NAME/VERSION
FULL = ("No space left on device", "Disk quota exceeded")


def check_new_folder(path: str | os.PathLike, force: bool) -> None:
    """Raises a ValueError unless an exported folder can be written at a path."""
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {str(path.parent)!r} for {path.name!r}: make it first")
    if not os.path.lexists(path):
        return
    if not force:
        raise ValueError(f"{str(path)!r} already exists: choose another name, or add --force")
    if path.is_symlink() or not path.is_dir() or not (is_exported(path) or not any(path.iterdir())):
        raise ValueError(f"{str(path)!r} is no exported folder, which --force replaces: choose another name")


def is_exported(folder: Path) -> bool:
    """Whether a folder was written by `vit_tf.export`."""
    return any(next(folder.glob("*/" * depth + MANIFEST), None) for depth in range(DEEPEST))


@contextmanager
def atomic_folder(path: str | os.PathLike, force: bool = False) -> Iterator[Path]:
    """Yields a new folder beside `path`, and renames it to `path` at the end.

    An error in the block removes the folder and does not change an existing `path`.

    Args:
        path: the final path of the folder.
        force: bool, whether to replace an exported folder.

    Raises:
        OSError: the disk is full, also where a library's own error says so.
    """
    path = Path(path)
    beside = path.absolute()
    work = Path(tempfile.mkdtemp(prefix=PARTIAL, suffix=f".{beside.name[-200:]}", dir=beside.parent))
    partial = work / beside.name
    try:
        partial.mkdir()
        with disk_errors(beside):
            yield partial
        finish_files(partial)
        check_new_folder(path, force)  # it may have been made meanwhile
        replace_folder(partial, path, work / "replaced")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    sync_folder(beside.parent)


def replace_folder(new, path, old):
    """Renames a folder to `path`, and what was there to `old`. An error in between puts that back."""
    try:
        if os.path.lexists(path):
            os.rename(path, old)
        os.rename(new, path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        raise


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """A scope in which a library's error about a full disk becomes an OSError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or not any(text in str(error) for text in FULL):
            raise
        raise OSError(errno.ENOSPC, f"No space left on device ({brief(error, 200)})", str(path)) from error


def finish_files(folder: Path) -> None:
    """Flushes the files of a folder to the disk, and gives them the usual permissions."""
    mask = file_mode_mask()
    for path in [folder, *sorted(folder.rglob("*"))]:
        if path.is_dir():
            path.chmod(0o777 & ~mask)
            sync_folder(path)
        else:
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
            path.chmod(0o666 & ~mask)


def folder_size(folder: Path) -> int:
    """Returns the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
