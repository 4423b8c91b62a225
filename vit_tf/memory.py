"""The machine's memory: how much there is, and what errors say that it is used up."""

import os
import re
from pathlib import Path

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container
NAMES = ("ResourceExhaustedError", "OutOfMemoryError")  # TensorFlow's, PyTorch's
SIGNS = re.compile(r"RESOURCE_EXHAUSTED|[Oo]ut of memory|can't allocate memory|not enough memory")
SIZE = re.compile(r"OOM when allocating tensor with shape\[[\d,]*\]|[Aa]llocat\w* [\d.,]+ ?\w*")


class OutOfMemory(ValueError):
    """What was asked for needs more memory than the machine has."""


def total_memory():
    """Returns the bytes of memory that the machine, or the container, has; None where it does not tell."""
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


def is_out_of_memory(error):
    """Whether an exception of Python, NumPy or a backend says that memory could not be had."""
    if isinstance(error, MemoryError) or type(error).__name__ in NAMES:
        return True
    # JAX's and PyTorch's are kinds of RuntimeError; TensorFlow's InternalError is an error of its own.
    of_backend = isinstance(error, RuntimeError) or type(error).__name__ == "InternalError"
    return of_backend and SIGNS.search(str(error)) is not None


def describe(error):
    """Returns what could not be allocated by an error of a backend, "" where it does not tell."""
    found = SIZE.search(str(error))
    return f" ({found[0]})" if found else ""


def gigabytes(num_bytes):
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.1f} MB"
