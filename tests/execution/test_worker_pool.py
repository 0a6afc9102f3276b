"""Processes that are kept, whose death is noticed, and which do not outlive the run."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from deepmrseg_bids.execution.worker_pool import Answer, Crew, why


@pytest.fixture
def crew():
    with Crew() as found:
        yield found


def finish(crew):
    answers = {}
    while crew.busy:
        answers |= {answer.task: answer for answer in crew.wait()}
    return answers


def gone(pids, seconds=10.0):
    """Whether no process of these is left, after a while."""
    end = time.monotonic() + seconds
    while alive := [pid for pid in pids if psutil.pid_exists(pid)]:
        if time.monotonic() > end:
            return alive == []
        time.sleep(0.02)
    return True


def test_a_worker_is_kept_from_call_to_call(crew):
    for task in range(3):
        crew.start(task, time.sleep, 0)
        assert finish(crew)[task].error is None
        pids = crew.pids()
        assert len(pids) == 1 and pids[0] != os.getpid()
    crew.start("a", time.sleep, 0)
    assert crew.pids() == pids


def test_an_error_comes_back_and_the_worker_goes_on(crew):
    crew.start("bad", int, "x")
    assert "ValueError: invalid literal" in finish(crew)["bad"].error
    pids = crew.pids()
    crew.start("good", int, "1")
    assert finish(crew)["good"] == Answer("good")
    assert crew.pids() == pids


def test_a_worker_that_is_killed_costs_its_own_call_alone(crew):
    crew.start("killed", signal.raise_signal, signal.SIGKILL)
    crew.start("other", time.sleep, 0.3)
    answers = finish(crew)
    assert "the worker was killed, probably for memory" in answers["killed"].died
    assert answers["other"] == Answer("other")
    crew.start("next", time.sleep, 0)
    assert finish(crew)["next"] == Answer("next")


def test_a_worker_that_dies_between_two_calls_costs_none(crew):
    crew.start(1, time.sleep, 0)
    finish(crew)
    [pid] = crew.pids()
    os.kill(pid, signal.SIGKILL)
    assert gone([pid])
    crew.start(2, time.sleep, 0)
    assert finish(crew)[2] == Answer(2)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-9, "the worker was killed, probably for memory"),
        (-11, "the worker crashed (SIGSEGV), probably for memory"),
        (-15, "the worker was ended by SIGTERM"),
        (1, "ended unexpectedly (exit code 1)"),
        (None, "ended unexpectedly"),
    ],
)
def test_a_death_is_told_by_its_likely_cause(code, text):
    assert text in why(code)


def test_a_crew_that_is_ended_leaves_no_process_behind():
    start = time.monotonic()
    with Crew() as crew:
        crew.start("a", time.sleep, 600)
        crew.start("b", time.sleep, 600)
        pids = crew.pids()
    assert gone(pids) and len(pids) == 2
    assert time.monotonic() - start < 10


def test_workers_end_with_a_main_process_that_is_killed():
    code = (
        "import time; from deepmrseg_bids.execution.worker_pool import Crew\n"
        "crew = Crew(); crew.start(1, time.sleep, 600); print(*crew.pids(), flush=True)\n"
        "crew.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as main:
        pids = [int(pid) for pid in main.stdout.readline().split()]
        assert psutil.pid_exists(pids[0])
        main.kill()
    assert gone(pids)


def test_ctrl_c_in_the_terminal_does_not_end_a_worker(crew):
    crew.start(1, time.sleep, 0)
    finish(crew)  # now it listens
    crew.start(2, time.sleep, 0.3)
    os.kill(crew.pids()[0], signal.SIGINT)
    assert finish(crew)[2] == Answer(2)
