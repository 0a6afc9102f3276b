"""The tables of a run: rows of several runs together, and kept while the run goes on."""

import pytest

from deepmrseg_bids.app.session_log import SessionLog, merged, rows_of
from deepmrseg_bids.bids.provenance import Digests, FileDigest
from deepmrseg_bids.bids.tables import SessionRow, read_sessions, write_sessions
from deepmrseg_bids.session.job import SessionOutcome, TaskOutcome


def outcome(subject, status="done", **changes):
    task = TaskOutcome("brain", status, **({"seconds": 2.0, "peak_mib": 300.0} | changes))
    digest = FileDigest(f"/d/{subject}", 1, 2, "abc")
    return SessionOutcome(subject, None, {}, (task,), inputs=(digest,))


@pytest.fixture
def session_log(tmp_path):
    def make(**changes):
        return SessionLog(tmp_path, Digests(tmp_path / "inputs.tsv"), **changes)

    return make


def subjects(folder):
    return [row.participant_id for row in read_sessions(folder / "sessions.tsv")]


def test_two_runs_add_to_one_table(session_log, tmp_path):
    session_log().write([outcome("b"), outcome("c")])
    session_log().write([outcome("a"), outcome("c", "failed")])
    assert subjects(tmp_path) == ["sub-a", "sub-b", "sub-c"]
    assert read_sessions(tmp_path / "sessions.tsv")[2].status == "failed"
    assert set(Digests.read(tmp_path / "inputs.tsv").known) == {"/d/a", "/d/b", "/d/c"}


def test_a_session_that_ended_is_in_the_table_before_the_run_ends(session_log, tmp_path):
    slow = session_log(every=1000)
    slow.on_finished(outcome("a"))
    assert not (tmp_path / "sessions.tsv").exists()
    fast = session_log(every=0)
    fast.on_finished(outcome("a"))
    assert subjects(tmp_path) == ["sub-a"]


def test_a_table_that_cannot_be_written_does_not_end_the_run(session_log, tmp_path, caplog):
    (tmp_path / "sessions.tsv").mkdir()
    (tmp_path / "sessions.tsv" / "x").touch()
    assert [row.status for row in session_log().write([outcome("a")])] == ["done"]
    assert any("cannot be written" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("task", "cost"),
    [
        (TaskOutcome("brain", "done", "", 3.5, 900.0), (3.5, 900.0)),
        (TaskOutcome("brain", "resumed"), (None, None)),
        (TaskOutcome("brain", "failed", "the worker was killed"), (None, None)),
    ],
)
def test_a_task_that_was_not_measured_has_no_cost(task, cost):
    [row] = rows_of(SessionOutcome("01", "1", {}, (task,)))
    assert (row.participant_id, row.session_id) == ("sub-01", "ses-1")
    assert (row.seconds, row.peak_mib) == cost


def test_a_resumed_task_keeps_what_it_took_when_it_was_done(tmp_path):
    table = tmp_path / "sessions.tsv"
    write_sessions(table, [SessionRow("sub-01", "", "brain", "done", "", 3.5, 900.0),
                           SessionRow("sub-01", "", "wml", "failed", "x", 9.0, 1.0)])  # fmt: skip
    now = [SessionRow("sub-01", "", "brain", "resumed"), SessionRow("sub-01", "", "wml", "resumed")]
    brain, wml = merged(table, now)
    assert (brain.status, brain.seconds, brain.peak_mib) == ("resumed", 3.5, 900.0)
    assert (wml.status, wml.seconds) == ("resumed", None)
