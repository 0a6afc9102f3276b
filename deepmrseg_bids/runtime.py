"""How a process of ours uses the machine: called once by a command, before torch is loaded.

On two cores, OpenMP threads that spin while they wait for one another lose a factor of 5 to
20 as soon as anything else runs, and a heap that gives its pages back after each layer costs
a quarter of the time (``docs/performance.md``). Both are settings of the process.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

__all__ = ["peak_memory_mib", "prepare_process", "usable_cores"]

_SPIN = "20000"  # rounds that a waiting thread spins before it sleeps
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt(3)


def prepare_process() -> None:
    """Set waiting and memory of this process; a user's own settings are left alone."""
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = _SPIN
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        try:
            libc = ctypes.CDLL(None)
            libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
            libc.mallopt(_MMAP_MAX, 0)
        except (OSError, AttributeError):  # another C library: nothing to set
            return


def usable_cores() -> int:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory_mib() -> float:
    """The largest resident size of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
