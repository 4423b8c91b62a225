"""The memory of the machine: its size, and which errors say that it is exhausted."""

import contextlib
import gc
import os
import re
from pathlib import Path

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container
NAMES = ("ResourceExhaustedError", "OutOfMemoryError")  # TensorFlow's, PyTorch's
SIGNS = re.compile(r"RESOURCE_EXHAUSTED|[Oo]ut of memory|can't allocate memory|not enough memory")
SIZE = re.compile(r"OOM when allocating tensor with shape\[[\d,]*\]|[Aa]llocat\w* [\d.,]+ ?\w*")


class OutOfMemory(ValueError):
    """An operation needs more memory than the machine has."""


@contextlib.contextmanager
def paused_collection():
    """A scope without Python's garbage collection, for what makes many objects and drops few.

    Collections search all objects of TensorFlow each time: an eighth of the time to build a ViT-B.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def total_memory():
    """Returns the memory of the machine or of its container in bytes; None if unknown."""
    sizes = []
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" in names:
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in LIMITS:
        try:
            sizes.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(sizes, default=None)


def free_memory():
    """Returns the bytes that a process can still allocate; None if unknown."""
    try:
        # Linux's sysconf leaves out the pages that the system would release.
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        names = getattr(os, "sysconf_names", {})
        pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in names else "SC_PHYS_PAGES"
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE") if pages in names else None


def is_out_of_memory(error):
    """Whether an exception of Python, NumPy or a backend says that memory could not be allocated."""
    if isinstance(error, MemoryError) or type(error).__name__ in NAMES:
        return True
    # JAX's and PyTorch's errors are subclasses of RuntimeError; TensorFlow's InternalError is not.
    of_backend = isinstance(error, RuntimeError) or type(error).__name__ == "InternalError"
    return of_backend and SIGNS.search(str(error)) is not None


def describe(error):
    """Returns which allocation failed by the message of an error, in parentheses; "" if unknown."""
    match = SIZE.search(str(error))
    return f" ({match[0]})" if match else ""


def gigabytes(num_bytes):
    """Returns a number of bytes as text, in GB or MB."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.1f} MB"
