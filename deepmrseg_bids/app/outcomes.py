"""What became of a run: of each session, in its log, and as an exit code."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from deepmrseg_bids.app.session_log import DONE
from deepmrseg_bids.bids.tables import SessionRow
from deepmrseg_bids.findings import worst_first
from deepmrseg_bids.session.job import SessionJob, SessionOutcome, TaskOutcome
from deepmrseg_bids.session.resume import FinishedWork
from deepmrseg_bids.session.segment import finished_session
from deepmrseg_bids.session.verdict import LEVELS, Verdict, verdict
from deepmrseg_bids.wording import counted

__all__ = [
    "EXIT_ALL_DONE",
    "EXIT_NOTHING",
    "EXIT_SOME",
    "RunOutcome",
    "exit_code",
    "log_findings",
    "log_rows",
    "log_summary",
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


def log_summary(
    outcomes: Sequence[SessionOutcome],
    titles: Mapping[str, str],
    *,
    pages: Sequence[Path] = (),
    following: str,
) -> None:
    """The last word of a run: how many sessions are done, whom to look at, and what is next.

    Args:
        titles: of the tasks.
        pages: the reports.
        following: the next command.
    """
    ended = [_status([task.status for task in one.tasks if task.asked]) for one in outcomes]
    counts = {word: ended.count(word) for word in ("done", "failed", "skipped", "incomplete")}
    told = ", ".join(f"{number} {word}" for word, number in counts.items()
                     if number or word in ("done", "failed"))  # fmt: skip
    judged = [(_verdict(one, titles), one.name) for one in outcomes]
    odd = sorted(
        ((one, name) for one, name in judged if one.level != "ok"),
        key=lambda pair: LEVELS.index(pair[0].level),
    )
    _log.info("Summary: %s: %s; %s", counted(len(outcomes), "session"), told,
              f"{len(odd)} to look at" if odd else "none to look at")  # fmt: skip
    for one, name in odd[:_LISTED]:
        _log.info("  %s: %s: %s", one.level, name.replace("_", " "), one.reason)
    if len(odd) > _LISTED:
        _log.info("  and %s; see the verdicts in the reports",
                  counted(len(odd) - _LISTED, "more session", "more sessions"))  # fmt: skip
    there = [page for page in pages if page.is_file()]
    if there:
        every = there[0] if len(there) == 1 else there[0].parent / "sub-*.html"
        _log.info("  Reports: %s", every)
    _log.info("  Next: %s", following)


def _status(statuses: Sequence[str]) -> str:
    """One word for all tasks of a session that the run asks for."""
    if "failed" in statuses:
        return "failed"
    done = [status in DONE for status in statuses]
    return "done" if done and all(done) else "incomplete" if any(done) else "skipped"


def _verdict(outcome: SessionOutcome, titles: Mapping[str, str]) -> Verdict:
    tasks = [task for task in outcome.tasks if task.asked]
    found = worst_first([*outcome.findings, *(one for task in tasks for one in task.findings)])
    told = [(task.status, (titles.get(task.task, task.task), task.reason)) for task in tasks]
    nothing = not any(task.status in DONE for task in outcome.tasks)
    return verdict(
        [(one.severity, one.message) for one in found],
        failed=[what for status, what in told if status == "failed"],
        skipped=[what for status, what in told if nothing and status == "skipped"],
    )


def exit_code(rows: Sequence[SessionRow], *, pages_lost: int = 0) -> int:
    """0 if all that was asked for is done, reports too, 3 if some was not, 4 if nothing was."""
    done = sum(row.status in DONE for row in rows)
    if done == 0:
        return EXIT_NOTHING
    return EXIT_ALL_DONE if done == len(rows) and not pages_lost else EXIT_SOME
