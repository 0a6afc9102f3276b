"""What a run does: each session with the tasks that are left, and what sessions may take."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from deepmrseg_bids.app.request import Request
from deepmrseg_bids.app.session_log import DONE
from deepmrseg_bids.app.standing import as_skipped_before, kept, outside, reported, with_rest
from deepmrseg_bids.bids.names import report_path
from deepmrseg_bids.bids.pages import page_shows
from deepmrseg_bids.bids.provenance import Digests
from deepmrseg_bids.bids.query import Session
from deepmrseg_bids.bids.tables import SessionRow
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.execution.cost_model import memory_mib
from deepmrseg_bids.execution.runner import Limits
from deepmrseg_bids.inference.precision import decide_precision
from deepmrseg_bids.session.inventory import Inventory
from deepmrseg_bids.session.job import SessionJob
from deepmrseg_bids.session.resume import FinishedWork
from deepmrseg_bids.system import usable_memory_mib

if TYPE_CHECKING:
    from deepmrseg_bids.session.template_spaces import SpaceJob

__all__ = ["Plan", "make_plan"]

_log = logging.getLogger("deepmrseg-bids")


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        jobs: every session of the run, with the tasks that are left to do.
        finished: what is in OUT_DIR already.
        limits: what the sessions may take together.
        others: sessions that are in OUT_DIR, but not in the run; they are on the pages.
        log: what ``logs/sessions.tsv`` says, by subject and session, and by task.
    """

    request: Request
    jobs: tuple[SessionJob, ...]
    finished: FinishedWork
    limits: Limits
    others: tuple[SessionJob, ...] = ()
    log: Mapping[tuple[str, str | None], Mapping[str, SessionRow]] = field(default_factory=dict)

    @cached_property
    def to_do(self) -> list[SessionJob]:
        """The sessions in which something is left to do."""
        return [job for job in self.jobs if job.busy]

    @cached_property
    def by_subject(self) -> dict[str, list[SessionJob]]:
        """The sessions on the page of each subject, those outside the run among them."""
        subjects: dict[str, list[SessionJob]] = {job.subject: [] for job in self.jobs}
        for job in (*self.jobs, *self.others):
            subjects.setdefault(job.subject, []).append(job)
        return {
            subject: sorted(jobs, key=lambda job: job.session or "")
            for subject, jobs in subjects.items()
        }

    @cached_property
    def scheduled(self) -> list[SessionJob]:
        """The sessions of every subject of whom something is left to do, if only the page."""
        config = self.request.config
        return [
            job
            for subject, jobs in self.by_subject.items()
            if (any(job.finished for job in jobs) if config.reports_only else self._left(jobs))
            for job in jobs
            if not config.reports_only or job.finished
        ]

    def _left(self, jobs: Sequence[SessionJob]) -> bool:
        """Whether there is anything left to do for a subject."""
        config = self.request.config
        if any(job.busy for job in jobs):
            return True
        return config.reports and not (
            _page_is_up_to_date(config.out_dir, jobs[0].subject, jobs)
            and all(map(self._is_as_before, jobs))
        )

    def _is_as_before(self, job: SessionJob) -> bool:
        """Whether what is said of a session is what was said by the run before."""
        before = self.log.get((job.subject, job.session), {})
        return all(
            (row := before.get(task.task)) is None
            or ((row.status in DONE) == (task.status in DONE) and row.reason == task.reason)
            for task in job.finished
            if task.asked or task.status not in DONE
        )

    def batches(self, size: int) -> Iterator[list[SessionJob]]:
        """Those sessions in parts of ``size`` or a little more: a subject's stay together."""
        batch: list[SessionJob] = []
        for _, jobs in groupby(self.scheduled, key=lambda job: job.subject):
            batch.extend(jobs)
            if len(batch) >= size:
                yield batch
                batch = []
        if batch:
            yield batch


def make_plan(request: Request) -> Plan:
    """Look up what earlier runs have finished, and what the rest may take."""
    config = request.config
    there = Inventory.of(config.out_dir, config.bids_dir, request.specs)
    finished = FinishedWork(config.out_dir, request.bundles, there.inputs, there.outputs)
    jobs = _jobs(request, finished, there)
    limits = _limits(config, sum(job.busy for job in jobs))
    others = outside(request, jobs, there)
    return Plan(request, tuple(jobs), finished, limits, tuple(others), there.log)


def _jobs(request: Request, finished: FinishedWork, there: Inventory) -> list[SessionJob]:
    """The sessions with the tasks that are left to do."""
    config = request.config
    spaces = () if config.reports_only else _space_jobs(request, finished.digests)
    jobs = [_job(request, session, spaces) for session in request.sessions]
    if config.reports_only:
        return [with_rest(reported(job, there), there) for job in jobs]
    precision = decide_precision(config.precision, config.device)
    jobs = [replace(job, precision=precision) for job in jobs]
    if not config.force:
        jobs = [_resumed(job, finished) for job in jobs]
    jobs = [kept(job, there) for job in jobs]
    if not config.force:
        jobs = [as_skipped_before(job, there) for job in jobs]
    jobs = [with_rest(job, there) for job in jobs]
    return [replace(job, memory_gb=_memory_gb(request, job)) if job.busy else job for job in jobs]


def _space_jobs(request: Request, digests: Digests) -> tuple[SpaceJob, ...]:
    if not request.templates:
        return ()  # and nothing of it is imported
    from deepmrseg_bids.session.template_spaces import space_jobs

    return space_jobs(request.templates, digests)


def _job(request: Request, session: Session, spaces: Sequence[SpaceJob]) -> SessionJob:
    config, tasks = request.config, request.tasks(session)
    return SessionJob(
        subject=session.subject,
        session=session.session,
        bids_dir=config.bids_dir,
        images=session.images,
        tasks=tasks,
        models=request.folders,
        device=config.device,
        flips=config.tta,
        probabilities=config.probabilities,
        regions=config.regions,
        force_header=config.force_header,
        notes=session.notes,
        missing=session.missing,
        spaces=tuple(replace(space, tasks=tasks) for space in spaces),
        force=config.force,
    )


def _resumed(job: SessionJob, work: FinishedWork) -> SessionJob:
    """The same job without the tasks and output spaces that an earlier run has finished."""
    finished = work.tasks(job)
    done = {outcome.task for outcome in finished}
    left = tuple(task for task in job.tasks if task not in done)
    spaces, made = work.spaces(job)
    return replace(job, tasks=left, finished=finished, spaces=spaces, finished_spaces=made)


def _memory_gb(request: Request, job: SessionJob) -> float:
    """What a session is expected to take."""
    specs = [job.spec(task) for task in job.runs]
    return memory_mib(request.grids(job.images), specs, spaces=len(job.spaces)) / 1024


def _limits(config: RunConfig, sessions: int) -> Limits:
    """What the sessions of the run may take together; ``--low-mem``: one at a time."""
    threads = config.threads(1 if config.low_mem else sessions)
    cores = threads if config.low_mem else config.nprocs
    return Limits(cores, threads, config.mem / 1024 or usable_memory_mib() / 1024)


def _page_is_up_to_date(out_dir: Path, subject: str, jobs: Sequence[SessionJob]) -> bool:
    """Whether the page is there, and no older than anything it shows.

    A run that is killed between the last result and the page leaves an old one.
    """
    try:
        path = out_dir / report_path(subject)
        files = [file for job in jobs for task in job.finished for file in task.files]
        tables = [os.path.basename(file) for file in files if file.endswith("_morph.tsv")]
        page = path.stat().st_mtime_ns if page_shows(path, tables) else 0
        return all(os.stat(f"{out_dir}/{file}").st_mtime_ns <= page for file in files)
    except OSError:
        return False
