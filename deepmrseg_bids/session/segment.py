"""One session from its scans to its derivative files: segment, stage, publish.

``segment_session`` is the edge of a session: no error leaves it, each becomes a task that
failed with its reason.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from deepmrseg_bids.bids.label_tables import label_table_of
from deepmrseg_bids.bids.ownership import FileGuard
from deepmrseg_bids.bids.provenance import FileDigest
from deepmrseg_bids.bids.sidecar_check import check_beside
from deepmrseg_bids.errors import (
    DeepMRSegError,
    ForeignFileError,
    RegistrationError,
    SegmentationError,
    SkippedTask,
)
from deepmrseg_bids.files import Staging, write_text
from deepmrseg_bids.findings import Finding, worst_first
from deepmrseg_bids.imaging.nifti import Volume, read_labels, read_volume
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.session.job import SessionJob, SessionOutcome, TaskOutcome
from deepmrseg_bids.session.publish import Publication, provenance_of, stage_task
from deepmrseg_bids.session.template_spaces import Carrier, SpaceJob
from deepmrseg_bids.system import (
    forget_peak_memory,
    peak_memory_mib,
    prepare_process,
)
from deepmrseg_bids.tasks.brain import TASK as BRAIN
from deepmrseg_bids.tasks.lesion_landmarks import Anatomy, is_anatomy
from deepmrseg_bids.tasks.methods import methods_facts
from deepmrseg_bids.tasks.pipeline import Result, lost_tasks, run
from deepmrseg_bids.tasks.qc import check_image
from deepmrseg_bids.tasks.results import Segmentation
from deepmrseg_bids.tasks.spec import MODALITIES, T1W
from deepmrseg_bids.tasks.wml import LesionSegmentation
from deepmrseg_bids.wording import why

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import PredictorPool

__all__ = ["finished_session", "segment_session"]

_log = logging.getLogger(__name__)
_NO_T1W = "the session has no T1w image"


@lru_cache(maxsize=1)
def _pool(
    models: tuple[tuple[str, Path], ...], device: str, precision: str, flips: bool
) -> PredictorPool:
    """The predictors of this process, kept from session to session."""
    from deepmrseg_bids.inference.predictor import PredictorPool, resolve_device

    return PredictorPool(
        dict(models),
        resolve_device(device),
        precision,  # type: ignore[arg-type]
        flips,
        fallback=device == "auto",
    )


def segment_session(job: SessionJob, out_dir: Path, *, work: Path, record: Path) -> SessionOutcome:
    """Segment one session and publish its files in OUT_DIR, each task when it is complete.

    Never raises for what lies in the data: each task has its status and reason.

    Args:
        work: where files are staged.
        record: receives the outcome as JSON at the very end; without it the session died.
    """
    outcome = _segment(job, out_dir, work)
    write_text(record, outcome.to_json())
    return outcome


def finished_session(job: SessionJob) -> SessionOutcome:
    """The outcome of a session of which an earlier run has done everything."""
    return SessionOutcome(
        job.subject, job.session, _texts({**job.recorded, **job.images}), job.finished,
        notes=job.notes,
        spaces=job.finished_spaces,
    )  # fmt: skip


def _texts(images: Mapping[str, Path]) -> dict[str, str]:
    return {modality: str(path) for modality, path in images.items()}


@dataclass(frozen=True)
class _Scans:
    """The images of a session as they were read.

    Attributes:
        errors: why an image cannot be used, by modality.
        findings: about the T1w.
        inputs: SHA-256 of the files.
    """

    volumes: Mapping[str, Volume]
    errors: Mapping[str, DeepMRSegError]
    findings: tuple[Finding, ...]
    inputs: tuple[FileDigest, ...]

    @property
    def digests(self) -> dict[Path, str]:
        return {Path(one.path): one.sha256 for one in self.inputs}


@dataclass
class _Progress:
    """What is known of a session so far, for whoever catches its error."""

    scans: _Scans | None = None
    outcomes: list[TaskOutcome] = field(default_factory=list)


def _segment(job: SessionJob, out_dir: Path, work: Path) -> SessionOutcome:
    prepare_process()
    forget_peak_memory()
    so_far = _Progress()
    try:
        so_far.scans = _read(job)
        so_far.outcomes.extend(_run_tasks(job, so_far.scans, out_dir, work))
    except Exception as error:  # the edge of a session: whatever it is stays in it
        if not isinstance(error, (DeepMRSegError, MemoryError, OSError)):
            _log.error("%s: %s", job.name, traceback.format_exc())
        done = {outcome.task for outcome in so_far.outcomes}
        asked = (*job.tasks, *(space.title for space in job.spaces))
        so_far.outcomes += [_stopped(task, error) for task in asked if task not in done]
    titles = {space.title for space in job.spaces}
    scans = so_far.scans
    outcomes = [_explained(job, outcome) for outcome in so_far.outcomes]
    return replace(
        finished_session(job),
        tasks=(*job.finished, *(one for one in outcomes if one.task not in titles)),
        findings=scans.findings if scans else (),
        inputs=scans.inputs if scans else (),
        spaces=(*job.finished_spaces, *(one for one in outcomes if one.task in titles)),
    )


def _explained(job: SessionJob, outcome: TaskOutcome) -> TaskOutcome:
    """The same outcome with why an image is missing, and that an earlier result is there."""
    task, reason = outcome.task, outcome.reason
    if (
        outcome.status == "skipped"
        and task in job.tasks
        and reason == job.spec(task).missing(job.images)
    ):
        reason = job.lacking(task)
    if outcome.status == "failed" and task in job.earlier:
        reason += "; the result of an earlier run, from another version of the inputs, is kept"
    return replace(outcome, reason=reason)


def _read(job: SessionJob) -> _Scans:
    """Read the images that the tasks look at.

    Raises:
        DeepMRSegError: the T1w cannot be used.
        SkippedTask: no task has an image.
    """
    specs = [job.spec(task) for task in job.runs]
    if all(spec.missing(job.images) == _NO_T1W for spec in specs):
        raise SkippedTask(_NO_T1W)
    volumes: dict[str, Volume] = {}
    errors: dict[str, DeepMRSegError] = {}
    findings: tuple[Finding, ...] = ()
    wanted = {mode for spec in specs for mode in spec.images(job.images)} | {T1W}
    for modality in (mode for mode in MODALITIES if mode in wanted and mode in job.images):
        path = job.images[modality]
        try:
            volume = read_volume(path, force_header=job.force_header)
        except DeepMRSegError as error:
            if modality == T1W:
                raise
            errors[modality] = error
            continue
        if modality == T1W:
            findings = (*volume.findings, *check_image(volume), *check_beside(path))
        else:
            more = (*volume.findings, *check_beside(path))
            volume = replace(volume, findings=more)
        volumes[modality] = volume
    files = dict.fromkeys(path for spec in specs for path in spec.images(job.images).values())
    inputs = tuple(FileDigest.of(path) for path in files if path.is_file())
    return _Scans(volumes, errors, findings, inputs)


def _run_tasks(job: SessionJob, scans: _Scans, out_dir: Path, work: Path) -> Iterator[TaskOutcome]:
    """Do all that is asked for; what each step ended in, with its time and memory."""
    from deepmrseg_bids.inference.predictor import set_threads

    set_threads(job.threads)
    pool = _pool(job.models, job.device, job.precision, job.flips)
    clock = _Clock()
    guard = FileGuard(out_dir, force=job.force)
    results: dict[str, Result] = {}
    for task, result in _results(job, scans, pool, out_dir):
        if job.spaces:
            results[task] = _in_t1w(result)
        if task in job.tasks:  # others are only carried over
            try:
                with Staging(out_dir, work, guard) as staging:
                    outcome = _published(job, task, result, scans, pool, staging)
            except ForeignFileError as error:  # costs this task alone
                outcome = _stopped(task, error)
            yield clock.stamped(outcome)
    if job.spaces:
        yield from map(clock.stamped, _resampled(job, scans, results, pool, (out_dir, work)))


def _results(
    job: SessionJob, scans: _Scans, pool: PredictorPool, out_dir: Path
) -> Iterator[tuple[str, Result]]:
    """Each task with its result; an image that cannot be read costs the tasks that need it."""
    specs = [job.spec(task) for task in job.runs]
    lost = lost_tasks(specs, scans.errors)
    yield from lost.items()
    left = [spec for spec in specs if spec.name not in lost]
    earlier = _earlier(job, out_dir) if any(spec.lesions for spec in left) else []
    yield from run(scans.volumes, left, pool, anatomies=earlier)


def _earlier(job: SessionJob, out_dir: Path) -> list[Anatomy]:
    """Label maps in OUT_DIR of tasks that do not run now and tell the places of lesions."""
    found = []
    for outcome in job.finished:
        if outcome.status != "resumed" or outcome.task in job.runs or not outcome.files:
            continue
        path = out_dir / outcome.files[0]
        try:
            table = label_table_of(out_dir, outcome.task, path)
            if job.spec(outcome.task).native == T1W and is_anatomy(table):
                found.append(Anatomy(outcome.task, read_labels(path), table))
        except (DeepMRSegError, OSError):  # then the places are told without it
            _log.warning("%s: %s cannot be read for the places of lesions", job.name, path.name)
    return found


def _published(
    job: SessionJob,
    task: str,
    result: Result,
    scans: _Scans,
    pool: PredictorPool,
    staging: Staging,
) -> TaskOutcome:
    """Stage the files of a task; its outcome."""
    if not isinstance(result, Segmentation):
        return _stopped(task, result)
    findings = worst_first((*scans.findings, *result.findings))
    bundles = _bundles_of(job, task, pool)
    about = Publication(
        provenance_of(job, task, bundles, scans.digests),
        findings,
        methods_facts(job.spec(task), bundles),
    )
    files = stage_task(job, result, about, staging)
    model = bundles[job.spec(task).models[-1]].label
    return TaskOutcome(task, "done", files=files, findings=findings, model=model)


def _bundles_of(job: SessionJob, task: str, pool: PredictorPool) -> dict[str, ModelBundle]:
    return {model: pool(model).bundle for model in job.spec(task).models}


def _resampled(
    job: SessionJob,
    scans: _Scans,
    results: Mapping[str, Result],
    pool: PredictorPool,
    folders: tuple[Path, Path],
) -> Iterator[TaskOutcome]:
    """Carry the results over to each output space."""
    if job.t1w is None or T1W not in scans.volumes:
        yield from (_stopped(space.title, SkippedTask(_NO_T1W)) for space in job.spaces)
        return
    found = {task: one for task, one in results.items() if isinstance(one, Segmentation)}
    carrier = Carrier(
        source=job.t1w,
        volume=scans.volumes[T1W],
        results=found,
        specs={task: job.spec(task) for task in found},
        native={
            task: provenance_of(job, task, _bundles_of(job, task, pool), scans.digests)
            for task in found
        },
        findings=scans.findings,
        out_dir=folders[0],
        work=folders[1],
        again=job.force,
    )
    for space in job.spaces:
        yield _carried(space, carrier, results)


def _in_t1w(result: Result) -> Result:
    """A result that can be carried on from the space of the T1w, or why it cannot."""
    if isinstance(result, LesionSegmentation) and not result.aligned:
        return RegistrationError("FLAIR-T1w registration failed")
    return result


class _Clock:
    """What each step took: seconds since the step before, and memory."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def stamped(self, outcome: TaskOutcome) -> TaskOutcome:
        before, self._last = self._last, time.perf_counter()
        return replace(
            outcome,
            seconds=round(self._last - before, 2),
            peak_mib=round(peak_memory_mib(), 1),
        )


def _carried(space: SpaceJob, carrier: Carrier, results: Mapping[str, Result]) -> TaskOutcome:
    """Make what is wanted in one output space; its outcome."""
    brain = results.get(BRAIN.name)
    if not isinstance(brain, Segmentation):
        return _stopped(space.title, brain or SegmentationError("no brain was found"))
    try:
        files = carrier.carry(space)
    except DeepMRSegError as error:
        return _stopped(space.title, error)
    for task in space.tasks:
        result = results.get(task)
        if isinstance(result, DeepMRSegError) and not isinstance(result, SkippedTask):
            reason = f"no result of {task} to resample: {' '.join(str(result).split())}"
            return TaskOutcome(space.title, "failed", reason, files=files)
    return TaskOutcome(space.title, "done", files=files)


def _stopped(task: str, error: Exception) -> TaskOutcome:
    """The outcome of a task that an error ended."""
    status = "skipped" if isinstance(error, SkippedTask) else "failed"
    return TaskOutcome(task, status, why(error))
