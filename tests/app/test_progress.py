"""The line of progress: what it counts, and where it goes."""

import io
import logging
from types import SimpleNamespace

import pytest

from deepmrseg_bids.app import progress as module
from deepmrseg_bids.app.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set."""
    now = SimpleNamespace(time=1000.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.time)
    return now


def node(name):
    return SimpleNamespace(name=name)


SESSION = node("segment_1_1")


def test_sessions_that_end_are_counted_and_the_rest_is_timed(clock):
    progress = Progress(4, stream=io.StringIO())
    assert progress.line() == "0 of 4 sessions done, 0 failed"
    clock.time += 60
    progress(SESSION, "start")
    progress(SESSION, "end")
    assert progress.line() == "1 of 4 sessions done, 0 failed, about 3 min left"
    progress(SESSION, "exception")
    assert progress.line() == "1 of 4 sessions done, 1 failed, about 60 s left"
    progress(SESSION, "end")
    progress(SESSION, "end")
    assert progress.line() == "3 of 4 sessions done, 1 failed"


def test_long_waits_are_told_in_hours(clock):
    progress = Progress(3, stream=io.StringIO())
    clock.time += 5400
    progress(SESSION, "end")
    assert progress.line().endswith("about 3.0 h left")


@pytest.mark.parametrize("name", ["report", "outputnode", "merge", ""])
def test_other_nodes_are_no_sessions(name):
    progress = Progress(1, stream=io.StringIO())
    progress(node(name), "end")
    progress(node(name), "exception")
    assert (progress.done, progress.failed) == (0, 0)


def test_a_terminal_shows_one_line_that_is_redrawn_and_ended():
    stream = Terminal()
    progress = Progress(2, stream=stream)
    progress(SESSION, "end")
    assert "\n" not in stream.getvalue()
    progress(SESSION, "exception")
    drawn = stream.getvalue().split("\r\033[K")
    assert drawn[1].startswith("1 of 2 sessions done, 0 failed")
    assert drawn[2] == "1 of 2 sessions done, 1 failed\n"


def test_without_a_terminal_lines_are_logged(caplog):
    stream = io.StringIO()
    with caplog.at_level(logging.INFO, logger="deepmrseg-bids"):
        progress = Progress(2, stream=stream)
        progress(SESSION, "end")
        progress(SESSION, "end")
    assert stream.getvalue() == ""
    assert caplog.messages[-1] == "2 of 2 sessions done, 0 failed"
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_quiet_run_says_nothing_and_still_counts(stream, caplog):
    out = stream()
    with caplog.at_level(logging.DEBUG):
        progress = Progress(2, stream=out, quiet=True)
        progress(SESSION, "end")
        progress(SESSION, "exception")
    assert (out.getvalue(), caplog.messages) == ("", [])
    assert (progress.done, progress.failed) == (1, 1)
