"""The group level: tables over all sessions, and the agreement with references."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deepmrseg_bids.app.agreement import Agreement, find_agreement
from deepmrseg_bids.app.request import check_owner
from deepmrseg_bids.bids.derivatives import Staging, tasks_in
from deepmrseg_bids.bids.keyed_tables import listed
from deepmrseg_bids.bids.names import (
    REGIONS,
    group_norms_path,
    group_path,
    group_qc_path,
    group_report_path,
    report_path,
)
from deepmrseg_bids.bids.norms import read_norms
from deepmrseg_bids.bids.ownership import check_group_files
from deepmrseg_bids.bids.participants import People, read_people
from deepmrseg_bids.bids.query import check_bids_dir, check_output_dir, check_writable
from deepmrseg_bids.bids.ratings import Ratings, read_ratings, unknown_sessions
from deepmrseg_bids.bids.references import Reference, read_references
from deepmrseg_bids.bids.tables import SessionRow
from deepmrseg_bids.config import RunConfig
from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.group.agreement import old_agreement, write_agreement
from deepmrseg_bids.group.background import Background, against, write_norms
from deepmrseg_bids.group.columns import MISSING
from deepmrseg_bids.group.lesions import write_lesion_places
from deepmrseg_bids.group.qc import write_qc
from deepmrseg_bids.group.ratings import write_rating_tables
from deepmrseg_bids.group.tables import (
    write_asymmetry,
    write_change,
    write_morphs,
    write_retest,
    write_structures,
)
from deepmrseg_bids.group.times import Times
from deepmrseg_bids.group.volumes import (
    TaskVolumes,
    absences,
    all_sessions,
    measured_tasks,
    read_log,
    read_volumes,
    sessions_of,
)
from deepmrseg_bids.session.inventory import EDITED
from deepmrseg_bids.session.verdict import LEVELS
from deepmrseg_bids.tasks.spec import TaskSpec
from deepmrseg_bids.tsv import read_tsv
from deepmrseg_bids.wording import counted

if TYPE_CHECKING:
    from deepmrseg_bids.reports.group.data import Cohort

__all__ = ["run_group"]

_log = logging.getLogger("deepmrseg-bids")
_NAMED = 10  # sessions that are named at the end
_TABLES = ("morph", "structures", "asymmetry", "lesions", "change", "retest")


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
    check_bids_dir(config.bids_dir)
    check_output_dir(config.bids_dir, config.out_dir, create=False)
    check_owner(config)
    check_group_files(config.out_dir)
    check_writable(config.out_dir)
    references = read_references(config.reference)
    if any(one.folder.resolve() == config.out_dir.resolve() for one in references):
        raise UsageError("--reference: this is OUT_DIR; its label maps agree with themselves")
    ratings = read_ratings(config.ratings) if config.ratings else None
    if config.norms:
        read_norms(config.norms)  # before any work
    tasks = tasks_in(config.out_dir, measured_tasks(config.out_dir))
    if unknown := [task for task in config.tasks if task not in tasks]:
        raise UsageError(f"unknown tasks {unknown}; known are {', '.join(tasks)}")
    study = _read_study(config, [tasks[task] for task in config.tasks or tasks], ratings)
    problems = _write_tables(config, study, references)
    if config.reports:
        problems += _write_page(config, study, command, problems)
    for problem in dict.fromkeys(problems):
        _log.warning("%s", problem)
    _tell_verdicts(config)
    if not any(task.sources for task in study.volumes):
        _log.error("%s contains no results: run the participant level first", config.out_dir)
        return 4
    return 3 if problems else 0


def _tell_verdicts(config: RunConfig) -> None:
    """The last lines of the group level: whom to look at, worst first, and where."""
    table = config.out_dir / group_qc_path()
    if not table.is_file():
        return
    rows = sorted(read_tsv(table).rows, key=lambda row: LEVELS.index(row["verdict"]))
    odd = [row for row in rows if row["verdict"] != "ok"]
    _log.info("Summary: %s, %d ok, %d to look at", counted(len(rows), "session"),
              len(rows) - len(odd), len(odd))  # fmt: skip
    for row in odd[:_NAMED]:
        name = " ".join(
            part for part in (row["participant_id"], row["session_id"]) if part != "n/a"
        )
        _log.info("  %s: %s: %s", row["verdict"], name, row["verdict_reason"])
    if len(odd) > _NAMED:
        more = counted(len(odd) - _NAMED, "more session", "more sessions")
        _log.info("  and %s; see the column verdict in %s", more, table)
    if config.reports:
        _log.info("  Next: open %s and rate the results", config.out_dir / group_report_path())


@dataclass(frozen=True)
class _Study:
    """What OUT_DIR and BIDS_DIR say of all sessions.

    Attributes:
        volumes: of each task, the sessions in the order of time.
        regions: the same of composite regions, of the tasks that have them.
        log: logs/sessions.tsv.
        problems: what could not be used, one line each.
        ratings: None where none were given.
    """

    volumes: Sequence[TaskVolumes]
    regions: Sequence[TaskVolumes]
    log: Sequence[SessionRow]
    times: Times
    problems: Sequence[str]
    ratings: Ratings | None = None

    @property
    def present(self) -> list[TaskVolumes]:
        """The tasks that have volumes, and the regions."""
        return [task for task in (*self.volumes, *self.regions) if task.sources]


def _read_study(config: RunConfig, tasks: Sequence[TaskSpec], ratings: Ratings | None) -> _Study:
    log, unread = read_log(config.out_dir)
    volumes = [read_volumes(config.out_dir, task, log, bids_dir=config.bids_dir) for task in tasks]
    regions = [
        read_volumes(config.out_dir, task, log, bids_dir=config.bids_dir, part=REGIONS)
        for task in tasks
        if task.regions
    ]
    read = (*volumes, *regions)
    problems = [f"{task.name}: {line}" for task in read for line in task.problems]
    problems += [
        f"{config.out_dir}: no {task.task} volumes found; run the participant level first"
        for task in volumes
        if config.tasks and not task.sources
    ]
    log = [row for row in log if row.task in {task.name for task in tasks}]
    times = Times.read(config.bids_dir, volumes, all_sessions(volumes, log))
    if ratings is not None:
        read = tuple(replace(task, ratings=ratings.of(task.task)) for task in read)
        _tell_ratings(ratings, read[: len(volumes)])
    ordered = {task.name: task.in_order(times.in_order(task.sources)) for task in read}
    return _Study(
        [ordered[task.name] for task in volumes],
        [ordered[task.name] for task in regions],
        log,
        times,
        problems + unread,
        ratings,
    )


def _tell_ratings(ratings: Ratings, volumes: Sequence[TaskVolumes]) -> None:
    """Say what ratings are about, what they exclude, and whose sessions are not here."""
    for note in ratings.notes:
        _log.warning("%s", note)
    there = {key for task in volumes for key in task.sources}
    if strange := unknown_sessions(ratings, there):
        names = listed([" ".join(filter(None, key)) for key in strange])
        _log.warning("--ratings: no results of %s; these ratings are not used", names)
    for task in filter(lambda task: task.sources, volumes):
        own = (task.ratings or {}).keys() & task.sources.keys()
        excluded = [key for key in task.sources if key in task.excluded]
        names = f": {listed([' '.join(filter(None, key)) for key in excluded])}" if excluded else ""
        _log.info("%s: %d of %s rated, %d excluded%s", task.task, len(own),
                  counted(len(task.sources), "session"), len(excluded), names)  # fmt: skip


def _write_tables(config: RunConfig, study: _Study, references: Sequence[Reference]) -> list[str]:
    """Write all tables, or none of them; what went wrong, one line each."""
    out = config.out_dir
    agreements, unfit = _agreements(config, study.volumes, references)
    problems = [*study.problems]
    with Staging(out) as staging:
        folder = staging.path(group_qc_path()).parent
        if study.present or study.log:
            problems += _stage_tables(config, study, folder)
        for agreement in agreements:
            excluded = next(t.excluded for t in study.volumes if t.task == agreement.task)
            write_agreement(
                folder, agreement.task, agreement.rows, agreement.facts, excluded=excluded
            )
        if study.ratings is not None:
            write_rating_tables(folder, study.present, study.ratings)
        if config.norms and study.present:
            problems += _stage_norms(folder, config.norms, study.present)
        staged = {path.name for path in folder.iterdir()}
    for name in sorted(staged):
        if not name.endswith(".json"):  # each table has one
            _log.info("%s", out / name)
    for path in _outdated(config, study, agreements, staged):
        path.unlink(missing_ok=True)
    return problems + unfit


def _stage_norms(folder: Path, path: Path, volumes: Sequence[TaskVolumes]) -> list[str]:
    """Keep the reference centiles of the structures of this study; what went wrong."""
    norms = read_norms(path)
    known = norms.of({name for task in volumes for name in task.names})
    if not known.curves:
        return [f"--norms: {path}: none of {listed(sorted(norms.names))} is in this study"]
    if strange := sorted(norms.names - known.names):
        _log.warning("--norms: no such structures in this study: %s", listed(strange))
    write_norms(folder, known, path)
    return []


def _outdated(
    config: RunConfig,
    study: _Study,
    agreements: Sequence[Agreement],
    staged: Collection[str],
) -> Iterator[Path]:
    """Tables of an earlier run in the place of which this run has none."""
    out = config.out_dir
    for task in (*study.volumes, *study.regions):
        for table in _TABLES:
            path = out / group_path(task.name, table)
            if path.name not in staged:
                yield from (path, path.with_suffix(".json"))
    for name in ("group_ratings.tsv", "group_ratings_agreement.tsv", str(group_norms_path())):
        if name not in staged:
            yield from (out / name, (out / name).with_suffix(".json"))
    if config.reference:
        fresh = {agreement.task for agreement in agreements}
        for task in study.volumes:
            if task.task not in fresh:
                yield from old_agreement(out, task.task)


def _stage_tables(config: RunConfig, study: _Study, folder: Path) -> list[str]:
    """Write the tables that need no reference; what went wrong, one line each."""
    present, times = study.present, study.times
    sessions = sessions_of(times.in_order(all_sessions(study.volumes, study.log)))
    taken = {MISSING, *(name for task in present for name in task.names)}
    people = read_people(config.bids_dir, sessions, taken=taken)
    for note in dict.fromkeys([*people.notes, *times.notes]):
        _log.warning("%s", note)
    background, unusable = _background(config, people)
    unusual, failed = [], [*unusable]
    notes: list[str] = []
    for task in present:
        absent = absences(config.bids_dir, task, sessions, study.log)
        rest = f", none of {len(absent)} (see missing_reason)" if absent else ""
        _log.info("%s: volumes of %s%s", task.name, counted(len(task.sources), "session"), rest)
        for key in task.edited:
            _log.warning("%s: %s: %s", task.task, " ".join(filter(None, key)), EDITED)
        write_morphs(folder, task, people, absent)
        more = against(task, background)
        failed += more.problems
        notes += more.notes
        found = [
            write_structures(folder, task, more, size=config.adjust_for),
            write_asymmetry(folder, task),
        ]
        if task.part or not any(part.task == task.task for part in present if part.part):
            unusual += found  # regions stand for the many structures that they are made of
        if task.spec.lesions and not task.part:
            failed += write_lesion_places(folder, config.out_dir, task)
        write_change(folder, task, times)
        write_retest(folder, task, times)
    for note in dict.fromkeys(notes):
        _log.info("%s", note)
    odd = [table for table in unusual if table is not None]
    _, missing = write_qc(
        folder, study.volumes, study.log, odd, results=config.out_dir, order=sessions
    )
    return [*people.problems, *failed] + [
        f"{' '.join(part for part in key if part)}: {task} is done according to "
        "logs/sessions.tsv, but its table of volumes is missing; run the session "
        "again"
        for key, task in missing
    ]


def _background(config: RunConfig, people: People) -> tuple[Background, list[str]]:
    """Age, sex, site and norms, and what of them cannot be used."""
    norms = read_norms(config.norms) if config.norms else None
    site = config.harmonise
    if site and site not in people.table.columns:
        known = ", ".join(people.table.columns) or "none"
        problem = f"--harmonise: participants.tsv has no column {site}; its columns are {known}"
        return Background(people.table, norms=norms, size=config.adjust_for), [problem]
    return Background(people.table, site, norms, config.adjust_for), []


def _agreements(
    config: RunConfig, volumes: Sequence[TaskVolumes], references: Sequence[Reference]
) -> tuple[list[Agreement], list[str]]:
    """What every task that a reference knows agrees with; what went wrong."""
    if references:
        return find_agreement(
            config.out_dir,
            volumes,
            references,
            nprocs=config.nprocs,
            quiet=config.verbosity < 0,
        )
    for task in volumes:
        for path in old_agreement(config.out_dir, task.task)[:1]:
            _log.warning("%s: from an earlier run; use --reference DIR to update it", path)
    return [], []


def _refresh_pages(config: RunConfig, cohort: Cohort, tasks: Sequence[str]) -> None:
    """Bring what subject reports say of the study up to date."""
    from deepmrseg_bids.reports.subject.study import Study, refresh

    study = Study(config.out_dir)
    sessions: dict[str, list[str]] = {}
    for who, session in cohort.keys:
        sessions.setdefault(who, []).append(session)
    pages = {who: config.out_dir / report_path(who) for who in sessions}
    there = {who: page for who, page in pages.items() if page.is_file()}
    old = [
        page.name
        for who, page in there.items()
        if not refresh(page, study.facts(who, sessions[who], tasks))
    ]
    if old:
        _log.warning("%s: from an older version; --reports-only writes them again", listed(old))
    if len(there) > len(old):
        _log.info("%s updated", counted(len(there) - len(old), "subject report"))


def _write_page(
    config: RunConfig, study: _Study, command: str, problems: Sequence[str]
) -> list[str]:
    """Write ``group.html`` and its mosaics from the tables; what went wrong besides."""
    if not (config.out_dir / "group_qc.tsv").is_file():
        return []  # nothing was run
    from deepmrseg_bids.app.mosaics import draw_mosaics
    from deepmrseg_bids.reports.group.data import read_cohort
    from deepmrseg_bids.reports.group.page import write_group_report

    every = (*study.volumes, *(part for part in study.regions if part.sources))
    cohort = read_cohort(config.out_dir, [task.name for task in every])
    places = study.times.places(cohort.keys)
    cohort = replace(
        cohort,
        ratings=study.ratings.ratings if study.ratings else (),
        visits=tuple(place for place, _ in places),
        years=tuple(years for _, years in places),
        norms=read_norms(config.norms) if config.norms else None,
    )
    mosaics = draw_mosaics(
        config.out_dir,
        config.bids_dir,
        cohort,
        study.volumes,
        nprocs=config.nprocs,
        quiet=config.verbosity < 0,
    )
    path = config.out_dir / group_report_path()
    shown = list(dict.fromkeys([*problems, *cohort.problems]))
    titles = {task.name: task.title for task in every}
    write_group_report(
        path,
        cohort,
        titles=titles,
        command=command,
        mosaics=mosaics,
        problems=shown,
    )
    _log.info("%s: group report", path)
    _refresh_pages(config, cohort, [task.task for task in study.volumes])
    missing = [tile.problem for tiles in mosaics.values() for tile in tiles if tile.problem]
    if missing:
        rest = f" (and {len(missing) - 1} more like this)" if len(missing) > 1 else ""
        _log.warning("mosaics: no image of %s%s", missing[0], rest)
    return list(cohort.problems)
