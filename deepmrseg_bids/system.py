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
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

__all__ = [
    "cpu_has_bfloat16",
    "forget_peak_memory",
    "give_back_memory",
    "may_have_gpu",
    "open_standard_streams",
    "peak_memory_mib",
    "prepare_process",
    "usable_cores",
    "usable_memory_mib",
]

_SPIN = "20000"  # rounds that a waiting thread spins before it sleeps
_NO_HOME = "/nonexistent"  # of a user who has none
_GPU_PLACES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", "/dev/nvhost-gpu")
_TRIM_THRESHOLD, _MMAP_MAX, _NEVER = -1, -4, -1  # mallopt(3)


def prepare_process() -> None:
    """Set waiting, memory and home of this process; a user's own settings are left alone."""
    try:
        Path.home()
    except RuntimeError:  # libraries ask for it while they are imported; nothing is written there
        os.environ["HOME"] = _NO_HOME
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = _SPIN
    if sys.platform == "linux" and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        try:
            libc = ctypes.CDLL(None)
            libc.mallopt(_TRIM_THRESHOLD, _NEVER)
            libc.mallopt(_MMAP_MAX, 0)
        except (OSError, AttributeError):  # another C library: nothing to set
            return


def open_standard_streams() -> None:
    """Connect standard input, output and error to nothing where the caller has closed them.

    Else the next file that is opened takes their place, and is written to as if it were them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            here = os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            os.set_inheritable(here, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def usable_cores() -> int:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def cpu_has_bfloat16() -> bool:
    """Whether this CPU computes with bfloat16 (x86 under Linux)."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as stream:
            flags = next((line for line in stream if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def may_have_gpu() -> bool:
    """Whether it is worth the time to load torch and ask it for a GPU."""
    return sys.platform != "linux" or any(Path(place).exists() for place in _GPU_PLACES)


def usable_memory_mib() -> float:
    """The memory that a run may take: nine tenths of what is free now, or of a job's limit."""
    free = float(psutil.virtual_memory().available)
    for limit in _job_limits():
        with suppress(OSError, ValueError):  # not here, or "max"
            free = min(free, float(limit.read_text(encoding="ascii")))
    if (most := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
        free = min(free, most)  # ulimit -v, for each process
    return 0.9 * free / 2**20


def _job_limits() -> Iterator[Path]:
    """Files with the limits of the control groups that this process is in (Linux)."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        name = {"": "memory.max", "memory": "memory.limit_in_bytes"}.get(kinds)
        if name is not None:
            group = Path("/sys/fs/cgroup") / kinds
            yield group / name
            for part in Path(path.strip("/")).parts:
                group /= part
                yield group / name


def peak_memory_mib() -> float:
    """The largest resident size of this process since :func:`forget_peak_memory`, in MiB."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return float(status.split("VmHWM:")[1].split()[0]) / 2**10
    except (OSError, IndexError, ValueError):  # not Linux: since the process began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def give_back_memory() -> None:
    """Return the pages of the heap that hold nothing to the system.

    The heap keeps its pages (:func:`prepare_process`), and large arrays do not fit into what small
    ones have left between them: without this a process grows from session to session.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def forget_peak_memory() -> None:
    """Give unused memory back; begin to look for the largest size anew, where the kernel can."""
    give_back_memory()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
