"""What became of a run: of each session, in its log, and as an exit code."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from deepmrseg_bids.app.session_log import DONE
from deepmrseg_bids.bids.tables import SessionRow
from deepmrseg_bids.session.job import SessionJob, SessionOutcome, TaskOutcome
from deepmrseg_bids.session.resume import FinishedWork
from deepmrseg_bids.session.segment import finished_session
from deepmrseg_bids.wording import counted

__all__ = [
    "EXIT_ALL_DONE",
    "EXIT_NOTHING",
    "EXIT_SOME",
    "RunOutcome",
    "exit_code",
    "log_findings",
    "log_rows",
    "session_outcome",
]

_log = logging.getLogger("deepmrseg-bids")
EXIT_ALL_DONE, EXIT_SOME, EXIT_NOTHING = 0, 3, 4
_LISTED = 10  # sessions that are named at the end of a run
_INTERRUPTED = "interrupted; run the same command again to complete it"
_STOPPED = "not started, because another session failed (--stop-on-first-crash)"
_NO_RECORD = "its process ended unexpectedly; see the crash file in logs/"


@dataclass(frozen=True)
class RunOutcome:
    """What the processes of a run came to.

    Attributes:
        recorded: what became of each session whose process came to its end, by name.
        reasons: why the process of a session failed, by the session's name.
        stopped: sessions were left out because one had failed.
        interrupted: the run was told to stop.
        pages_lost: how many reports could not be written.
    """

    recorded: Mapping[str, SessionOutcome] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    stopped: bool = False
    interrupted: bool = False
    pages_lost: int = 0

    def unfinished(self, name: str) -> tuple[str, str]:
        """Status and reason of the tasks that a session without a record did not finish."""
        if reason := self.reasons.get(name):
            return "failed", reason
        if self.interrupted:
            return "failed", _INTERRUPTED
        if self.stopped:
            return "skipped", _STOPPED
        return "failed", _NO_RECORD


def session_outcome(job: SessionJob, run: RunOutcome, work: FinishedWork) -> SessionOutcome:
    """What became of a session.

    One without a record has lost its process, or it never began; what it had published by
    then is done.
    """
    if job.name in run.recorded:
        return run.recorded[job.name]
    if not job.busy:
        return finished_session(job)
    status, reason = run.unfinished(job.name)
    done = tuple(replace(task, status="done") for task in work.tasks(job))
    known = {task.task for task in done}
    left = tuple(TaskOutcome(task, status, reason) for task in job.tasks if task not in known)
    asked = tuple(task.task for task in job.finished if task.asked) + job.tasks
    missing, made = work.spaces(replace(job, tasks=asked))
    spaces = (
        *(replace(space, status="done") for space in made),
        *(TaskOutcome(space.title, status, reason) for space in missing),
    )
    return replace(
        finished_session(job),
        tasks=(*job.finished, *done, *left),
        spaces=(*job.finished_spaces, *spaces),
    )


def log_rows(rows: Sequence[SessionRow]) -> None:
    """A line for each task that was not done, or about which something is to be known.

    What nobody began is only counted.
    """
    left: dict[str, int] = {}
    for row in rows:
        if row.reason in (_INTERRUPTED, _STOPPED):
            left[row.reason] = left.get(row.reason, 0) + 1
        elif row.status not in DONE:
            where = " ".join(filter(None, (row.participant_id, row.session_id)))
            _log.warning("%s: %s %s: %s", where, row.task, row.status, row.reason)
        elif row.reason:
            where = " ".join(filter(None, (row.participant_id, row.session_id)))
            _log.info("%s: %s: %s", where, row.task, row.reason)
    for reason, number in left.items():
        _log.warning("%d of %s not completed: %s", number, counted(len(rows), "task"), reason)


def log_findings(outcomes: Sequence[SessionOutcome]) -> None:
    """Name the sessions whose results should not be used before somebody has looked at them."""
    lines = []
    for outcome in outcomes:
        tasks = [task for task in outcome.tasks if task.status in DONE and task.asked]
        found = dict.fromkeys(
            finding for task in tasks for finding in task.findings if finding.severity == "error"
        )
        if found:
            name = f"sub-{outcome.subject}"
            name += f" ses-{outcome.session}" if outcome.session else ""
            texts = "; ".join(f"{finding.message} ({finding.code})" for finding in found)
            lines.append(f"{name}: {texts}")
    if not lines:
        return
    _log.warning("%s with findings of severity error: check them before using the results",
                 counted(len(lines), "session"))  # fmt: skip
    for line in lines[:_LISTED]:
        _log.warning("%s", line)
    if len(lines) > _LISTED:
        _log.warning("and %s; see the column findings in logs/sessions.tsv",
                     counted(len(lines) - _LISTED, "more session", "more sessions"))  # fmt: skip


def exit_code(rows: Sequence[SessionRow], *, pages_lost: int = 0) -> int:
    """0 if all that was asked for is done, reports too, 3 if some was not, 4 if nothing was."""
    done = sum(row.status in DONE for row in rows)
    if done == 0:
        return EXIT_NOTHING
    return EXIT_ALL_DONE if done == len(rows) and not pages_lost else EXIT_SOME
