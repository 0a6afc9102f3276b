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


def node(name, record=None):
    return SimpleNamespace(name=name, inputs=SimpleNamespace(record=str(record)))


@pytest.fixture
def session(tmp_path):
    """The node of a session of which one task was done and one skipped."""
    record = tmp_path / "sub-1.json"
    record.write_text('{"tasks": [{"status": "done"}, {"status": "skipped"}]}')
    return node("segment_1_1", record)


def test_sessions_that_end_are_counted_and_the_rest_is_timed(clock, session):
    progress = Progress(4, stream=io.StringIO())
    assert progress.line() == "0 of 4 sessions done, 0 failed, 4 remaining"
    clock.time += 60
    progress(session, "start")
    progress(session, "end")
    assert progress.line() == "1 of 4 sessions done, 0 failed, 3 remaining, about 3 min left"
    progress(session, "exception")
    assert progress.line() == "1 of 4 sessions done, 1 failed, 2 remaining, about 60 s left"
    progress(session, "end")
    progress(session, "end")
    assert progress.line() == "3 of 4 sessions done, 1 failed, 0 remaining"


def test_long_waits_are_told_in_hours(clock, session):
    progress = Progress(3, stream=io.StringIO())
    clock.time += 5400
    progress(session, "end")
    assert progress.line().endswith("about 3.0 h left")


@pytest.mark.parametrize("name", ["report", "outputnode", "merge", ""])
def test_other_nodes_are_no_sessions(name, session):
    progress = Progress(1, stream=io.StringIO())
    progress(node(name), "end")
    progress(node(name), "exception")
    assert (progress.done, progress.failed) == (0, 0)


def test_a_terminal_shows_one_line_that_is_redrawn_and_ended(session):
    stream = Terminal()
    progress = Progress(2, stream=stream)
    progress(session, "end")
    assert "\n" not in stream.getvalue()
    progress(session, "exception")
    drawn = stream.getvalue().split("\r\033[K")
    assert drawn[1].startswith("1 of 2 sessions done, 0 failed")
    assert drawn[2] == "1 of 2 sessions done, 1 failed, 0 remaining\n"


def test_a_line_that_is_left_open_is_ended_once(session):
    stream = Terminal()
    progress = Progress(2, stream=stream)
    progress.close()
    assert stream.getvalue() == ""
    progress(session, "end")
    progress.close()
    progress.close()
    assert stream.getvalue().endswith("1 remaining, about 0 s left\n")
    assert stream.getvalue().count("\n") == 1


def test_each_session_that_ended_is_told_by_its_name(session):
    names = []
    progress = Progress(2, stream=io.StringIO(), quiet=True, ended=names.append)
    progress(session, "start")
    progress(session, "end")
    progress(session, "exception")
    assert names == ["sub-1", "sub-1"]


def test_without_a_terminal_lines_are_logged(caplog, session):
    stream = io.StringIO()
    with caplog.at_level(logging.INFO, logger="deepmrseg-bids"):
        progress = Progress(2, stream=stream)
        progress(session, "end")
        progress(session, "end")
    assert stream.getvalue() == ""
    assert caplog.messages[-1] == "2 of 2 sessions done, 0 failed, 0 remaining"
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_quiet_run_says_nothing_and_still_counts(stream, caplog, session):
    out = stream()
    with caplog.at_level(logging.DEBUG):
        progress = Progress(2, stream=out, quiet=True)
        progress(session, "end")
        progress(session, "exception")
    assert (out.getvalue(), caplog.messages) == ("", [])
    assert (progress.done, progress.failed) == (1, 1)


@pytest.mark.parametrize("text", ['{"tasks": [{"status": "failed"}]}', "", "{}"])
def test_a_session_with_a_failed_task_or_without_an_outcome_counts_as_failed(tmp_path, text):
    record = tmp_path / "sub-2.json"
    record.write_text(text)
    progress = Progress(1, stream=io.StringIO())
    progress(node("segment_1_1", record), "end")
    assert (progress.done, progress.failed) == (0, 1)
