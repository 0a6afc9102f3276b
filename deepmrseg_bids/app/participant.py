"""The participant level: find the sessions, run the workflow, say what became of each."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmrseg_bids import __version__
from deepmrseg_bids.app.session_log import DONE, Ledger
from deepmrseg_bids.app.sharding import deal, expected_work
from deepmrseg_bids.bids.derivatives import write_dataset_files
from deepmrseg_bids.bids.names import report_path
from deepmrseg_bids.bids.provenance import Digests
from deepmrseg_bids.bids.query import Session, check_output_dir, find_sessions
from deepmrseg_bids.bids.tables import SessionRow
from deepmrseg_bids.config import RunConfig, parse_shard
from deepmrseg_bids.errors import DeepMRSegError, UsageError
from deepmrseg_bids.execution.cost_model import memory_mib
from deepmrseg_bids.execution.monitoring import draw_graph, record_resources
from deepmrseg_bids.execution.plugin_file import Plugin, read_plugin
from deepmrseg_bids.execution.progress import Progress
from deepmrseg_bids.execution.runner import Limits, Verdict, execute
from deepmrseg_bids.execution.signals import undisturbed
from deepmrseg_bids.files import read_json, remove_leftovers
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import read_grid
from deepmrseg_bids.imaging.templates import Template, find_templates, output_spaces
from deepmrseg_bids.inference.bundle import ModelBundle, shipped_bundles
from deepmrseg_bids.inference.precision import decide_precision
from deepmrseg_bids.session.job import SessionJob, SessionOutcome, TaskOutcome, outcome_from_json
from deepmrseg_bids.session.resume import FinishedWork, tasks_there
from deepmrseg_bids.session.segment import finished_session
from deepmrseg_bids.system import usable_memory_mib
from deepmrseg_bids.tasks.registry import known_tasks, needed_models
from deepmrseg_bids.tasks.spec import TaskSpec
from deepmrseg_bids.wording import counted

if TYPE_CHECKING:
    from deepmrseg_bids.session.template_spaces import SpaceJob

__all__ = ["EXIT_ALL_DONE", "EXIT_NOTHING", "EXIT_SOME", "run_participant"]

_log = logging.getLogger("deepmrseg-bids")
EXIT_ALL_DONE, EXIT_SOME, EXIT_NOTHING = 0, 3, 4
_RECORDS = "outcomes"  # in the work folder: what became of each session
_ROOM = 2048  # bytes of the tables for one session
_RUN_ID = re.compile(r"run-\d{8}-\d{6}-[0-9a-f]{8}")
_BATCH = 128  # sessions of one nipype workflow
_JOBS = 1000  # the same where each is a job of a cluster: a batch waits for its last job
_INTERRUPTED = "interrupted; run the same command again to complete it"
_STOPPED = "not started, because another session failed (--stop-on-first-crash)"
_NO_RECORD = "its process ended unexpectedly; see the crash file in logs/"


def run_participant(config: RunConfig, *, command: str) -> int:
    """Segment every session that was asked for.

    Returns:
        0 if all that was asked for is done, 3 if some was not, 4 if nothing was.

    Raises:
        DeepMRSegError: nothing can start; nothing was written.
    """
    scheduler = None
    if config.use_plugin is not None:
        plugin = read_plugin(config.use_plugin)
        config = plugin.prepare(config)
        scheduler = plugin if plugin.is_scheduler else None
    bundles = _bundles(config)
    if scheduler is None:  # a node may have the GPU that this machine lacks
        _check_device(config)
    spaces = output_spaces(config.output_spaces)
    templates = find_templates(spaces, fetch=not config.dry_run)
    check_output_dir(config.bids_dir, config.out_dir, config.work_dir, create=not config.dry_run)
    sessions = find_sessions(
        config.bids_dir,
        participant_labels=config.participant_label,
        session_labels=config.session_label,
        filters=_filters(config.bids_filter_file),
        database_dir=config.bids_database_dir,
        keep_database=not config.dry_run,
        validate=not config.skip_bids_validation,
    )
    if config.shard:
        sessions = _dealt(config, sessions, bundles)
        if not sessions:
            _log.info("shard %s: contains no sessions, nothing to do", config.shard)
            return EXIT_ALL_DONE
    if config.dry_run:
        return _show_plan(config, sessions, bundles, templates)
    run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    logs = config.out_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    work = Path(config.work_dir or tempfile.mkdtemp(prefix="deepmrseg-"))
    if config.clean_workdir:
        _clean(work)
    try:
        with _log_file(logs / f"run-{run_id}.log"):
            config.save(logs / f"run-{run_id}.toml")
            _log.info("deepmrseg-bids %s: %s", __version__, command)
            remove_leftovers(config.out_dir)
            possible = _possible(config, bundles)
            write_dataset_files(
                config.out_dir,
                config.bids_dir,
                tasks=possible,
                tables=_tables(possible, bundles),
                version=__version__,
            )
            folder = work / f"run-{run_id}"
            rows = _run(config, sessions, bundles, templates, folder, logs, command, scheduler)
    finally:
        if config.work_dir is None:
            with undisturbed():
                shutil.rmtree(work, ignore_errors=True)
    return _exit_code(rows)


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Write what is logged into a file too."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):
            handler.close()


def _run(
    config: RunConfig,
    sessions: Sequence[Session],
    bundles: Mapping[str, ModelBundle],
    templates: Sequence[Template],
    work: Path,
    logs: Path,
    command: str,
    scheduler: Plugin | None,
) -> list[SessionRow]:
    """Do what is left to do, and tell what became of every session.

    Raises:
        KeyboardInterrupt: the run was told to stop; the tables tell what was done before.
    """
    for session in sessions:
        for note in session.notes:
            _log.info("%s: %s", session.name, note)
    digests = Digests.read(logs / "inputs.tsv")
    jobs = _jobs(config, sessions, bundles, templates, digests)
    to_do = [job for job in jobs if job.busy]
    if len(to_do) < len(jobs):
        _log.info("%d of %s completed by earlier runs (use --force to repeat)",
                  len(jobs) - len(to_do), counted(len(jobs), "session"))  # fmt: skip
    verdict, by_name = Verdict(), {job.name: job for job in jobs}

    def outcome(name: str) -> SessionOutcome:
        found = _recorded(by_name[name], work / _RECORDS)
        return found or _lost(by_name[name], config.out_dir, bundles, digests, verdict)

    busy = _with_work(config, jobs)
    with Ledger(logs, digests, outcome, room=_ROOM * len(to_do)) as ledger:
        if busy:
            progress = Progress(len(to_do), stream=sys.stderr, quiet=config.verbosity < 0,
                                ended=ledger.ended)  # fmt: skip
            _segment(config, busy, bundles, work, logs, command, progress, verdict, scheduler)
        with undisturbed():
            outcomes = {job.name: outcome(job.name) for job in jobs}
            rows = ledger.write(list(outcomes.values()))
            _tell(rows, verdict)
            if config.reports and not verdict.interrupted:
                lost = {job.subject for job in busy if not _recorded(job, work / _RECORDS)}
                broken = [job for job in jobs if job.subject in lost]
                _write_pages(config, broken, outcomes, command)
    if verdict.interrupted:
        raise KeyboardInterrupt
    return rows


def _segment(
    config: RunConfig,
    jobs: Sequence[SessionJob],
    bundles: Mapping[str, ModelBundle],
    work: Path,
    logs: Path,
    command: str,
    progress: Progress,
    verdict: Verdict,
    scheduler: Plugin | None,
) -> None:
    """Run the sessions, in workflows of a limited size: nipype is quadratic in their nodes."""
    from deepmrseg_bids.workflows import init_participant_wf

    limits = _limits(config, progress.sessions)
    if scheduler is not None:  # jobs of a cluster do not share the cores of this machine
        limits = replace(limits, threads=config.omp_nthreads or 1)
    waiting = [job.memory_gb for job in jobs if job.busy]
    if waiting and scheduler is None:
        _log.info("%s", limits.told(len(waiting), max(waiting)))
    if config.resource_monitor:
        record_resources(logs / f"{work.name}.resources.json")

    def drawn(workflow: Any) -> Any:
        if config.write_graph:
            draw_graph(workflow, logs / f"{work.name}.{workflow.name}")
        return workflow

    workflows = (
        drawn(
            init_participant_wf(
                jobs=[replace(job, threads=limits.threads) for job in batch],
                weights={task: bundle.sha256 for task, bundle in bundles.items()},
                out_dir=config.out_dir,
                records=work / _RECORDS,
                threads=limits.threads,
                reports=config.reports,
                command=command,
                name=f"batch_{number}_wf",
            )
        )
        for number, batch in enumerate(_batches(jobs, _BATCH if scheduler is None else _JOBS))
    )
    execute(
        workflows, work=work, logs=logs, limits=limits, progress=progress, verdict=verdict,
        stop_on_first_crash=config.stop_on_first_crash, keep=config.work_dir is not None,
        scheduler=scheduler,
    )  # fmt: skip


def _batches(jobs: Sequence[SessionJob], size: int = _BATCH) -> Iterator[list[SessionJob]]:
    """Sessions in parts of ``size`` or a little more: those of a subject stay together."""
    batch: list[SessionJob] = []
    for _, own in groupby(jobs, key=lambda job: job.subject):
        batch.extend(own)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch


def _tell(rows: Sequence[SessionRow], verdict: Verdict) -> None:
    """A line for each task that was not done; what nobody began is only counted."""
    left = 0
    for row in rows:
        if row.reason in (_INTERRUPTED, _STOPPED):
            left += 1
        elif row.status not in DONE:
            where = " ".join(filter(None, (row.participant_id, row.session_id)))
            _log.warning("%s: %s %s: %s", where, row.task, row.status, row.reason)
    if left:
        _log.warning("%d of %s not completed: %s", left, counted(len(rows), "task"),
                     _INTERRUPTED if verdict.interrupted else _STOPPED)  # fmt: skip


def _write_pages(
    config: RunConfig,
    jobs: Sequence[SessionJob],
    outcomes: Mapping[str, SessionOutcome],
    command: str,
) -> None:
    """The pages of subjects whose workflow broke off, so that they tell why."""
    from deepmrseg_bids.reports.subject.collect import subject_page

    for subject, own in groupby(jobs, key=lambda job: job.subject):
        try:
            subject_page([outcomes[job.name] for job in own], config.out_dir, command=command)
        except Exception as error:  # as in a worker: a page costs itself alone
            _log.error("sub-%s: the report could not be written: %s", subject, error)


def _jobs(
    config: RunConfig,
    sessions: Sequence[Session],
    bundles: Mapping[str, ModelBundle],
    templates: Sequence[Template],
    digests: Digests,
) -> list[SessionJob]:
    """The sessions with the tasks that are left to do."""
    spaces = () if config.reports_only else _space_jobs(templates, digests)
    jobs = [_job(config, session, bundles, spaces) for session in sessions]
    if config.reports_only:
        return [replace(job, tasks=(), finished=tasks_there(job, config.out_dir)) for job in jobs]
    precision = decide_precision(config.precision, config.device)
    jobs = [replace(job, precision=precision) for job in jobs]
    if not config.force:
        jobs = [_resumed(job, config.out_dir, bundles, digests) for job in jobs]
    return [replace(job, memory_gb=_memory_gb(config, job)) if job.busy else job for job in jobs]


def _show_plan(
    config: RunConfig,
    sessions: Sequence[Session],
    bundles: Mapping[str, ModelBundle],
    templates: Sequence[Template],
) -> int:
    """Print what the run would do (``--dry-run``)."""
    from deepmrseg_bids.app.dry_run import plan, write_plan
    from deepmrseg_bids.execution.cost_model import Speed

    digests = Digests.read(config.out_dir / "logs" / "inputs.tsv")
    jobs = _jobs(config, sessions, bundles, templates, digests)
    limits = _limits(config, sum(job.busy for job in jobs))

    def speed() -> Speed:
        return Speed.measure(
            bundles, threads=limits.threads, device=config.device, precision=config.precision,
            flips=config.tta,
        )  # fmt: skip

    planned, start = plan(jobs, bundles, speed, reports=config.reports)
    costs = [one.cost.memory_mib / 1024 for one in planned if one.cost is not None]
    at_once = limits.sessions(len(costs), max(costs, default=0))
    write_plan(planned, sys.stdout, at_once=at_once, threads=limits.threads, start=start)
    return EXIT_ALL_DONE


def _limits(config: RunConfig, sessions: int) -> Limits:
    """What the sessions of the run may take together; ``--low-mem``: one at a time."""
    threads = config.threads(1 if config.low_mem else sessions)
    cores = threads if config.low_mem else config.nprocs
    return Limits(cores, threads, _memory_limit_gb(config))


def _clean(work: Path) -> None:
    """Remove what earlier runs left in the work folder, and nothing else."""
    for folder in work.glob("run-[0-9]*-[0-9]*-*"):
        if _RUN_ID.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
            _log.info("%s: removed (--clean-workdir)", folder)


def _dealt(
    config: RunConfig, sessions: Sequence[Session], bundles: Mapping[str, ModelBundle]
) -> list[Session]:
    """The sessions of this shard."""
    known = known_tasks(dict(config.models))

    def work(session: Session) -> float:
        tasks = [known[task] for task in _tasks(config, session, bundles)]
        return expected_work(_grids(config, session.images), tasks, bundles)

    own = deal(sessions, parse_shard(config.shard), work)
    _log.info("shard %s: %d of %s", config.shard, len(own), counted(len(sessions), "session"))
    return own


def _space_jobs(templates: Sequence[Template], digests: Digests) -> tuple[SpaceJob, ...]:
    if not templates:
        return ()  # and nothing of it is imported
    from deepmrseg_bids.session.template_spaces import space_jobs

    return space_jobs(templates, digests)


def _job(
    config: RunConfig,
    session: Session,
    bundles: Mapping[str, ModelBundle],
    spaces: Sequence[SpaceJob],
) -> SessionJob:
    tasks = _tasks(config, session, bundles)
    return SessionJob(
        subject=session.subject,
        session=session.session,
        bids_dir=config.bids_dir,
        images=session.images,
        tasks=tasks,
        models=_folders(config, bundles),
        device=config.device,
        flips=config.tta,
        probabilities=config.probabilities,
        force_header=config.force_header,
        notes=session.notes,
        spaces=tuple(replace(space, tasks=tasks) for space in spaces),
        force=config.force,
    )


def _resumed(
    job: SessionJob, out_dir: Path, bundles: Mapping[str, ModelBundle], digests: Digests
) -> SessionJob:
    """The same job without the tasks and output spaces that an earlier run has finished."""
    work = FinishedWork(out_dir, bundles, digests)
    finished = work.tasks(job)
    done = {outcome.task for outcome in finished}
    left = tuple(task for task in job.tasks if task not in done)
    spaces, made = work.spaces(job)
    return replace(job, tasks=left, finished=finished, spaces=spaces, finished_spaces=made)


def _with_work(config: RunConfig, jobs: Sequence[SessionJob]) -> list[SessionJob]:
    """The sessions of every subject of whom something is left to do, if only the page."""
    if config.reports_only:
        return [job for job in jobs if job.finished]
    busy = set()
    for subject, own in groupby(jobs, key=lambda job: job.subject):
        sessions = list(own)
        if any(job.busy for job in sessions) or (
            config.reports and not _page_is_up_to_date(config.out_dir, subject, sessions)
        ):
            busy.add(subject)
    return [job for job in jobs if job.subject in busy]


def _page_is_up_to_date(out_dir: Path, subject: str, jobs: Sequence[SessionJob]) -> bool:
    """Whether the page is there, and no older than anything it shows.

    A run that is killed between the last result and the page leaves an old one.
    """
    try:
        page = (out_dir / report_path(subject)).stat().st_mtime_ns
        files = (file for job in jobs for task in job.finished for file in task.files)
        return all((out_dir / file).stat().st_mtime_ns <= page for file in files)
    except OSError:
        return False


def _recorded(job: SessionJob, records: Path) -> SessionOutcome | None:
    """What became of a session, from the record that its worker left at its end."""
    try:
        return outcome_from_json((records / f"{job.name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None if job.busy else finished_session(job)


def _lost(
    job: SessionJob,
    out_dir: Path,
    bundles: Mapping[str, ModelBundle],
    digests: Digests,
    verdict: Verdict,
) -> SessionOutcome:
    """What became of a session without a record: its process died, or it never began."""
    work = FinishedWork(out_dir, bundles, digests)
    done = tuple(replace(task, status="done") for task in work.tasks(job))
    reason, status = verdict.reasons.get(job.name, ""), "failed"
    if not reason and verdict.interrupted:
        reason = _INTERRUPTED
    elif not reason and verdict.stopped:
        reason, status = _STOPPED, "skipped"
    known = {task.task for task in done}
    left = tuple(
        TaskOutcome(task, status, reason or _NO_RECORD) for task in job.tasks if task not in known
    )
    asked = tuple(task.task for task in job.finished) + job.tasks
    missing, made = work.spaces(replace(job, tasks=asked))
    spaces = (
        *(replace(space, status="done") for space in made),
        *(TaskOutcome(space.title, status, reason or _NO_RECORD) for space in missing),
    )
    return replace(
        finished_session(job),
        tasks=(*job.finished, *done, *left),
        spaces=(*job.finished_spaces, *spaces),
    )


def _tasks(
    config: RunConfig, session: Session, bundles: Mapping[str, ModelBundle]
) -> tuple[str, ...]:
    """What was asked for, or else all that the session's images and the models allow."""
    if config.tasks:
        return config.tasks
    return tuple(task.name for task in _possible(config, bundles) if task.suits(session.images))


def _folders(config: RunConfig, bundles: Mapping[str, ModelBundle]) -> tuple[tuple[str, Path], ...]:
    """The bundles that are not the shipped ones: those asked for, and those of other packages."""
    offered = {
        name: task.bundle
        for name, task in known_tasks(dict(config.models)).items()
        if task.bundle is not None and name in bundles
    }
    return tuple({**offered, **dict(config.models)}.items())


def _bundles(config: RunConfig) -> dict[str, ModelBundle]:
    """Every model of the run, opened and checked before any work."""
    own, shipped = dict(config.models), shipped_bundles()
    tasks = known_tasks(own)
    opened = {}
    for model in needed_models(tasks[task] for task in config.tasks or tasks):
        folder = own.get(model) or tasks[model].bundle if model in tasks else None
        folder = folder or shipped.get(model)
        if folder is not None:
            bundle = ModelBundle.open(folder)
            if bundle.task != model:
                raise UsageError(
                    f"--model {model}={bundle.path}: this model is for the task {bundle.task!r}"
                )
            opened[model] = bundle
    return opened


def _tables(tasks: Sequence[TaskSpec], bundles: Mapping[str, ModelBundle]) -> dict[str, LabelTable]:
    """The labels that each task writes."""
    return {task.name: task.table or bundles[task.models[-1]].labels for task in tasks}


def _possible(config: RunConfig, bundles: Mapping[str, ModelBundle]) -> list[TaskSpec]:
    """The tasks whose models are there."""
    tasks = known_tasks(dict(config.models)).values()
    return [task for task in tasks if set(task.models) <= set(bundles)]


def _check_device(config: RunConfig) -> None:
    if config.device not in ("auto", "cpu"):
        from deepmrseg_bids.inference.predictor import resolve_device

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


def _memory_limit_gb(config: RunConfig) -> float:
    """What the run may take: what was asked for, or what the machine has to spare."""
    return config.mem / 1024 or usable_memory_mib() / 1024


def _memory_gb(config: RunConfig, job: SessionJob) -> float:
    """What a session is expected to take."""
    specs = [job.spec(task) for task in job.runs]
    return memory_mib(_grids(config, job.images), specs, spaces=len(job.spaces)) / 1024


def _grids(config: RunConfig, images: Mapping[str, Path]) -> dict[str, Grid]:
    """The grids of the images that can be used, by modality."""
    found = {modality: _grid(config, path) for modality, path in images.items()}
    return {modality: grid for modality, grid in found.items() if grid is not None}


def _grid(config: RunConfig, scan: Path | None) -> Grid | None:
    """The grid of a scan, by its header; None if there is none, or no use in it."""
    if scan is not None:
        with suppress(DeepMRSegError):  # of a scan that cannot be used not much is read
            return read_grid(scan, force_header=config.force_header)
    return None


def _exit_code(rows: Sequence[SessionRow]) -> int:
    done = sum(row.status in DONE for row in rows)
    if done == 0:
        return EXIT_NOTHING
    return EXIT_ALL_DONE if done == len(rows) else EXIT_SOME
