"""The processor cores that a process may use."""

import os
from pathlib import Path

QUOTA = "/sys/fs/cgroup/cpu.max"  # of a container (cgroup v2)
OLD_QUOTA = ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def num_cores():
    """Returns the number of cores that this process may use: at least 1.

    The affinity of the process and the quota of its container limit it. The runtimes count neither, and start
    a thread per core of the machine, which makes them slow in a small container on a large machine.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = core_quota()
    return count if quota is None else max(1, min(count, round(quota)))


def core_quota():
    """Returns how many cores the container may use, a float; None without a limit."""
    try:
        quota, period = Path(QUOTA).read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = (Path(path).read_text() for path in OLD_QUOTA)
        except OSError:
            return None
    try:
        cores = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return cores if cores > 0 else None  # -1: no limit
