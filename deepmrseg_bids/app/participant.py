"""The participant level: find the sessions, run the workflow, say what became of each."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmrseg_bids import __version__
from deepmrseg_bids.app.progress import Progress
from deepmrseg_bids.bids.derivatives import write_dataset_files
from deepmrseg_bids.bids.files import read_json, remove_leftovers
from deepmrseg_bids.bids.names import report_path
from deepmrseg_bids.bids.query import Session, check_output_dir, find_sessions
from deepmrseg_bids.bids.resume import Digests
from deepmrseg_bids.bids.tables import SessionRow, read_sessions, write_sessions
from deepmrseg_bids.bundle import ModelBundle, shipped_bundles
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.findings import worst_first
from deepmrseg_bids.labels import LabelTable

if TYPE_CHECKING:
    from deepmrseg_bids.bids.outputs import SessionJob, SessionOutcome, TaskOutcome

__all__ = ["EXIT_ALL_DONE", "EXIT_NOTHING", "EXIT_SOME", "run_participant"]

_log = logging.getLogger("deepmrseg-bids")
EXIT_ALL_DONE, EXIT_SOME, EXIT_NOTHING = 0, 3, 4
_DONE = ("done", "resumed")


def run_participant(config: RunConfig, *, command: str) -> int:
    """Segment every session that was asked for.

    Returns:
        0 if all that was asked for is done, 3 if some was not, 4 if nothing was.

    Raises:
        DeepMRSegError: nothing can start; nothing was written.
    """
    bundles = _bundles(config)
    _check_device(config)
    check_output_dir(config.bids_dir, config.out_dir, config.work_dir)
    sessions = find_sessions(
        config.bids_dir,
        participant_labels=config.participant_label,
        session_labels=config.session_label,
        filters=_filters(config.bids_filter_file),
        database_dir=config.bids_database_dir,
        validate=not config.skip_bids_validation,
    )
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    logs = config.out_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(logs / f"run-{run_id}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    config.save(logs / f"run-{run_id}.toml")
    _log.info("deepmrseg-bids %s: %s", __version__, command)
    remove_leftovers(config.out_dir)
    write_dataset_files(
        config.out_dir, config.bids_dir, tables=_tables(bundles), version=__version__
    )
    work = Path(config.work_dir or tempfile.mkdtemp(prefix="deepmrseg-"))
    try:
        rows = _run(config, sessions, bundles, work / f"run-{run_id}", logs, command)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        if config.work_dir is None:
            shutil.rmtree(work, ignore_errors=True)
    write_sessions(logs / "sessions.tsv", _merged(logs / "sessions.tsv", rows))
    return _exit_code(rows)


def _run(
    config: RunConfig,
    sessions: Sequence[Session],
    bundles: Mapping[str, ModelBundle],
    work: Path,
    logs: Path,
    command: str,
) -> list[SessionRow]:
    for session in sessions:
        for note in session.notes:
            _log.info("%s: %s", session.name, note)
    digests = Digests.read(logs / "inputs.tsv")
    jobs = [_job(config, session, bundles) for session in sessions]
    if not config.force:
        jobs = [_resumed(job, config.out_dir, bundles, digests) for job in jobs]
    to_do = sum(bool(job.tasks) for job in jobs)
    if to_do < len(jobs):
        _log.info("%d of %d sessions were finished by earlier runs (--force does them again)",
                  len(jobs) - to_do, len(jobs))  # fmt: skip
    records, threads = work / "outcomes", config.threads(to_do)
    if busy := [replace(job, threads=threads) for job in _with_work(config, jobs)]:
        from deepmrseg_bids.app.execute import execute
        from deepmrseg_bids.workflows import init_participant_wf

        workflow = init_participant_wf(
            jobs=busy,
            weights={task: bundle.sha256 for task, bundle in bundles.items()},
            out_dir=config.out_dir,
            records=records,
            threads=threads,
            reports=config.reports,
            command=command,
        )
        progress = Progress(to_do, stream=sys.stderr, quiet=config.verbosity < 0)
        execute(workflow, work=work, logs=logs, nprocs=config.nprocs, progress=progress)
    outcomes = [_outcome(job, records) for job in jobs]
    digests.add(digest for outcome in outcomes for digest in outcome.inputs)
    digests.save()
    rows = [row for outcome in outcomes for row in _rows(outcome)]
    for row in rows:
        if row.status not in _DONE:
            where = " ".join(filter(None, (row.participant_id, row.session_id)))
            _log.warning("%s: %s %s: %s", where, row.task, row.status, row.reason)
    return rows


def _job(config: RunConfig, session: Session, bundles: Mapping[str, ModelBundle]) -> SessionJob:
    from deepmrseg_bids.bids.outputs import SessionJob

    return SessionJob(
        subject=session.subject,
        session=session.session,
        bids_dir=config.bids_dir,
        t1w=session.t1w,
        flair=session.flair,
        tasks=_tasks(config, session, bundles),
        models=config.models,
        device=config.device,
        precision=config.precision,
        flips=config.tta,
        probabilities=config.probabilities,
        force_header=config.force_header,
        memory_gb=_memory_gb(session),
        notes=session.notes,
    )


def _resumed(
    job: SessionJob, out_dir: Path, bundles: Mapping[str, ModelBundle], digests: Digests
) -> SessionJob:
    """The same job without the tasks that an earlier run has finished."""
    from deepmrseg_bids.bids.outputs import finished_tasks

    finished = finished_tasks(job, out_dir, bundles, digests)
    done = {outcome.task for outcome in finished}
    left = tuple(task for task in job.tasks if task not in done)
    return replace(job, tasks=left, finished=finished)


def _with_work(config: RunConfig, jobs: Sequence[SessionJob]) -> list[SessionJob]:
    """The sessions of every subject of whom something is left to do, if only the page."""

    def missing(subject: str) -> bool:
        return config.reports and not (config.out_dir / report_path(subject)).is_file()

    busy = {job.subject for job in jobs if job.tasks or missing(job.subject)}
    return [job for job in jobs if job.subject in busy]


def _outcome(job: SessionJob, records: Path) -> SessionOutcome:
    """What became of a session, from its record; without one its process died."""
    from deepmrseg_bids.bids.outputs import SessionOutcome, TaskOutcome, outcome_from_json

    record = records / f"{job.name}.json"
    if record.exists():
        return outcome_from_json(record.read_text(encoding="utf-8"))
    reason = "the process that worked on it ended early; its crash file is in logs/"
    failed = tuple(TaskOutcome(task, "failed", reason) for task in job.tasks)
    t1w = None if job.t1w is None else str(job.t1w)
    return SessionOutcome(job.subject, job.session, t1w, (*job.finished, *failed))


def _rows(outcome: SessionOutcome) -> list[SessionRow]:
    """A line of ``sessions.tsv`` for each task of a session."""
    subject = f"sub-{outcome.subject}"
    session = f"ses-{outcome.session}" if outcome.session else ""
    rows = []
    for task in outcome.tasks:
        findings = worst_first(task.findings or outcome.findings)
        tags = ",".join(dict.fromkeys(finding.tag for finding in findings))
        rows.append(
            SessionRow(subject, session, task.task, task.status, task.reason, *_cost(task), tags)
        )
    return rows


def _cost(task: TaskOutcome) -> tuple[float | None, float | None]:
    """Seconds and memory; a task that was not done now has none."""
    return (None, None) if task.status == "resumed" else (task.seconds, task.peak_mib)


def _tasks(
    config: RunConfig, session: Session, bundles: Mapping[str, ModelBundle]
) -> tuple[str, ...]:
    """What was asked for, or else all that the session's images and the models allow."""
    if config.tasks:
        return config.tasks
    return tuple(task for task in bundles if task != "wml" or session.flair is not None)


def _bundles(config: RunConfig) -> dict[str, ModelBundle]:
    """Every model of the run, opened and checked before any work."""
    from deepmrseg_bids.tasks import NEEDS, TASKS

    own, shipped = dict(config.models), shipped_bundles()
    wanted = {model for task in config.tasks or TASKS for model in NEEDS[task]}
    opened = {}
    for task in TASKS:
        if task in wanted and (task in own or task in shipped):
            bundle = ModelBundle.open(own.get(task) or shipped[task])
            if bundle.task != task:
                raise UsageError(f"--model {task}={bundle.path}: a model of {bundle.task!r}")
            opened[task] = bundle
    return opened


def _tables(bundles: Mapping[str, ModelBundle]) -> dict[str, LabelTable]:
    from deepmrseg_bids.tasks import brain, hippocampus

    own = {"brain": brain.TABLE, "hippocampus": hippocampus.TABLE}
    return {task: own.get(task, bundle.labels) for task, bundle in bundles.items()}


def _check_device(config: RunConfig) -> None:
    if config.device not in ("auto", "cpu"):
        from deepmrseg_bids.inference import resolve_device

        resolve_device(config.device)


def _filters(path: Path | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    try:
        tree = read_json(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"--bids-filter-file {path}: not a JSON file ({error})") from error
    if not isinstance(tree, dict):
        raise UsageError(f"--bids-filter-file {path}: an object with t1w and flair was expected")
    return tree


def _memory_gb(session: Session) -> float:
    """What a session is expected to take: the networks, and several copies of the scan."""
    from deepmrseg_bids.image import voxel_count

    voxels = max((voxel_count(path) for path in (session.t1w,) if path is not None), default=0)
    return round(1.2 + 5 * 4 * voxels / 2**30, 2)


def _merged(path: Path, rows: Sequence[SessionRow]) -> list[SessionRow]:
    """The rows of this run, and those of earlier runs about other sessions and tasks."""
    try:
        earlier = read_sessions(path) if path.exists() else []
    except DatasetError as error:
        _log.warning("%s: begun anew", error)
        earlier = []
    merged = {(row.participant_id, row.session_id, row.task): row for row in earlier}
    for row in rows:
        key = (row.participant_id, row.session_id, row.task)
        before = merged.get(key)
        if row.status == "resumed" and before is not None and before.status in _DONE:
            # what it took when it was done
            row = replace(row, seconds=before.seconds, peak_mib=before.peak_mib)
        merged[key] = row
    return [merged[key] for key in sorted(merged)]


def _exit_code(rows: Sequence[SessionRow]) -> int:
    done = sum(row.status in _DONE for row in rows)
    if done == 0:
        return EXIT_NOTHING
    return EXIT_ALL_DONE if done == len(rows) else EXIT_SOME
