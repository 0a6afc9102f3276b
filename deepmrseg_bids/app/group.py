"""The group level: tables over all sessions, and the agreement with references."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from deepmrseg_bids.app.agreement import find_agreement
from deepmrseg_bids.app.request import check_owner
from deepmrseg_bids.bids.derivatives import tasks_in
from deepmrseg_bids.bids.names import group_report_path
from deepmrseg_bids.bids.ownership import check_group_files
from deepmrseg_bids.bids.participants import read_people
from deepmrseg_bids.bids.query import check_output_dir, check_writable
from deepmrseg_bids.bids.references import Reference, read_references
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.group.agreement import old_agreement, write_agreement
from deepmrseg_bids.group.qc import write_qc
from deepmrseg_bids.group.tables import (
    Times,
    write_asymmetry,
    write_change,
    write_morphs,
    write_retest,
    write_structures,
)
from deepmrseg_bids.group.volumes import TaskVolumes, read_log, read_volumes, sessions_of
from deepmrseg_bids.wording import counted

__all__ = ["run_group"]

_log = logging.getLogger("deepmrseg-bids")


def run_group(config: RunConfig, *, command: str = "") -> int:
    """Write the tables of the group level and its page; ``docs/outputs.md`` describes each.

    Args:
        command: the command line, for the page.

    Returns:
        0 if every result entered its tables, 3 if some could not be used, 4 if there are none.

    Raises:
        DatasetError: OUT_DIR does not exist, or cannot be used.
    """
    if not config.out_dir.is_dir():
        raise DatasetError(f"{config.out_dir}: no such folder; run the participant level first")
    check_output_dir(config.bids_dir, config.out_dir, create=False)
    check_owner(config)
    check_group_files(config.out_dir)
    check_writable(config.out_dir)
    references = read_references(config.reference)
    tasks = tasks_in(config.out_dir)
    if unknown := [task for task in config.tasks if task not in tasks]:
        raise UsageError(f"unknown tasks {unknown}; known are {', '.join(tasks)}")
    volumes = [read_volumes(config.out_dir, tasks[task]) for task in config.tasks or tasks]
    problems = [f"{task.task}: {line}" for task in volumes for line in task.problems]
    problems += [
        f"{config.out_dir}: no {task.task} volumes found; run the participant level first"
        for task in volumes
        if config.tasks and not task.sources
    ]
    problems += _write_tables(config.out_dir, config.bids_dir, volumes)
    problems += _write_agreement(config, volumes, references)
    if config.reports:
        problems += _write_page(config, volumes, command, problems)
    for problem in dict.fromkeys(problems):
        _log.warning("%s", problem)
    if not any(task.sources for task in volumes):
        _log.error("%s contains no results: run the participant level first", config.out_dir)
        return 4
    return 3 if problems else 0


def _write_tables(out: Path, raw: Path, volumes: Sequence[TaskVolumes]) -> list[str]:
    """Write the tables that need no reference; what went wrong, one line each."""
    log, problems = read_log(out)
    present = [task for task in volumes if task.sources]
    if not present and not log:
        return problems
    times = Times.read(raw, present)
    people = read_people(
        raw,
        sessions_of(sorted({key for task in present for key in task.sources})),
        taken={name for task in present for name in task.names},
    )
    problems += people.problems
    for note in people.notes:
        _log.warning("%s", note)
    unusual = []
    for task in present:
        sessions = counted(len(task.sources), "session")
        _log.info("%s: %s", write_morphs(out, task, people), sessions)
        unusual += [write_structures(out, task), write_asymmetry(out, task)]
        write_change(out, task, times)
        write_retest(out, task, times)
    path, missing = write_qc(out, volumes, log, [table for table in unusual if table is not None])
    _log.info("%s: quality control", path)
    return problems + [
        f"{' '.join(part for part in key if part)}: {task} is done according to "
        "logs/sessions.tsv, but its table of volumes is missing; run the session "
        "again"
        for key, task in missing
    ]


def _write_agreement(
    config: RunConfig, volumes: Sequence[TaskVolumes], references: Sequence[Reference]
) -> list[str]:
    """Write the tables of agreement of every task that a reference knows; what went wrong."""
    old = {task.task: old_agreement(config.out_dir, task.task) for task in volumes}
    if not references:
        for path in (path for paths in old.values() for path in paths[:1]):
            _log.warning("%s: from an earlier run; use --reference DIR to update it", path)
        return []
    agreements, problems = find_agreement(
        config.out_dir,
        volumes,
        references,
        nprocs=config.nprocs,
        quiet=config.verbosity < 0,
    )
    for agreement in agreements:
        for path in write_agreement(
            config.out_dir, agreement.task, agreement.rows, agreement.facts
        ):
            _log.info("%s", path)
    for task in old.keys() - {agreement.task for agreement in agreements}:
        for path in old[task]:
            path.unlink()
    return problems


def _write_page(
    config: RunConfig, volumes: Sequence[TaskVolumes], command: str, problems: Sequence[str]
) -> list[str]:
    """Write ``group.html`` and its mosaics from the tables; what went wrong besides."""
    if not (config.out_dir / "group_qc.tsv").is_file():
        return []  # nothing was run
    from deepmrseg_bids.app.mosaics import draw_mosaics
    from deepmrseg_bids.reports.group.data import read_cohort
    from deepmrseg_bids.reports.group.page import write_group_report

    cohort = read_cohort(config.out_dir, [task.task for task in volumes])
    mosaics = draw_mosaics(
        config.out_dir,
        config.bids_dir,
        cohort,
        volumes,
        nprocs=config.nprocs,
        quiet=config.verbosity < 0,
    )
    path = config.out_dir / group_report_path()
    shown = list(dict.fromkeys([*problems, *cohort.problems]))
    titles = {task.task: task.spec.title for task in volumes}
    write_group_report(
        path, cohort, titles=titles, command=command, mosaics=mosaics, problems=shown
    )
    _log.info("%s: group report", path)
    missing = [tile.problem for tiles in mosaics.values() for tile in tiles if tile.problem]
    if missing:
        rest = f" (and {len(missing) - 1} more like this)" if len(missing) > 1 else ""
        _log.warning("mosaics: no image of %s%s", missing[0], rest)
    return list(cohort.problems)
