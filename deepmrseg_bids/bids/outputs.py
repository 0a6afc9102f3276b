"""One session from its scans to its derivative files: segment, stage, publish.

``segment_session`` is the edge of a session: no error leaves it, each becomes a task that
failed with its reason. Files are written into a private folder first; ``publish_session``
moves them to their final names when all of them are complete.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepmrseg_bids import __version__
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.derivatives import sidecar
from deepmrseg_bids.bids.files import publish, write_json
from deepmrseg_bids.bids.tables import MorphRow, write_morph
from deepmrseg_bids.bundle import ModelBundle, file_sha256
from deepmrseg_bids.errors import DeepMRSegError, SkippedTask
from deepmrseg_bids.image import Volume, read_volume, write_labels, write_probabilities
from deepmrseg_bids.inference import (
    PredictorPool,
    resolve_device,
    resolve_precision,
    set_threads,
)
from deepmrseg_bids.runtime import peak_memory_mib, prepare_process
from deepmrseg_bids.segmentation import Segmentation, native_posteriors
from deepmrseg_bids.tasks import NEEDS, run

__all__ = [
    "SessionJob",
    "SessionOutcome",
    "TaskOutcome",
    "morph_rows",
    "outcome_from_json",
    "publish_session",
    "segment_session",
]

_log = logging.getLogger(__name__)
_DESCRIPTIONS = {
    "brain": "Brain mask",
    "deepbrain": "Deep brain structures",
    "hippocampus": "Anterior and posterior hippocampus",
    "wml": "White-matter lesions",
}


@dataclass(frozen=True)
class SessionJob:
    """A session and how to segment it; all a worker process needs to know.

    Attributes:
        subject, session: labels without prefix; session None where there is none.
        bids_dir: the raw data set, for BIDS URIs.
        models: bundles in the place of the shipped ones, as (task, folder).
        memory_gb: what the session is expected to take.
        notes: what was decided while the session was looked up.
    """

    subject: str
    session: str | None
    bids_dir: Path
    t1w: Path | None
    flair: Path | None
    tasks: tuple[str, ...]
    models: tuple[tuple[str, Path], ...] = ()
    device: str = "auto"
    precision: str = "auto"
    flips: bool = False
    threads: int = 1
    probabilities: bool = False
    memory_gb: float = 2.0
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """``sub-01_ses-2``, or ``sub-01``."""
        return f"sub-{self.subject}" + (f"_ses-{self.session}" if self.session else "")


@dataclass(frozen=True)
class TaskOutcome:
    """What became of one task.

    Attributes:
        status: done, skipped or failed.
        files: written, relative to OUT_DIR.
    """

    task: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    peak_mib: float = 0.0
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    model: str = ""


@dataclass(frozen=True)
class SessionOutcome:
    """What became of one session."""

    subject: str
    session: str | None
    t1w: str | None
    tasks: tuple[TaskOutcome, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(dataclasses.asdict(self))


def outcome_from_json(text: str) -> SessionOutcome:
    """The inverse of :meth:`SessionOutcome.to_json`."""
    tree = json.loads(text)
    for entry in (tree, *tree["tasks"]):
        for key in ("warnings", "notes", "files"):
            if key in entry:
                entry[key] = tuple(entry[key])
    return SessionOutcome(**{**tree, "tasks": tuple(TaskOutcome(**t) for t in tree["tasks"])})


@lru_cache(maxsize=1)
def _pool(
    models: tuple[tuple[str, Path], ...], device: str, precision: str, flips: bool
) -> PredictorPool:
    """The predictors of this process, kept from session to session."""
    return PredictorPool(
        dict(models),
        resolve_device(device),
        precision,  # type: ignore[arg-type]
        flips,
    )


def segment_session(job: SessionJob, folder: Path) -> SessionOutcome:
    """Segment one session and write its files into ``folder``, named as in OUT_DIR.

    Never raises for what lies in the data: each task says what became of it.
    """
    prepare_process()
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[TaskOutcome] = []
    volume: Volume | None = None
    try:
        if job.t1w is None:
            raise SkippedTask("the session has no T1w image")
        set_threads(job.threads)
        volume = read_volume(job.t1w)
        flair = read_volume(job.flair) if job.flair and "wml" in job.tasks else None
        pool = _pool(job.models, job.device, job.precision, job.flips)
        inputs = {job.t1w: file_sha256(job.t1w)}
        start = time.perf_counter()
        for task, result in run(volume, job.tasks, pool, flair=flair):
            if isinstance(result, Segmentation):
                files = _stage(job, result, pool, folder, inputs, volume.warnings)
                outcome = TaskOutcome(
                    task, "done", files=files, warnings=result.warnings, model=_model(task, pool)
                )
            else:
                outcome = _stopped(task, result)
            seconds = time.perf_counter() - start
            outcomes.append(
                dataclasses.replace(
                    outcome, seconds=round(seconds, 2), peak_mib=round(peak_memory_mib(), 1)
                )
            )
            start = time.perf_counter()
    except DeepMRSegError as error:
        outcomes = [_stopped(task, error) for task in job.tasks]
    except MemoryError:
        done = {outcome.task for outcome in outcomes}
        reason = "out of memory: give the job more, or run fewer at once"
        outcomes += [TaskOutcome(t, "failed", reason) for t in job.tasks if t not in done]
    except Exception as error:  # the edge of a session: what we did not foresee stays in it
        _log.error("%s: %s", job.name, traceback.format_exc())
        done = {outcome.task for outcome in outcomes}
        reason = f"unexpected {type(error).__name__}: {error}"
        outcomes += [TaskOutcome(t, "failed", reason) for t in job.tasks if t not in done]
    return SessionOutcome(
        subject=job.subject,
        session=job.session,
        t1w=None if job.t1w is None else str(job.t1w),
        tasks=tuple(outcomes),
        warnings=volume.warnings if volume else (),
        notes=job.notes,
    )


def _stopped(task: str, error: DeepMRSegError) -> TaskOutcome:
    status = "skipped" if isinstance(error, SkippedTask) else "failed"
    return TaskOutcome(task, status, " ".join(str(error).split()))


def _model(task: str, pool: PredictorPool) -> str:
    bundle = pool(task).bundle
    return f"{bundle.version} {bundle.sha256[:12]}"


def morph_rows(result: Segmentation) -> list[MorphRow]:
    """The rows of ``morph.tsv``."""
    brain = result.brain_mm3
    return [
        MorphRow(
            index=row.index,
            name=row.name,
            volume_mm3=row.volume_mm3,
            volume_low_mm3=row.low_mm3,
            volume_high_mm3=row.high_mm3,
            volume_icv_percent=100 * row.volume_mm3 / brain if brain else None,
            confidence=row.confidence,
        )
        for row in result.measures
    ]


def _stage(
    job: SessionJob,
    result: Segmentation,
    pool: PredictorPool,
    folder: Path,
    inputs: Mapping[Path, str],
    warnings: Sequence[str],
) -> tuple[str, ...]:
    """Write all files of one task into the private folder; return their final names."""
    assert job.t1w is not None
    source = job.t1w
    uris = {names.bids_uri(path.relative_to(job.bids_dir), "raw"): digest
            for path, digest in inputs.items()}  # fmt: skip
    reference = names.bids_uri(source.relative_to(job.bids_dir), "raw")

    def describe(text: str, **more: Any) -> dict[str, Any]:
        return sidecar(
            description=text,
            sources=list(uris),
            inputs=uris,
            software={"deepmrseg-bids": __version__, "torch": version("torch")},
            models=_model_facts(result.task, pool),
            parameters={
                "Precision": str(resolve_precision(pool.precision, pool.device)).split(".")[-1],
                "FlipAveraging": job.flips,
            },
            warnings=[*warnings, *result.warnings],
            **more,
        )

    image = names.label_map_path(source, result.task)
    table = names.morph_path(source, result.task)
    (folder / image).parent.mkdir(parents=True, exist_ok=True)
    write_labels(folder / image, result.labels)
    write_json(
        folder / names.sidecar_path(image),
        describe(
            _DESCRIPTIONS[result.task],
            spatial_reference=reference,
            kind="Brain" if result.task == "brain" else None,
        ),
    )
    write_morph(
        folder / table,
        morph_rows(result),
        provenance=describe(f"Volumes of {_DESCRIPTIONS[result.task].lower()}"),
    )
    files = [image, names.sidecar_path(image), table, names.sidecar_path(table)]
    if job.probabilities and result.posteriors:
        posteriors = names.probabilities_path(source, result.task)
        write_probabilities(folder / posteriors, native_posteriors(result), result.labels.grid)
        structures = [label.name for label in result.table]
        description = describe(
            "Posterior probability of each structure",
            spatial_reference=reference,
            label_map=structures,
        )
        write_json(folder / names.sidecar_path(posteriors), description)
        files += [posteriors, names.sidecar_path(posteriors)]
    return tuple(str(path) for path in files)


def _model_facts(task: str, pool: PredictorPool) -> dict[str, dict[str, str]]:
    bundles: dict[str, ModelBundle] = {model: pool(model).bundle for model in NEEDS[task]}
    return {
        model: {"Version": bundle.version, "SHA256": bundle.sha256}
        for model, bundle in bundles.items()
    }


def publish_session(
    outcome: SessionOutcome, folder: Path, out_dir: Path, *, record: Path
) -> SessionOutcome:
    """Move the finished files of a session to their final names, and note its outcome.

    A task whose files cannot be moved (a full disk, say) becomes failed; the others stay.
    """
    tasks = []
    for task in outcome.tasks:
        try:
            # tables and sidecars first: a label map that is there is complete
            for name in sorted(task.files, key=lambda n: n.endswith(".nii.gz")):
                publish(folder / name, out_dir / name)
        except OSError as error:
            reason = f"the results could not be written: {error.strerror or error}"
            task = dataclasses.replace(task, status="failed", reason=reason, files=())
        tasks.append(task)
    outcome = dataclasses.replace(outcome, tasks=tuple(tasks))
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(outcome.to_json(), encoding="utf-8")
    return outcome
