"""The line of progress: what it counts, and where it goes."""

import io
import logging
from types import SimpleNamespace

import pytest

from deepmrseg_bids.execution import progress as module
from deepmrseg_bids.execution.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set."""
    now = SimpleNamespace(time=1000.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.time)
    return now


def test_sessions_that_end_are_counted_and_the_rest_is_timed(clock):
    progress = Progress(4, stream=io.StringIO())
    assert progress.line() == "0 of 4 sessions done, 0 failed, 4 remaining"
    clock.time += 60
    progress.count(good=True)
    assert progress.line() == "1 of 4 sessions done, 0 failed, 3 remaining, about 3 min left"
    progress.count(good=False)
    assert progress.line() == "1 of 4 sessions done, 1 failed, 2 remaining, about 60 s left"
    progress.count(good=True)
    progress.count(good=True)
    assert progress.line() == "3 of 4 sessions done, 1 failed, 0 remaining"


def test_long_waits_are_told_in_hours(clock):
    progress = Progress(3, stream=io.StringIO())
    clock.time += 5400
    progress.count(good=True)
    assert progress.line().endswith("about 3.0 h left")


def test_a_terminal_shows_one_line_that_is_redrawn_and_ended():
    stream = Terminal()
    progress = Progress(2, stream=stream)
    progress.count(good=True)
    assert "\n" not in stream.getvalue()
    progress.count(good=False)
    drawn = stream.getvalue().split("\r\033[K")
    assert drawn[1].startswith("1 of 2 sessions done, 0 failed")
    assert drawn[2] == "1 of 2 sessions done, 1 failed, 0 remaining\n"


def test_a_line_that_is_left_open_is_ended_once():
    stream = Terminal()
    progress = Progress(2, stream=stream)
    progress.close()
    assert stream.getvalue() == ""
    progress.count(good=True)
    progress.close()
    progress.close()
    assert stream.getvalue().endswith("1 remaining, about 0 s left\n")
    assert stream.getvalue().count("\n") == 1


def test_without_a_terminal_lines_are_logged(caplog):
    stream = io.StringIO()
    with caplog.at_level(logging.INFO, logger="deepmrseg-bids"):
        progress = Progress(2, stream=stream)
        progress.count(good=True)
        progress.count(good=True)
    assert stream.getvalue() == ""
    assert caplog.messages[-1] == "2 of 2 sessions done, 0 failed, 0 remaining"
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_quiet_run_says_nothing_and_still_counts(stream, caplog):
    out = stream()
    with caplog.at_level(logging.DEBUG):
        progress = Progress(2, stream=out, quiet=True)
        progress.count(good=True)
        progress.count(good=False)
    assert (out.getvalue(), caplog.messages) == ("", [])
    assert (progress.done, progress.failed) == (1, 1)


def test_a_session_of_which_nothing_could_be_done_is_not_called_done():
    progress = Progress(3, stream=io.StringIO(), quiet=True)
    progress.count(good=True, skipped=True)
    progress.count(good=False)
    progress.count(good=True)
    assert progress.line() == "1 of 3 sessions done, 1 failed, 1 skipped, 0 remaining"
