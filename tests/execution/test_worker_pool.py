"""Processes that are kept, whose death is noticed, and which do not outlive the run."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from deepmrseg_bids.execution.worker_pool import CallResult, WorkerPool, describe_exit


@pytest.fixture
def pool():
    with WorkerPool() as made:
        yield made


def finish(pool):
    results = {}
    while pool.busy:
        results |= {result.key: result for result in pool.wait()}
    return results


def gone(pids, seconds=10.0):
    """Whether no process of these is left, after a while."""
    end = time.monotonic() + seconds
    while alive := [pid for pid in pids if psutil.pid_exists(pid)]:
        if time.monotonic() > end:
            return alive == []
        time.sleep(0.02)
    return True


def test_a_worker_is_kept_from_call_to_call(pool):
    for task in range(3):
        pool.start(task, time.sleep, 0)
        assert finish(pool)[task].error is None
        pids = pool.pids()
        assert len(pids) == 1 and pids[0] != os.getpid()
    pool.start("a", time.sleep, 0)
    assert pool.pids() == pids


def test_an_error_comes_back_and_the_worker_goes_on(pool):
    pool.start("bad", int, "x")
    assert "ValueError: invalid literal" in finish(pool)["bad"].error
    pids = pool.pids()
    pool.start("good", int, "1")
    assert finish(pool)["good"] == CallResult("good", 1)
    assert pool.pids() == pids


def test_a_worker_that_is_killed_costs_its_own_call_alone(pool):
    pool.start("killed", signal.raise_signal, signal.SIGKILL)
    pool.start("other", time.sleep, 0.3)
    results = finish(pool)
    assert "the worker was killed, probably because of memory" in results["killed"].died
    assert results["other"] == CallResult("other")
    pool.start("next", time.sleep, 0)
    assert finish(pool)["next"] == CallResult("next")


def test_a_worker_that_dies_between_two_calls_costs_none(pool):
    pool.start(1, time.sleep, 0)
    finish(pool)
    [pid] = pool.pids()
    os.kill(pid, signal.SIGKILL)
    assert gone([pid])
    pool.start(2, time.sleep, 0)
    assert finish(pool)[2] == CallResult(2)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-9, "the worker was killed, probably because of memory"),
        (-11, "the worker crashed (SIGSEGV), probably because of memory"),
        (-15, "the worker was ended by SIGTERM"),
        (1, "ended unexpectedly (exit code 1)"),
        (None, "ended unexpectedly"),
    ],
)
def test_a_death_is_told_by_its_likely_cause(code, text):
    assert text in describe_exit(code)


def test_a_pool_that_is_ended_leaves_no_process_behind():
    start = time.monotonic()
    with WorkerPool() as pool:
        pool.start("a", time.sleep, 600)
        pool.start("b", time.sleep, 600)
        pids = pool.pids()
    assert gone(pids) and len(pids) == 2
    assert time.monotonic() - start < 10


def test_workers_end_with_a_main_process_that_is_killed():
    code = (
        "import time; from deepmrseg_bids.execution.worker_pool import WorkerPool\n"
        "pool = WorkerPool(); pool.start(1, time.sleep, 600); print(*pool.pids(), flush=True)\n"
        "pool.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as main:
        pids = [int(pid) for pid in main.stdout.readline().split()]
        assert psutil.pid_exists(pids[0])
        main.kill()
    assert gone(pids)


def test_ctrl_c_in_the_terminal_does_not_end_a_worker(pool):
    pool.start(1, time.sleep, 0)
    finish(pool)  # now it listens
    pool.start(2, time.sleep, 0.3)
    os.kill(pool.pids()[0], signal.SIGINT)
    assert finish(pool)[2] == CallResult(2)


def halve(number):
    """Half of an even number; some numbers are bad luck."""
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_calls_return_comes_back_with_what_they_were_given(pool, at_once):
    results = dict(pool.map_unordered(halve, [2, 4, 7, 6], at_once=at_once))
    assert {number: result.value for number, result in results.items()} == {
        2: 1, 4: 2, 7: None, 6: 3,
    }  # fmt: skip
    assert results[7].problem == "ValueError: 7 is odd"
    assert not any(results[number].problem for number in (2, 4, 6))
    assert len(pool.pids()) == (0 if at_once == 1 else 2)


def test_a_worker_that_is_killed_costs_its_own_item_alone(pool):
    results = dict(pool.map_unordered(halve, [2, 13, 4, 6], at_once=2))
    assert "the worker was killed" in results[13].problem
    assert [results[number].value for number in (2, 4, 6)] == [1, 2, 3]


def test_a_value_that_cannot_be_sent_is_an_error_of_its_call(pool):
    pool.start("lock", threading.Lock)
    assert "cannot pickle" in finish(pool)["lock"].problem
    pool.start("next", int, "1")
    assert finish(pool)["next"].value == 1


@pytest.mark.parametrize("length", [60, 75, 76, 120])
def test_workers_start_wherever_temporary_files_lie(tmp_path, length):
    folder = tmp_path / ("x" * max(1, length - len(str(tmp_path)) - 1))
    folder.mkdir()
    code = (
        "import os, sys\n"
        "from multiprocessing import util\n"
        "from deepmrseg_bids.execution.worker_pool import WorkerPool\n"
        "with WorkerPool() as pool:\n"
        "    pool.start('a', len, 'abc')\n"
        "    [result] = pool.wait()\n"
        "print(result.value, util.get_temp_dir())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(folder)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    value, sockets = ended.stdout.split()
    assert value == "3" and not os.path.exists(sockets)
    assert list(folder.iterdir()) == []
