"""The participant level: validate, plan, execute, summarise."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deepmrseg_bids import __version__
from deepmrseg_bids.app.outcomes import (
    EXIT_ALL_DONE,
    EXIT_NOTHING,
    EXIT_SOME,
    RunOutcome,
    exit_code,
    log_findings,
    log_rows,
    log_summary,
    session_outcome,
)
from deepmrseg_bids.app.planning import Plan, make_plan
from deepmrseg_bids.app.request import Request, check_owner, validate
from deepmrseg_bids.app.session_log import DONE, SessionLog
from deepmrseg_bids.bids.derivatives import write_dataset_files
from deepmrseg_bids.bids.names import report_path
from deepmrseg_bids.bids.tables import SessionRow
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.execution.monitoring import draw_graph, record_resources
from deepmrseg_bids.execution.nodes import NodeResult
from deepmrseg_bids.execution.progress import Progress
from deepmrseg_bids.execution.runner import Settings, execute
from deepmrseg_bids.execution.signals import undisturbed
from deepmrseg_bids.files import check_writable, locked, remove_leftovers
from deepmrseg_bids.reports.citation import Citation, TaskMethods, write_citation
from deepmrseg_bids.session.job import SessionOutcome, read_outcome
from deepmrseg_bids.session.segment import finished_session
from deepmrseg_bids.tasks.methods import methods_facts
from deepmrseg_bids.tasks.spec import T1W
from deepmrseg_bids.wording import counted

__all__ = ["EXIT_ALL_DONE", "EXIT_NOTHING", "EXIT_SOME", "run_participant"]

_log = logging.getLogger("deepmrseg-bids")
_ROOM = 2048  # bytes of the tables for one session
_RUN_ID = re.compile(r"run-\d{8}-\d{6}-[0-9a-f]{8}")
_BATCH = 128  # sessions of one nipype workflow
_JOBS = 1000  # the same where each is a job of a cluster: a batch waits for its last job


@dataclass(frozen=True)
class Execution:
    """A plan, and the folders in which it runs.

    Attributes:
        work: the run's own folder in the work folder; it is named after the run.
        command: the command line, for the pages.
    """

    plan: Plan
    work: Path
    command: str

    @property
    def config(self) -> RunConfig:
        """What was asked for."""
        return self.plan.request.config

    @property
    def logs(self) -> Path:
        """Where tables, logs and crash files are."""
        return self.config.out_dir / "logs"

    @property
    def records(self) -> Path:
        """The folder in which each session's process writes down its outcome at its end."""
        return self.work / "outcomes"

    @property
    def settings(self) -> Settings:
        """Where and with what the nodes run."""
        limits, scheduler = self.plan.limits, self.plan.request.scheduler
        if scheduler is not None:  # jobs of a cluster do not share the cores of this machine
            limits = replace(limits, threads=self.config.omp_nthreads or 1)
        return Settings(
            self.work,
            self.logs,
            limits,
            scheduler=scheduler,
            stop_on_first_crash=self.config.stop_on_first_crash,
            keep=self.config.work_dir is not None,
        )


def run_participant(config: RunConfig, *, command: str) -> int:
    """Segment every session that was asked for.

    Returns:
        0 if all that was asked for is done, 3 if some was not, 4 if nothing was.

    Raises:
        DeepMRSegError: nothing can start; nothing was written.
        KeyboardInterrupt: the run was told to stop; the tables tell what was done before.
    """
    request = validate(config)
    config = request.config
    if config.shard and not request.sessions:
        _log.info("shard %s: contains no sessions, nothing to do", config.shard)
        return EXIT_ALL_DONE
    if config.dry_run:
        from deepmrseg_bids.app.dry_run import show_plan

        show_plan(make_plan(request))
        return EXIT_ALL_DONE
    with _work_folder(config) as work, _log_file(config, work.name, command):
        _prepare_out_dir(request)
        execution = Execution(make_plan(request), work, command)
        _log_plan(execution.plan)
        room = _ROOM * len(execution.plan.to_do)
        known = execution.plan.finished
        with SessionLog(execution.logs, known.digests, outputs=known.outputs, room=room) as log:
            run = _execute(execution, log)
            with undisturbed():
                if execution.plan.to_do:  # a worker that was stopped may have been writing
                    remove_leftovers(config.out_dir)
                rows = _summarise(execution, run, log)
                if not run.interrupted:
                    _cite(execution, run)
                    _tell(execution, run)
    if run.interrupted:
        raise KeyboardInterrupt
    return exit_code(rows, pages_lost=run.pages_lost)


@contextmanager
def _work_folder(config: RunConfig) -> Iterator[Path]:
    """The path of this run's own folder in the work folder, a temporary one if none is given."""
    work = Path(config.work_dir or tempfile.mkdtemp(prefix="deepmrseg-"))
    check_writable(work, what="the work folder")
    if config.clean_workdir:
        _clean(work)
    try:
        yield work / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    finally:
        if config.work_dir is None:
            with undisturbed():
                shutil.rmtree(work, ignore_errors=True)


def _clean(work: Path) -> None:
    """Remove what earlier runs left in the work folder, and nothing else."""
    for folder in work.glob("run-[0-9]*-[0-9]*-*"):
        if _RUN_ID.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)
            _log.info("%s: removed (--clean-workdir)", folder)


@contextmanager
def _log_file(config: RunConfig, name: str, command: str) -> Iterator[None]:
    """Write what is logged into a file too, beside the configuration of the run."""
    logs = config.out_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(logs / f"{name}.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk
    logging.getLogger().addHandler(handler)
    try:
        config.save(logs / f"{name}.toml")
        _log.info("deepmrseg-bids %s: %s", __version__, command)
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):
            handler.close()


def _prepare_out_dir(request: Request) -> None:
    """Remove what killed runs left, and write the files of the data set as a whole."""
    config = request.config
    remove_leftovers(config.out_dir)
    with locked(config.out_dir / "logs" / ".lock"):
        check_owner(config)  # another run may have begun meanwhile, with another data set
        write_dataset_files(
            config.out_dir,
            config.bids_dir,
            tasks=request.possible,
            tables=request.tables,
            version=__version__,
        )


def _log_plan(plan: Plan) -> None:
    for job in plan.jobs:
        for note in job.notes:
            _log.info("%s: %s", job.name, note)
    finished = sum(job.complete for job in plan.jobs)
    if finished:
        hint = "" if plan.request.config.reports_only else " (use --force to repeat)"
        _log.info("%d of %s completed by earlier runs%s",
                  finished, counted(len(plan.jobs), "session"), hint)  # fmt: skip
    if plan.others:
        _log.info("%s in OUT_DIR outside this run; the reports include them",
                  counted(len(plan.others), "session"))  # fmt: skip
    memory = [job.memory_gb for job in plan.to_do]
    if memory and plan.request.scheduler is None:
        _log.info("%s", plan.limits.summary(len(memory), max(memory)))


def _execute(execution: Execution, log: SessionLog) -> RunOutcome:
    """Run the sessions; each is in the tables soon after its end."""
    plan, config = execution.plan, execution.config
    recorded: dict[str, SessionOutcome] = {}
    reasons: dict[str, str] = {}
    failed = interrupted = False
    pages_lost = 0
    jobs = {job.name: job for job in plan.to_do}
    progress = Progress(len(jobs), stream=sys.stderr, quiet=config.verbosity < 0)
    try:
        with closing(progress), closing(_node_results(execution)) as results:
            for result in results:
                if not result.session:
                    if result.reason:
                        _log.error("report not written: %s", result.reason)
                        pages_lost += 1
                    continue
                if result.outcome is not None:
                    recorded[result.session] = result.outcome
                if result.reason:
                    reasons[result.session] = result.reason
                failed |= not result.good
                progress.count(good=result.good, skipped=result.skipped)
                so_far = RunOutcome(recorded, reasons)
                log.on_finished(session_outcome(jobs[result.session], so_far, plan.finished))
    except KeyboardInterrupt:
        interrupted = True
    for name in jobs.keys() - recorded.keys():  # one may have ended while the run was stopped
        if outcome := read_outcome(execution.records / f"{name}.json"):
            recorded[name] = outcome
    stopped = failed and config.stop_on_first_crash
    return RunOutcome(recorded, reasons, stopped, interrupted, pages_lost)


def _node_results(execution: Execution) -> Generator[NodeResult, None, None]:
    """Run the nodes of the plan; each when it has ended."""
    if not execution.plan.scheduled:
        return  # and nothing of nipype is imported
    if execution.config.resource_monitor:
        record_resources(execution.logs / f"{execution.work.name}.resources.json")
    yield from execute(_workflows(execution), execution.settings)


def _workflows(execution: Execution) -> Iterator[Any]:
    """The sessions in workflows of a limited size: nipype is quadratic in their nodes."""
    from deepmrseg_bids.workflows import NodeSettings, init_participant_wf

    plan, config = execution.plan, execution.config
    settings = NodeSettings(
        out_dir=config.out_dir,
        records=execution.records,
        weights={task: bundle.sha256 for task, bundle in plan.request.bundles.items()},
        reports=config.reports,
        command=execution.command,
    )
    size = _BATCH if plan.request.scheduler is None else _JOBS
    for number, batch in enumerate(plan.batches(size)):
        jobs = [replace(job, threads=execution.settings.limits.threads) for job in batch]
        workflow = init_participant_wf(jobs, settings, name=f"batch_{number}_wf")
        if config.write_graph:
            draw_graph(workflow, execution.logs / f"{execution.work.name}.{workflow.name}")
        yield workflow


def _summarise(execution: Execution, run: RunOutcome, log: SessionLog) -> list[SessionRow]:
    """Write the tables, tell what was not done, and write the pages that no node has written."""
    plan = execution.plan
    outcomes = {job.name: session_outcome(job, run, plan.finished) for job in plan.jobs}
    beside = [finished_session(job) for job in plan.others]
    rows = log.write([*outcomes.values(), *beside])
    log_rows(rows)
    log_findings(list(outcomes.values()))
    if execution.config.reports and not run.interrupted:
        lost = {job.subject for job in plan.to_do if job.name not in run.recorded}
        for subject in sorted(lost):
            of_subject = [
                outcomes[job.name] if job.name in outcomes else finished_session(job)
                for job in plan.by_subject[subject]
            ]
            _write_page(execution, subject, of_subject)
    return rows


def _cite(execution: Execution, run: RunOutcome) -> None:
    """Write the methods text of the tasks that are done."""
    plan, request = execution.plan, execution.plan.request
    outcomes = [session_outcome(job, run, plan.finished) for job in plan.jobs]
    done = [task for one in outcomes for task in one.tasks if task.status in DONE]
    models = {task.task: task.model for task in done if task.model}
    tasks = [
        TaskMethods(
            spec.title,
            methods_facts(spec, request.bundles),
            models.get(spec.name, ""),
            paired=spec.pair and any(spec.name == t.task and len(one.images) > 1
                                     for one in outcomes for t in one.tasks),
        )
        for spec in request.possible
        if spec.name in {task.task for task in done}
    ]  # fmt: skip
    if tasks:
        spaces = [space.partition(":")[0] for space in execution.config.output_spaces]
        intervals = any("volume_interval" in one.facts for one in request.bundles.values())
        text = Citation(
            __version__,
            version("torch"),
            tasks,
            intervals=intervals,
            spaces=[space for space in dict.fromkeys(spaces) if space != T1W],
        )
        try:
            write_citation(execution.logs, text)
        except DeepMRSegError as error:  # a full disk costs this text, not the results
            _log.warning("%s", error)


def _tell(execution: Execution, run: RunOutcome) -> None:
    """The last lines of a run."""
    plan, config = execution.plan, execution.config
    outcomes = [session_outcome(job, run, plan.finished) for job in plan.jobs]
    titles = {name: spec.title for name, spec in plan.request.specs.items()}
    pages = dict.fromkeys(config.out_dir / report_path(one.subject) for one in outcomes)
    command = ["deepmrseg-bids", str(config.bids_dir), str(config.out_dir), "group"]
    log_summary(
        outcomes,
        titles,
        pages=list(pages) if config.reports else (),
        following=shlex.join(command) + (" (when all shards are done)" if config.shard else ""),
    )


def _write_page(execution: Execution, subject: str, outcomes: Sequence[SessionOutcome]) -> None:
    """The page of a subject whose workflow broke off, so that it tells why."""
    from deepmrseg_bids.reports.subject.collect import subject_page

    try:
        subject_page(outcomes, execution.config.out_dir, command=execution.command)
    except Exception as error:  # as in a worker: a page costs itself alone
        _log.error("sub-%s: the report could not be written: %s", subject, error)
