"""What a process sets for itself, and what it leaves to its user."""

import ctypes
import os
import subprocess
import sys

import psutil
import pytest

from deepmrseg_bids import system


class Library:
    """A C library that notes its settings."""

    def __init__(self):
        self.set = {}

    def mallopt(self, option, value):
        self.set[option] = value
        return 1


@pytest.fixture
def process(monkeypatch):
    """Prepare a process with this environment; returns it and the settings of its heap."""

    def prepare(**environment):
        library = Library()
        monkeypatch.setattr(system.os, "environ", environment)
        monkeypatch.setattr(system.sys, "platform", "linux")
        monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
        system.prepare_process()
        return environment, library.set

    return prepare


def test_waiting_threads_go_to_sleep_soon(process):
    environment, _ = process()
    assert environment == {"GOMP_SPINCOUNT": "20000"}


@pytest.mark.parametrize(
    "own", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}], ids=lambda own: next(iter(own))
)
def test_the_users_own_way_of_waiting_is_left_alone(process, own):
    environment, _ = process(**own)
    assert environment == own


def test_the_heap_keeps_its_pages(process):
    _, heap = process()
    assert heap == {-1: -1, -4: 0}  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h


def test_the_users_own_heap_is_left_alone(process):
    _, heap = process(MALLOC_TRIM_THRESHOLD_="1")
    assert heap == {}


@pytest.mark.parametrize("library", [object(), None], ids=["another", "none"])
def test_another_c_library_is_no_error(monkeypatch, library):
    def load(_):
        if library is None:
            raise OSError("no library")
        return library

    monkeypatch.setattr(system.os, "environ", {})
    monkeypatch.setattr(system.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", load)
    system.prepare_process()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs CPU affinity")
def test_the_cores_are_those_that_the_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert system.usable_cores() == 3


def test_where_there_is_no_affinity_all_cores_count(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert system.usable_cores() == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert system.usable_cores() == 1


def test_the_peak_is_at_least_what_is_in_use_and_in_mebibytes():
    now = psutil.Process().memory_info().rss / 2**20
    peak = system.peak_memory_mib()
    assert peak > 0.9 * now > 0
    assert peak < psutil.virtual_memory().total / 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="the heap is set up on Linux alone")
def test_what_a_session_leaves_in_the_heap_can_be_given_back():
    code = """
import numpy as np, psutil
from deepmrseg_bids.system import give_back_memory, prepare_process
prepare_process()
size = lambda: psutil.Process().memory_info().rss / 2**20
blocks = [np.ones(2**20) for _ in range(40)]  # 320 MiB
last = np.ones(2**16)  # above them: the heap cannot shrink
del blocks
before = size()
give_back_memory()
print(before - size())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 250
