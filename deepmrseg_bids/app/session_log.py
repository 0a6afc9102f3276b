"""``logs/sessions.tsv`` and ``logs/inputs.tsv``: what became of each session, shared by all runs.

Several runs may write into one OUT_DIR, so each adds its own rows to what is there, one run at
a time. The lock is the kernel's: it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from deepmrseg_bids.bids.names import table_source
from deepmrseg_bids.bids.provenance import Digests, certified
from deepmrseg_bids.bids.tables import SessionRow, read_sessions, write_sessions
from deepmrseg_bids.bids.visits import natural
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import locked, temporary
from deepmrseg_bids.findings import worst_first
from deepmrseg_bids.session.job import SessionOutcome, TaskOutcome

__all__ = ["DONE", "SessionLog", "merged", "rows_of"]

_log = logging.getLogger("deepmrseg-bids")
DONE = ("done", "resumed")
"""The statuses of a task whose files are there."""


class SessionLog:
    """Keeps the tables of a run up to date while it goes on.

    Args:
        logs: OUT_DIR/logs.
        digests: the table of inputs; receives the images that were read.
        outputs: the table of outputs; receives the files that were written.
        every: seconds between two times that the tables are written.
        room: bytes kept free for the tables: on a disk that got full they tell why.
    """

    def __init__(
        self,
        logs: Path,
        digests: Digests,
        *,
        outputs: Digests | None = None,
        every: float = 30.0,
        room: int = 0,
    ) -> None:
        self._logs, self._digests, self._outputs = logs, digests, outputs
        self._every, self._last = every, time.monotonic()
        self._waiting: list[SessionOutcome] = []
        self._room = ExitStack()
        if room:
            with suppress(OSError):  # it was worth a try
                _, stream = self._room.enter_context(temporary(logs))
                stream.write(bytes(room))
                stream.flush()

    def __enter__(self) -> SessionLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._room.close()

    def on_finished(self, outcome: SessionOutcome) -> None:
        """A session has ended: it will be in the tables within ``every`` seconds of work."""
        self._waiting.append(outcome)
        if time.monotonic() - self._last >= self._every:
            self.write(self._waiting)

    def write(self, outcomes: Sequence[SessionOutcome]) -> list[SessionRow]:
        """Add sessions to the tables; returns their rows.

        A disk that is full costs the tables, not the run: it is said in the log.
        """
        self._waiting = []
        self._last = time.monotonic()
        self._digests.add(digest for outcome in outcomes for digest in outcome.inputs)
        self._add_outputs(outcomes)
        rows = [row for outcome in outcomes for row in rows_of(outcome)]
        beside = [row for outcome in outcomes for row in rows_of(outcome, asked=False)]
        table = self._logs / "sessions.tsv"
        for last in (False, True):
            try:
                with locked(self._logs / ".lock"):
                    write_sessions(table, merged(table, rows, beside))
                    self._digests.save()
                    if self._outputs is not None:
                        self._outputs.save()
                break
            except DatasetError as error:
                if last:
                    _log.error("%s", error)
                self._room.close()
        return rows + [row for row in beside if row.status not in DONE]

    def _add_outputs(self, outcomes: Sequence[SessionOutcome]) -> None:
        """Remember the files that were written, as their sidecars certify them."""
        if self._outputs is None:
            return
        for outcome in outcomes:
            for task in (*outcome.tasks, *outcome.spaces):
                if task.status == "done":
                    self._outputs.add(certified(self._logs.parent, task.files))


def rows_of(outcome: SessionOutcome, *, asked: bool = True) -> list[SessionRow]:
    """A line of ``sessions.tsv`` for each task of a session.

    Args:
        asked: those that the run asks for, or the others.
    """
    subject = f"sub-{outcome.subject}"
    session = f"ses-{outcome.session}" if outcome.session else ""
    rows = []
    for task in (one for one in (*outcome.tasks, *outcome.spaces) if one.asked is asked):
        findings = worst_first(task.findings or outcome.findings)
        tags = ",".join(dict.fromkeys(finding.tag for finding in findings))
        said = (task.status, task.reason, *_cost(task), tags, _source(task))
        rows.append(SessionRow(subject, session, task.task, *said))
    return rows


def _source(task: TaskOutcome) -> str:
    """The stem of the image that the tables of a task are named after; empty without one."""
    tables = (file for file in task.files if file.endswith(f"_seg-{task.task}_morph.tsv"))
    return next((table_source(table) for table in tables), "")


def _cost(task: TaskOutcome) -> tuple[float | None, float | None]:
    """Seconds and memory; a task that was not done now, or whose process died, has none."""
    known = task.status != "resumed" and task.peak_mib > 0
    return (task.seconds, task.peak_mib) if known else (None, None)


def _moved_aside(table: Path) -> Path:
    """Rename a table that is not one of ours, or no more: somebody may want it."""
    number = 1
    while (kept := table.with_name(f"{table.stem}_unreadable-{number}{table.suffix}")).exists():
        number += 1
    with suppress(OSError):
        table.rename(kept)
    return kept


def merged(
    table: Path, rows: Iterable[SessionRow], beside: Iterable[SessionRow] = ()
) -> list[SessionRow]:
    """These rows, and those of the table about other sessions and tasks.

    Args:
        beside: rows about what the run does not ask for: they replace only what is not true.
    """
    try:
        earlier = read_sessions(table) if table.exists() else []
    except DatasetError as error:
        kept = _moved_aside(table) if table.is_file() else table
        _log.warning("%s: starting a new table; the old one is kept as %s", error, kept.name)
        earlier = []
    merged_rows = {(row.participant_id, row.session_id, row.task): row for row in earlier}
    for row in beside:
        before = merged_rows.get((row.participant_id, row.session_id, row.task))
        if before is None or (before.status in DONE) != (row.status in DONE):
            merged_rows[row.participant_id, row.session_id, row.task] = row
    for row in rows:
        key = (row.participant_id, row.session_id, row.task)
        before = merged_rows.get(key)
        if row.status == "resumed" and before is not None and before.status in DONE:
            # what it took when it was done
            row = replace(row, seconds=before.seconds, peak_mib=before.peak_mib)
        merged_rows[key] = row
    order = sorted(merged_rows, key=lambda key: (key[0], natural(key[1]), key[2]))
    return [merged_rows[key] for key in order]
