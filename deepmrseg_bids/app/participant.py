"""The participant level: find the sessions, run the workflow, say what became of each."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmrseg_bids import __version__
from deepmrseg_bids.app.progress import Progress
from deepmrseg_bids.bids.derivatives import write_dataset_files
from deepmrseg_bids.bids.files import remove_leftovers
from deepmrseg_bids.bids.query import Session, check_output_dir, find_sessions
from deepmrseg_bids.bids.tables import SessionRow, read_sessions, write_sessions
from deepmrseg_bids.bundle import ModelBundle, shipped_bundles
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.labels import LabelTable

if TYPE_CHECKING:
    from deepmrseg_bids.bids.outputs import SessionJob

__all__ = ["EXIT_ALL_DONE", "EXIT_NOTHING", "EXIT_SOME", "run_participant"]

_log = logging.getLogger("deepmrseg-bids")
EXIT_ALL_DONE, EXIT_SOME, EXIT_NOTHING = 0, 3, 4


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
    from deepmrseg_bids.app.execute import execute
    from deepmrseg_bids.workflows import init_participant_wf

    for session in sessions:
        for note in session.notes:
            _log.info("%s: %s", session.name, note)
    threads = config.threads(len(sessions))
    jobs = [_job(config, session, bundles, threads) for session in sessions]
    records = work / "outcomes"
    workflow = init_participant_wf(
        jobs=jobs,
        weights={task: bundle.sha256 for task, bundle in bundles.items()},
        out_dir=config.out_dir,
        records=records,
        threads=threads,
        reports=config.reports,
        command=command,
    )
    progress = Progress(len(jobs), stream=sys.stderr, quiet=config.verbosity < 0)
    execute(workflow, work=work, logs=logs, nprocs=config.nprocs, progress=progress)
    rows = [row for job in jobs for row in _rows(job, records)]
    for row in rows:
        if row.status != "done":
            where = " ".join(filter(None, (row.participant_id, row.session_id)))
            _log.warning("%s: %s %s: %s", where, row.task, row.status, row.reason)
    return rows


def _job(
    config: RunConfig, session: Session, bundles: Mapping[str, ModelBundle], threads: int
) -> SessionJob:
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
        threads=threads,
        probabilities=config.probabilities,
        memory_gb=_memory_gb(session),
        notes=session.notes,
    )


def _rows(job: SessionJob, records: Path) -> list[SessionRow]:
    """What became of each task of a session."""
    from deepmrseg_bids.bids.outputs import outcome_from_json

    subject, session = f"sub-{job.subject}", f"ses-{job.session}" if job.session else ""
    record = records / f"{job.name}.json"
    if not record.exists():
        reason = "the process that worked on it ended early; its crash file is in logs/"
        return [SessionRow(subject, session, task, "failed", reason) for task in job.tasks]
    outcome = outcome_from_json(record.read_text(encoding="utf-8"))
    return [
        SessionRow(subject, session, t.task, t.status, t.reason, t.seconds, t.peak_mib)
        for t in outcome.tasks
    ]


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
    import json

    if path is None:
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
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
    merged = {(row.participant_id, row.session_id, row.task): row for row in [*earlier, *rows]}
    return [merged[key] for key in sorted(merged)]


def _exit_code(rows: Sequence[SessionRow]) -> int:
    done = sum(row.status in ("done", "resumed") for row in rows)
    if done == 0:
        return EXIT_NOTHING
    return EXIT_ALL_DONE if done == len(rows) else EXIT_SOME
