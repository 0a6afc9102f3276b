"""Agreement of OUT_DIR with references: which label maps belong together, and comparing them."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmrseg_bids.bids.derivatives import label_maps_of
from deepmrseg_bids.bids.keyed_tables import listed
from deepmrseg_bids.bids.label_tables import label_table_of
from deepmrseg_bids.bids.names import BidsName
from deepmrseg_bids.bids.participants import SessionKey
from deepmrseg_bids.bids.references import Match, Reference
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.execution.progress import Progress
from deepmrseg_bids.execution.worker_pool import WorkerPool
from deepmrseg_bids.group.agreement import Compared, PairJob, compare_pair
from deepmrseg_bids.group.volumes import TaskVolumes
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.tasks.spec import TaskSpec
from deepmrseg_bids.wording import counted, once

__all__ = ["Agreement", "find_agreement"]

_log = logging.getLogger("deepmrseg-bids")
_PRELOAD = ("deepmrseg_bids.group.agreement",)


@dataclass(frozen=True)
class Agreement:
    """The comparisons of one task.

    Attributes:
        compared: in the order of the references and sessions.
        facts: for the sidecars: what was compared with what, and how.
    """

    task: str
    compared: tuple[Compared, ...]
    facts: Mapping[str, Any]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of the table."""
        return [row for pair in self.compared for row in pair.rows]


def find_agreement(
    out_dir: Path,
    volumes: Sequence[TaskVolumes],
    references: Sequence[Reference],
    *,
    nprocs: int,
    quiet: bool = False,
) -> tuple[list[Agreement], list[str]]:
    """Compare every session's label maps with those of the references.

    Args:
        nprocs: so many comparisons at once, each in a process of its own.
        quiet: no line of progress.

    Returns:
        One entry for each task that a reference knows, and what went wrong, one line each.
    """
    jobs: list[PairJob] = []
    problems: list[str] = []
    for reference in references:
        pairs, against = _pairs(out_dir, volumes, reference)
        jobs += pairs
        problems += against
    progress = Progress(len(jobs), stream=sys.stderr, quiet=quiet, what="comparison")
    with contextlib.closing(progress):
        done = _run(jobs, nprocs, progress)
    problems += _failures(done)
    agreements = []
    for task in volumes:
        compared = tuple(pair for pair in done if pair.job.task == task.task and pair.rows)
        if compared:
            facts = {"References": _facts(references, compared, len(task.sources))}
            agreements.append(Agreement(task.task, compared, facts))
    for agreement in agreements:
        _tell(agreement)
    return agreements, problems


def _pairs(
    out_dir: Path, volumes: Sequence[TaskVolumes], reference: Reference
) -> tuple[list[PairJob], list[str]]:
    """What can be compared with one reference, and what stands against it."""
    jobs: list[PairJob] = []
    failed: list[str] = []
    for task in volumes:
        for key, source in task.sources.items():
            try:
                pair = _pair(out_dir, task.spec, source, reference)
            except DeepMRSegError as error:
                failed.append(f"{task.task}: {error}")
                continue
            if pair is not None:
                jobs.append(_job(key, source, task.spec, reference, *pair))
    lines = once(failed)
    if jobs:
        # a reference that knows one task need not know the others
        for line in lines:
            _log.info("%s", line)
        return jobs, []
    if lines:
        return [], lines
    return [], [_nothing(reference, {key for task in volumes for key in task.sources})]


def _nothing(reference: Reference, ours: set[SessionKey]) -> str:
    """Why a reference has no label map for any session."""
    sessions = reference.sessions()
    where = f"{reference.name}: {reference.folder}"
    if not sessions:
        return (
            f"{where} contains no label maps; expected "
            "sub-*/[ses-*/]anat/*_dseg.nii.gz, or *_desc-brain_mask.nii.gz"
        )
    mine = [" ".join(part for part in key if part) for key in sorted(ours)]
    return (
        f"{where} has no label map for any session of OUT_DIR in the same space: "
        f"it contains {listed(sessions)}; OUT_DIR contains {listed(mine)}"
    )


def _pair(
    out_dir: Path, task: TaskSpec, source: str, reference: Reference
) -> tuple[LabelTable, Path, Match] | None:
    """A label map of ours and the reference's; lesions on the FLAIR's grid if it has them there."""
    for ours in label_maps_of(out_dir, task, source):
        table = label_table_of(out_dir, task.name, ours)
        match = reference.find(BidsName.parse(ours), task, table)
        if match is not None:
            return table, ours, match
    return None


def _job(
    key: SessionKey,
    source: str,
    task: TaskSpec,
    reference: Reference,
    table: LabelTable,
    ours: Path,
    match: Match,
) -> PairJob:
    return PairJob(
        sample_id=source,
        participant_id=key[0],
        session_id=key[1],
        task=task.name,
        brain_mask=task.brain_mask,
        lesions=task.lesions,
        reference=reference.name,
        ours=str(ours),
        theirs=str(match.path),
        their_root=str(reference.folder),
        table=tuple((label.index, label.name) for label in table),
        labels=None if match.labels is None else tuple(match.labels.items()),
        by_name=match.by_name,
        parts=tuple(task.parts.items()),
    )


def _run(jobs: Sequence[PairJob], nprocs: int, progress: Progress) -> list[Compared]:
    """Compare all pairs; a process that dies costs its own pair."""
    done: dict[PairJob, Compared] = {}
    with WorkerPool(_PRELOAD) as pool:
        for job, result in pool.map_unordered(compare_pair, jobs, at_once=nprocs):
            problem = f"{job.theirs}: {result.problem}"
            compared = result.value or Compared(job, problem=problem)
            progress.count(good=not compared.problem or compared.unsuited)
            done[job] = compared
    return [done[job] for job in jobs]


def _failures(done: Sequence[Compared]) -> list[str]:
    """What went wrong: one line for all that failed alike.

    A label map that served for one task need not be of use for the others.
    """
    good = {pair.job.theirs for pair in done if pair.rows}
    failed: dict[tuple[bool, str, str, str], list[str]] = {}
    for pair in done:
        if pair.problem:
            reason = pair.problem.replace(pair.job.theirs, "").replace(pair.job.ours, "")
            only_told = pair.unsuited and pair.job.theirs in good
            key = (only_told, pair.job.reference, pair.job.task, reason)
            failed.setdefault(key, []).append(f"{pair.job.task}: {pair.problem}")
    problems = []
    for (only_told, *_), lines in failed.items():
        line = lines[0] + (f" (and {len(lines) - 1} more like this)" if len(lines) > 1 else "")
        if only_told:
            _log.info("%s", line)
        else:
            problems.append(line)
    return problems


def _facts(
    references: Sequence[Reference], compared: Sequence[Compared], sessions: int
) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for reference in references:
        pairs = [pair for pair in compared if pair.job.reference == reference.name]
        if pairs:
            facts[reference.name] = {
                "Sessions": len(pairs),
                "SessionsWithoutReference": sessions - len(pairs),
                "Resampled": sum(pair.rows[0]["grid"] == "resampled" for pair in pairs),
                "LabelsMatchedBy": _matched_by(pairs),
            }
    return facts


def _matched_by(compared: Sequence[Compared]) -> str:
    if compared[0].job.brain_mask:
        return "all labelled voxels are brain, holes filled"
    return "name" if all(pair.job.by_name for pair in compared) else "number"


def _tell(agreement: Agreement) -> None:
    for name, facts in agreement.facts["References"].items():
        sessions = counted(facts["Sessions"], "session")
        _log.info("%s: %s compared with %s", agreement.task, sessions, name)
        if facts["SessionsWithoutReference"]:
            _log.info(
                "%s: %s missing in %s",
                agreement.task, counted(facts["SessionsWithoutReference"], "session"), name,
            )  # fmt: skip
        if facts["Resampled"]:
            _log.warning(
                "%s: in %s the grid of %s differs: our label maps were resampled to it (nearest "
                "neighbour)",
                agreement.task, counted(facts["Resampled"], "session"), name,
            )  # fmt: skip
        if facts["LabelsMatchedBy"] == "number":
            _log.warning(
                "%s: %s has no label table; label values are assumed to match ours (its files "
                "are named seg-<task>, or contain all our label values)",
                agreement.task, name,
            )  # fmt: skip
