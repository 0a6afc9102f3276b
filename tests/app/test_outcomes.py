"""What became of a run: sessions that broke off, lines of the log, and the exit code."""

from pathlib import Path

import pytest

from deepmrseg_bids.app.outcomes import RunOutcome, exit_code, log_rows, session_outcome
from deepmrseg_bids.bids.provenance import Digests
from deepmrseg_bids.bids.tables import SessionRow
from deepmrseg_bids.session.job import SessionJob, SessionOutcome, TaskOutcome
from deepmrseg_bids.session.resume import FinishedWork
from tests.support import images_of


def rows(*statuses):
    return [SessionRow("sub-01", "n/a", "brain", status) for status in statuses]


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["done"], 0),
        (["done", "resumed"], 0),
        (["resumed"], 0),
        (["done", "failed"], 3),
        (["done", "skipped"], 3),
        (["resumed", "failed"], 3),
        (["failed"], 4),
        (["skipped", "failed"], 4),
        ([], 4),
    ],
)
def test_the_exit_code_says_whether_all_some_or_nothing_was_done(statuses, code):
    assert exit_code(rows(*statuses)) == code


def job(*, tasks=("brain",), finished=()):
    done = tuple(TaskOutcome(task, "resumed") for task in finished)
    return SessionJob("01", None, Path("/d"), images_of("/d/t.nii.gz"), tasks, finished=done)


@pytest.fixture
def work(monkeypatch, tmp_path):
    """An OUT_DIR in which ``deepbrain`` was published."""
    published = (TaskOutcome("deepbrain", "resumed"),)
    monkeypatch.setattr(FinishedWork, "tasks", lambda *_: published)
    return FinishedWork(tmp_path, {}, Digests(tmp_path / "inputs.tsv"))


@pytest.mark.parametrize(
    ("run", "status", "reason"),
    [
        (RunOutcome(reasons={"sub-01": "killed"}), "failed", "killed"),
        (RunOutcome(reasons={"sub-01": "killed"}, interrupted=True), "failed", "killed"),
        (RunOutcome(), "failed", "ended unexpectedly"),
        (RunOutcome(interrupted=True), "failed", "interrupted; run the same command again"),
        (RunOutcome(stopped=True), "skipped", "not started"),
    ],
)
def test_a_session_that_broke_off_keeps_what_was_finished(work, run, status, reason):
    asked = job(tasks=("deepbrain", "wml"), finished=("brain",))
    outcome = session_outcome(asked, run, work)
    tasks = [(task.task, task.status, task.reason) for task in outcome.tasks]
    assert tasks[:2] == [("brain", "resumed", ""), ("deepbrain", "done", "")]
    name, found, text = tasks[2]
    assert (name, found) == ("wml", status) and reason in text


def test_what_a_process_recorded_is_what_became_of_its_session(work):
    recorded = SessionOutcome("01", None, {}, (TaskOutcome("brain", "failed", "no signal"),))
    run = RunOutcome({"sub-01": recorded}, {"sub-01": "killed"}, interrupted=True)
    assert session_outcome(job(), run, work) is recorded


def test_a_session_with_nothing_to_do_needs_no_record(work):
    outcome = session_outcome(job(tasks=(), finished=("brain",)), RunOutcome(), work)
    assert [task.status for task in outcome.tasks] == ["resumed"]


@pytest.mark.parametrize("run", [RunOutcome(interrupted=True), RunOutcome(stopped=True)])
def test_what_nobody_began_is_counted_and_not_listed(caplog, run):
    status, reason = run.unfinished("sub-2")
    left = [SessionRow("sub-2", "", "brain", status, reason)] * 5
    failed = SessionRow("sub-1", "ses-1", "brain", "failed", "no signal")
    log_rows([failed, *left])
    assert caplog.messages == [
        "sub-1 ses-1: brain failed: no signal",
        f"5 of 6 tasks not completed: {reason}",
    ]
