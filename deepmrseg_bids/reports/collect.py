"""From what is in OUT_DIR to the page of one subject."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deepmrseg_bids import __version__
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.outputs import SessionOutcome, TaskOutcome
from deepmrseg_bids.bids.tables import read_morph
from deepmrseg_bids.findings import worst_first
from deepmrseg_bids.labels import LabelTable
from deepmrseg_bids.reports.subject import SessionResult, TaskResult, write_subject_report

__all__ = ["subject_page"]


def subject_page(outcomes: Sequence[SessionOutcome], out_dir: Path, *, command: str) -> Path:
    """Write ``sub-<label>.html`` for the sessions of one subject and return its path."""
    page = out_dir / names.report_path(outcomes[0].subject)
    results = [
        SessionResult(
            subject=outcome.subject,
            session=outcome.session,
            tasks=tuple(_task(outcome, task, out_dir) for task in outcome.tasks),
            findings=worst_first(
                [*outcome.findings, *(one for task in outcome.tasks for one in task.findings)]
            ),
            notes=(*outcome.notes, *map(_about_space, outcome.spaces)),
        )
        for outcome in outcomes
    ]
    models = {task.task: task.model for o in outcomes for task in o.tasks if task.model}
    write_subject_report(page, results, version=__version__, command=command, models=models)
    return page


def _about_space(space: TaskOutcome) -> str:
    """A line about the label maps in the space of a template."""
    return f"{space.task}: {space.status}" + (f", {space.reason}" if space.reason else "")


def _task(outcome: SessionOutcome, task: TaskOutcome, out_dir: Path) -> TaskResult:
    source = outcome.t1w or (outcome.flair if task.task == "wml" else None)
    if task.status not in ("done", "resumed") or source is None:
        return TaskResult(task.task, task.status, task.reason, None, None, None, (), task.seconds)
    image, dseg = source, names.label_map_path(source, task.task)
    if task.task == "wml" and outcome.flair is not None:  # where the lesions were seen
        image, dseg = outcome.flair, names.label_map_path(outcome.flair, "wml", space="FLAIR")
    return TaskResult(
        task=task.task,
        status=task.status,
        reason=task.reason,
        image=Path(image),
        dseg=out_dir / dseg,
        table=LabelTable.read(out_dir / names.label_table_path(task.task)),
        rows=read_morph(out_dir / names.morph_path(source, task.task)),
        seconds=task.seconds,
    )
