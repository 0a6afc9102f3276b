"""One session from its scans to its derivative files: segment, stage, publish.

``segment_session`` is the edge of a session: no error leaves it, each becomes a task that
failed with its reason.
"""

from __future__ import annotations

import dataclasses
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from deepmrseg_bids import __version__
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import DESCRIPTIONS, described
from deepmrseg_bids.bids.sidecar_check import check_beside
from deepmrseg_bids.bids.tables import MorphRow, write_morph
from deepmrseg_bids.errors import DeepMRSegError, RegistrationError, SegmentationError, SkippedTask
from deepmrseg_bids.files import Staging, write_json, write_text
from deepmrseg_bids.findings import Finding, worst_first
from deepmrseg_bids.imaging.nifti import Volume, read_volume, write_labels, write_probabilities
from deepmrseg_bids.imaging.registration import ants_version
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.session.job import SessionJob, SessionOutcome, TaskOutcome
from deepmrseg_bids.session.publish_lesions import always_there, stage_lesions, there_if_aligned
from deepmrseg_bids.session.resume import (
    Digests,
    FileDigest,
    findings_of,
    model_of,
    same_provenance,
)
from deepmrseg_bids.session.template_spaces import Carrier, SpaceJob, left_to_make
from deepmrseg_bids.system import forget_peak_memory, peak_memory_mib, prepare_process
from deepmrseg_bids.tasks import NEEDS, run
from deepmrseg_bids.tasks.qc import check_image
from deepmrseg_bids.tasks.results import Segmentation, native_posteriors
from deepmrseg_bids.tasks.wml import LesionSegmentation

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import PredictorPool

__all__ = [
    "finished_session",
    "finished_tasks",
    "morph_rows",
    "segment_session",
    "spaces_left",
    "tasks_there",
]

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

    Never raises for what lies in the data: each task says what became of it.

    Args:
        work: where files are staged.
        record: receives the outcome as JSON at the very end; without it the session died.
    """
    outcome = _segment(job, out_dir, work)
    write_text(record, outcome.to_json())
    return outcome


def _segment(job: SessionJob, out_dir: Path, work: Path) -> SessionOutcome:
    prepare_process()
    forget_peak_memory()
    outcomes: list[TaskOutcome] = []
    findings: tuple[Finding, ...] = ()
    inputs: tuple[FileDigest, ...] = ()
    try:
        if job.t1w is None and not (job.flair and "wml" in job.tasks):
            raise SkippedTask(_NO_T1W)
        volume = None
        if job.t1w is not None:
            volume = read_volume(job.t1w, force_header=job.force_header)
            findings = (*volume.findings, *check_image(volume), *check_beside(job.t1w))
        wanted = {path: None for task in job.runs for path in job.inputs(task) if path.is_file()}
        inputs = tuple(FileDigest.of(path) for path in wanted)
        outcomes.extend(_run_tasks(job, volume, findings, inputs, out_dir, work))
    except Exception as error:  # the edge of a session: whatever it is stays in it
        if not isinstance(error, (DeepMRSegError, MemoryError)):
            _log.error("%s: %s", job.name, traceback.format_exc())
        done = {outcome.task for outcome in outcomes}
        asked = (*job.tasks, *(space.title for space in job.spaces))
        outcomes += [_stopped(task, error) for task in asked if task not in done]
    titles = {space.title for space in job.spaces}
    return SessionOutcome(
        subject=job.subject,
        session=job.session,
        t1w=None if job.t1w is None else str(job.t1w),
        tasks=(*job.finished, *(one for one in outcomes if one.task not in titles)),
        findings=findings,
        notes=job.notes,
        inputs=inputs,
        spaces=(*job.finished_spaces, *(one for one in outcomes if one.task in titles)),
        flair=None if job.flair is None else str(job.flair),
    )


def _run_tasks(
    job: SessionJob,
    volume: Volume | None,
    seen: Sequence[Finding],
    inputs: Sequence[FileDigest],
    out_dir: Path,
    work: Path,
) -> Iterator[TaskOutcome]:
    from deepmrseg_bids.inference.predictor import set_threads

    set_threads(job.threads)
    pool = _pool(job.models, job.device, job.precision, job.flips)
    digests = {Path(one.path): one.sha256 for one in inputs}
    clock = _Clock()
    results: dict[str, Segmentation | DeepMRSegError] = {}
    for task, result in _results(job, volume, pool):
        if job.spaces:
            results[task] = _in_t1w(result)
        if task not in job.tasks:
            continue  # only to be carried over
        if isinstance(result, Segmentation):
            findings = worst_first((*seen, *result.findings))
            with Staging(out_dir, work) as staging:
                files = _stage(job, result, pool, staging, digests, findings)
            outcome = TaskOutcome(
                task, "done", files=files, findings=findings, model=_model(task, pool)
            )
        else:
            outcome = _stopped(task, result)
        yield clock.stamped(outcome)
    if job.spaces and (job.t1w is None or volume is None):
        for space in job.spaces:
            yield clock.stamped(_stopped(space.title, SkippedTask(_NO_T1W)))
    elif job.spaces:
        assert job.t1w is not None and volume is not None
        found = {task: one for task, one in results.items() if isinstance(one, Segmentation)}
        carrier = Carrier(
            source=job.t1w,
            volume=volume,
            results=found,
            native={task: _made(job, task, pool, digests) for task in found},
            findings=seen,
            out_dir=out_dir,
            work=work,
            again=job.force,
        )
        for space in job.spaces:
            yield clock.stamped(_carried(space, carrier, results))


def _results(
    job: SessionJob, volume: Volume | None, pool: PredictorPool
) -> Iterator[tuple[str, Segmentation | DeepMRSegError]]:
    """Each task with its result; a FLAIR that cannot be read costs the lesions alone."""
    tasks, flair = job.runs, None
    if job.flair and "wml" in tasks:
        try:
            flair = read_volume(job.flair, force_header=job.force_header)
        except DeepMRSegError as error:
            tasks = tuple(task for task in tasks if task != "wml")
            yield "wml", error
        else:
            flair = dataclasses.replace(flair, findings=(*flair.findings, *check_beside(job.flair)))
    yield from run(volume, tasks, pool, flair=flair)


def _in_t1w(result: Segmentation | DeepMRSegError) -> Segmentation | DeepMRSegError:
    """A result that can be carried on from the space of the T1w, or why it cannot."""
    if isinstance(result, LesionSegmentation) and not result.aligned:
        return RegistrationError("the T1w does not lie on the FLAIR")
    return result


class _Clock:
    """What each step took: seconds since the step before, and memory."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def stamped(self, outcome: TaskOutcome) -> TaskOutcome:
        before, self._last = self._last, time.perf_counter()
        return dataclasses.replace(
            outcome,
            seconds=round(self._last - before, 2),
            peak_mib=round(peak_memory_mib(), 1),
        )


def _carried(
    space: SpaceJob, carrier: Carrier, results: Mapping[str, Segmentation | DeepMRSegError]
) -> TaskOutcome:
    """Make what is wanted in one output space; what became of it."""
    brain = results.get("brain")
    if not isinstance(brain, Segmentation):
        return _stopped(space.title, brain or SegmentationError("no brain was found"))
    try:
        files = carrier.carry(space)
    except DeepMRSegError as error:
        return _stopped(space.title, error)
    for task in space.tasks:
        result = results.get(task)
        if isinstance(result, DeepMRSegError) and not isinstance(result, SkippedTask):
            reason = f"nothing of {task} to carry over: {' '.join(str(result).split())}"
            return TaskOutcome(space.title, "failed", reason, files=files)
    return TaskOutcome(space.title, "done", files=files)


def _made(
    job: SessionJob, task: str, pool: PredictorPool, inputs: Mapping[Path, str]
) -> dict[str, dict[str, Any]]:
    """How the label map of a task is made, as its sidecar says it."""
    bundles = {model: pool(model).bundle for model in NEEDS[task]}
    return _provenance(job, task, bundles, inputs)


def _stopped(task: str, error: Exception) -> TaskOutcome:
    """The outcome of a task that an error ended."""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):  # torch's own
        reason = "out of memory: give the job more, or run fewer sessions at once"
    elif isinstance(error, DeepMRSegError):
        reason = " ".join(str(error).split())
    else:
        reason = f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"
    status = "skipped" if isinstance(error, SkippedTask) else "failed"
    return TaskOutcome(task, status, reason)


def _model(task: str, pool: PredictorPool) -> str:
    bundle = pool(task).bundle
    return _model_name(bundle)


def _model_name(bundle: ModelBundle) -> str:
    return f"{bundle.version} {bundle.sha256[:12]}"


def finished_tasks(
    job: SessionJob, out_dir: Path, bundles: Mapping[str, ModelBundle], digests: Digests
) -> tuple[TaskOutcome, ...]:
    """The tasks of a session whose files are what this job would make.

    Args:
        bundles: the model of each task.
        digests: remembers what it had to read.
    """
    begun = [
        task
        for task in job.tasks
        if job.inputs(task)
        and (out_dir / names.sidecar_path(_task_files(job, task, out_dir)[0])).is_file()
    ]
    found = []
    for task, made in _expected(job, begun, bundles, digests).items():
        files = _task_files(job, task, out_dir)
        if same_provenance(out_dir, files, made):
            found.append(_resumed(task, files, out_dir, _model_name(bundles[task])))
    return tuple(found)


def tasks_there(job: SessionJob, out_dir: Path) -> tuple[TaskOutcome, ...]:
    """The tasks of a session whose files are there, whatever they were made by."""
    found = []
    for task in job.tasks:
        if not job.inputs(task):
            continue
        files = _task_files(job, task, out_dir)
        if same_provenance(out_dir, files, {}):
            found.append(_resumed(task, files, out_dir, model_of(out_dir, files[0], task)))
    return tuple(found)


def _resumed(task: str, files: Sequence[PurePosixPath], out_dir: Path, model: str) -> TaskOutcome:
    """The outcome of a task that an earlier run did."""
    every = [str(name) for file in files for name in (file, names.sidecar_path(file))]
    findings = findings_of(out_dir, files[0])
    return TaskOutcome(task, "resumed", files=tuple(every), findings=findings, model=model)


def spaces_left(
    job: SessionJob, out_dir: Path, bundles: Mapping[str, ModelBundle], digests: Digests
) -> tuple[tuple[SpaceJob, ...], tuple[TaskOutcome, ...]]:
    """The output spaces in which something is left to make, and those in which nothing is.

    Args:
        job: with all tasks that were asked for.
    """
    left: list[SpaceJob] = []
    finished = []
    for space in job.spaces:
        rest: SpaceJob | None = space
        if job.t1w and (out_dir / names.sidecar_path(space.transforms(job.t1w)[0])).is_file():
            native = _expected(job, ("brain", *job.tasks), bundles, digests)
            rest = left_to_make(space, job.t1w, native, out_dir) if native else space
        if rest is None:
            finished.append(TaskOutcome(space.title, "resumed"))
        else:
            left.append(rest)
    return tuple(left), tuple(finished)


def _expected(
    job: SessionJob,
    tasks: Iterable[str],
    bundles: Mapping[str, ModelBundle],
    digests: Digests,
) -> dict[str, dict[str, dict[str, Any]]]:
    """How the files of each task that has its models would be made; nothing without the scan."""
    expected: dict[str, dict[str, dict[str, Any]]] = {}
    for task in tasks:
        if any(model not in bundles for model in NEEDS[task]):
            continue
        try:
            inputs = {path: digests.sha256(path) for path in job.inputs(task)}
        except OSError:
            continue
        used = {model: bundles[model] for model in NEEDS[task]}
        expected[task] = _provenance(job, task, used, inputs)
    return expected


def finished_session(job: SessionJob) -> SessionOutcome:
    """The outcome of a session of which an earlier run has done everything."""
    t1w = None if job.t1w is None else str(job.t1w)
    return SessionOutcome(
        job.subject, job.session, t1w, job.finished, notes=job.notes, spaces=job.finished_spaces,
        flair=None if job.flair is None else str(job.flair),
    )  # fmt: skip


def _task_files(job: SessionJob, task: str, out_dir: Path) -> list[PurePosixPath]:
    """The files of a task with a sidecar each, relative to OUT_DIR."""
    if task == "wml":
        assert job.flair is not None
        wanted = job.probabilities
        more = there_if_aligned(job.flair, job.t1w, out_dir, probabilities=wanted)
        return always_there(job.flair, job.t1w or job.flair, probabilities=wanted) + more
    assert job.t1w is not None
    files = [names.label_map_path(job.t1w, task), names.morph_path(job.t1w, task)]
    return files + ([names.probabilities_path(job.t1w, task)] if job.probabilities else [])


@cache
def _torch_version() -> str:
    return version("torch")


def _provenance(
    job: SessionJob,
    task: str,
    models: Mapping[str, ModelBundle],
    inputs: Mapping[Path, str],
) -> dict[str, dict[str, Any]]:
    """The part of a sidecar that says from what and by what a file was made."""
    return {
        "InputSHA256": {
            names.bids_uri(path.relative_to(job.bids_dir), "raw"): inputs[path]
            for path in job.inputs(task)
        },
        "Software": {
            "deepmrseg-bids": __version__,
            "torch": _torch_version(),
            **({"antspyx": ants_version()} if len(job.inputs(task)) > 1 else {}),
        },
        "Models": {
            model: {"Version": bundle.version, "SHA256": bundle.sha256}
            for model, bundle in models.items()
        },
        "Parameters": {
            "Precision": job.precision,
            "FlipAveraging": job.flips,
            **({"ForceHeader": True} if job.force_header else {}),
        },
    }


def morph_rows(result: Segmentation) -> list[MorphRow]:
    """The rows of ``morph.tsv``."""
    brain = result.measures[0].volume_mm3 if result.task == "brain" else result.brain_mm3
    count = len(result.lesions) if isinstance(result, LesionSegmentation) else None
    return [
        MorphRow(
            index=row.index,
            name=row.name,
            volume_mm3=row.volume_mm3,
            volume_low_mm3=row.low_mm3,
            volume_high_mm3=row.high_mm3,
            volume_icv_percent=100 * row.volume_mm3 / brain if brain else None,
            confidence=row.confidence,
            lesion_count=count,
        )
        for row in result.measures
    ]


def _stage(
    job: SessionJob,
    result: Segmentation,
    pool: PredictorPool,
    staging: Staging,
    inputs: Mapping[Path, str],
    findings: Sequence[Finding],
) -> tuple[str, ...]:
    """Write all files of one task; return their names in OUT_DIR."""
    made = _made(job, result.task, pool, inputs)
    source = job.inputs(result.task)[0]

    def describe(text: str, **more: Any) -> dict[str, Any]:
        return described(text, made, findings, **more)

    table = names.morph_path(source, result.task)
    provenance = describe(f"Volumes of {DESCRIPTIONS[result.task].lower()}")
    write_morph(staging.path(table), morph_rows(result), provenance=provenance)
    if isinstance(result, LesionSegmentation):
        assert job.flair is not None
        files = stage_lesions(
            result, job.flair, job.t1w, staging, describe, bids_dir=job.bids_dir,
            probabilities=job.probabilities,
        )  # fmt: skip
    else:
        files = [*_stage_labels(job, source, result, staging, describe), table]
    return tuple(str(name) for file in files for name in (file, names.sidecar_path(file)))


def _stage_labels(
    job: SessionJob,
    source: Path,
    result: Segmentation,
    staging: Staging,
    describe: Callable[..., dict[str, Any]],
) -> list[PurePosixPath]:
    """Write the label map of a task on the grid of the T1w, and what was asked for with it."""
    reference = names.bids_uri(source.relative_to(job.bids_dir), "raw")
    image = names.label_map_path(source, result.task)
    write_labels(staging.path(image), result.labels)
    write_json(
        staging.path(names.sidecar_path(image)),
        describe(
            DESCRIPTIONS[result.task],
            spatial_reference=reference,
            kind="Brain" if result.task == "brain" else None,
        ),
    )
    if not (job.probabilities and result.posteriors):
        return [image]
    posteriors = names.probabilities_path(source, result.task)
    write_probabilities(
        staging.path(posteriors),
        native_posteriors(result),
        result.labels.grid,
        count=len(result.table),
    )
    description = describe(
        "Posterior probability of each structure",
        spatial_reference=reference,
        label_map=[label.name for label in result.table],
    )
    write_json(staging.path(names.sidecar_path(posteriors)), description)
    return [image, posteriors]
