"""What stands in OUT_DIR beside what a run does: kept, excluded, lost or damaged results.

There is one truth, the files in OUT_DIR: what was done earlier stays done if its scan has gone, if
a filter excludes it or if other tasks are asked for, and is failed if it was lost or damaged and
cannot be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from deepmrseg_bids.app.request import Request
from deepmrseg_bids.app.session_log import DONE
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.imaging.nifti import read_grid
from deepmrseg_bids.session.inventory import Inventory, Recorded
from deepmrseg_bids.session.job import SessionJob, TaskOutcome

__all__ = ["as_skipped_before", "kept", "outside", "reported", "with_rest"]

_EARLIER = "completed by an earlier run"
_NOT_ASKED = f"{_EARLIER}; not requested in this run"
_NOT_PART = f"{_EARLIER}; the session is not part of this run (labels, filters)"
_GONE = f"{_EARLIER}; the data set no longer contains its images"


def kept(job: SessionJob, there: Inventory) -> SessionJob:
    """The same job without tasks that were done earlier and whose images cannot be used now.

    Notes say which results were lost or damaged and are made again.
    """
    for task in job.tasks:
        found = there.find(job.subject, job.session, task, job.images)
        if found is None:
            continue
        reason = _unusable(job, task, found)
        if not reason and found.whole:
            job = replace(job, earlier=(*job.earlier, task))
        elif not reason and not job.force:
            job = replace(job, notes=(*job.notes, f"{task}: {found.flaw}; the task is repeated"))
        elif reason:
            job = _settled(job, there, found, reason)
    return job


def as_skipped_before(job: SessionJob, there: Inventory) -> SessionJob:
    """The same job without tasks that the run before skipped for the same reason.

    So a session of which nothing else is left to do leaves its page as it is.
    """
    rows = there.log.get((job.subject, job.session), {})
    known = tuple(
        TaskOutcome(task, row.status, row.reason)
        for task in job.tasks
        if (row := rows.get(task)) is not None
        and row.status == "skipped"
        and row.reason == job.lacking(task)
    )
    names = {outcome.task for outcome in known}
    left = tuple(task for task in job.tasks if task not in names)
    return replace(job, tasks=left, finished=(*job.finished, *known))


def _settled(job: SessionJob, there: Inventory, found: Recorded, reason: str) -> SessionJob:
    """The same job without a task that cannot be repeated."""
    outcome = found.outcome(there.out_dir, f"{_EARLIER}; {reason}")
    if not found.whole:
        outcome = replace(outcome, reason=f"{found.flaw}; it cannot be repeated: {reason}")
    return replace(
        job,
        tasks=tuple(task for task in job.tasks if task != found.spec.name),
        finished=(*job.finished, outcome),
        recorded={**found.images, **job.recorded},
    )


def _unusable(job: SessionJob, task: str, found: Recorded) -> str:
    """Why a task cannot be repeated; empty if nothing is known against it."""
    if reason := job.lacking(task):
        gone = [path.name for path in found.images.values() if not path.exists()]
        return f"{', '.join(gone)} is no longer in the data set" if gone else reason
    for path in job.inputs(task):
        try:
            read_grid(path, force_header=job.force_header)
        except DeepMRSegError as error:
            return " ".join(str(error).split())
    return ""


def reported(job: SessionJob, there: Inventory) -> SessionJob:
    """A job for the pages alone: what is in OUT_DIR of the tasks that are asked for."""
    rows = there.log.get((job.subject, job.session), {})
    outcomes: list[TaskOutcome] = []
    images: dict[str, Path] = {}
    for task in job.tasks:
        found = there.find(job.subject, job.session, task, job.images)
        if found is not None:
            found = there.of_its_scan(found)
            outcomes.append(found.outcome(there.out_dir))
            images |= found.images
        elif (row := rows.get(task)) is not None and row.status not in DONE:
            outcomes.append(TaskOutcome(task, row.status, row.reason))
    return replace(job, tasks=(), finished=tuple(outcomes), images={**job.images, **images})


def with_rest(job: SessionJob, there: Inventory) -> SessionJob:
    """The same job with what OUT_DIR holds of the session besides what is asked for."""
    known = {*job.tasks, *(outcome.task for outcome in job.finished)}
    rest = [task for task in there.tasks(job.subject, job.session) if task not in known]
    found = [there.find(job.subject, job.session, task, job.images) for task in rest]
    outcomes, recorded = _outcomes(there, found, _NOT_ASKED, asked=False)
    return replace(job, finished=(*job.finished, *outcomes), recorded={**recorded, **job.recorded})


def outside(request: Request, jobs: Sequence[SessionJob], there: Inventory) -> list[SessionJob]:
    """The sessions in OUT_DIR that are not in a run, of its subjects.

    A run of the whole data set is about all of OUT_DIR: what is there and not in BIDS_DIR has
    lost its images.
    """
    config = request.config
    part = bool(config.participant_label or config.session_label or config.shard)
    known = {(job.subject, job.session) for job in jobs}
    subjects = dict.fromkeys(job.subject for job in jobs)
    found = []
    for subject in subjects if part else dict.fromkeys([*subjects, *there.subjects()]):
        for session in there.sessions(subject):
            if (subject, session) not in known:
                found.append(_other(request, there, subject, session, part=part))
    return [job for job in found if job.finished]


def _other(
    request: Request, there: Inventory, subject: str, session: str | None, *, part: bool
) -> SessionJob:
    results = [there.find(subject, session, task) for task in there.tasks(subject, session)]
    reason = _NOT_PART if part else _GONE
    outcomes, recorded = _outcomes(there, results, reason, asked=not part)
    return SessionJob(
        subject, session, request.config.bids_dir, {}, (), finished=outcomes, recorded=recorded
    )


def _outcomes(
    there: Inventory, found: Sequence[Recorded | None], reason: str, *, asked: bool
) -> tuple[tuple[TaskOutcome, ...], dict[str, Path]]:
    """What to report of results, and the images that they were made from."""
    results = [there.of_its_scan(one, remembered=True) for one in found if one is not None]
    outcomes = tuple(one.outcome(there.out_dir, reason, asked=asked) for one in results)
    images: dict[str, Path] = {}
    for one in results:
        images |= one.images
    return outcomes, images
