"""``--dry-run``: what a run would do, session by session, and what it would take."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from deepmrseg_bids.app.planning import Plan
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.execution.cost_model import Cost, Extras, Speed, predict, start_seconds
from deepmrseg_bids.execution.progress import spell
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import read_grid
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.session.job import SessionJob
from deepmrseg_bids.tasks.spec import MODALITIES, T1W
from deepmrseg_bids.tsv import tsv_text
from deepmrseg_bids.wording import counted

__all__ = ["Planned", "predict_sessions", "show_plan", "write_plan"]

_COLUMNS = ("participant_id", "session_id", *MODALITIES, "tasks", "finished", "left_out",
            "seconds", "memory_mib")  # fmt: skip


@dataclass(frozen=True)
class Planned:
    """What a run would do with one session.

    Attributes:
        job: the session; its ``tasks`` are what is left to do.
        reasons: why a task cannot be done, by task.
        cost: None where there is nothing to do.
    """

    job: SessionJob
    reasons: Mapping[str, str]
    cost: Cost | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that would be done, and the output spaces in which something would."""
        spaces = tuple(space.title for space in self.job.spaces if self.cost is not None)
        return tuple(task for task in self.job.tasks if task not in self.reasons) + spaces


def show_plan(plan: Plan) -> None:
    """Print what a run would do."""
    config, bundles, limits = plan.request.config, plan.request.bundles, plan.limits

    def speed() -> Speed:
        return Speed.measure(
            bundles, threads=limits.threads, device=config.device, precision=config.precision,
            flips=config.tta,
        )  # fmt: skip

    planned, start = predict_sessions(plan.jobs, bundles, speed, reports=config.reports)
    memory = [session.cost.memory_mib / 1024 for session in planned if session.cost is not None]
    at_once = limits.sessions(len(memory), max(memory, default=0))
    write_plan(planned, sys.stdout, at_once=at_once, threads=limits.threads, start=start)


def predict_sessions(
    jobs: Iterable[SessionJob],
    bundles: Mapping[str, ModelBundle],
    speed: Callable[[], Speed],
    *,
    reports: bool = True,
) -> tuple[list[Planned], float]:
    """What would become of each session; only headers are read.

    Args:
        jobs: without the tasks that are finished.
        bundles: the models of the run.
        speed: measures this machine; asked once, and only if there is something to do.
        reports: pages are written.

    Returns:
        The sessions, and the seconds from the command to the first of them.
    """
    planned: list[Planned] = []
    measured: Speed | None = None
    for job in jobs:
        reasons = {one.task: one.reason for one in job.finished if one.status != "resumed"}
        reasons |= {task: reason for task in job.tasks if (reason := _reason(task, job, bundles))}
        left = [task for task in job.runs if not (reasons.get(task) or _reason(task, job, bundles))]
        cost = None
        if left:
            try:
                grids = _grids(job, left)
            except DeepMRSegError as error:
                reasons |= dict.fromkeys(left, " ".join(str(error).split()))
            else:
                measured = measured or speed()
                templates = {space.template.space.label for space in job.spaces}
                cost = predict(
                    grids,
                    [job.spec(task) for task in left],
                    measured,
                    Extras(job.probabilities, reports, len(templates), len(job.spaces)),
                )
        planned.append(Planned(job, reasons, cost))
    return planned, 0.0 if measured is None else start_seconds(measured)


def _grids(job: SessionJob, tasks: Sequence[str]) -> dict[str, Grid]:
    """The grids of the images that the tasks look at, and of the T1w.

    Raises:
        ImageError: one of them cannot be used.
    """
    wanted = {T1W} | {mode for task in tasks for mode in job.spec(task).images(job.images)}
    return {
        modality: read_grid(path, force_header=job.force_header)
        for modality, path in job.images.items()
        if modality in wanted
    }


def _reason(task: str, job: SessionJob, bundles: Mapping[str, ModelBundle]) -> str:
    """Why a task of a session will be skipped; empty if nothing is known against it."""
    spec = job.spec(task)
    if reason := job.lacking(task):
        return reason
    if any(model not in bundles for model in spec.models):
        return f"{task}: no model is installed"
    return ""


def total_seconds(costs: Sequence[Cost], at_once: int) -> float:
    """How long the sessions take together, some at a time: each goes to the first free place.

    >>> total_seconds([Cost(4, 1), Cost(2, 1), Cost(2, 1)], 2)
    4.0
    """
    places = [0.0] * max(1, at_once)
    for cost in costs:
        first = places.index(min(places))
        places[first] += cost.seconds
    return max(places)


def write_plan(
    planned: Sequence[Planned], stream: TextIO, *, at_once: int, threads: int, start: float = 0.0
) -> None:
    """One row a session, tab-separated (in columns on a terminal), then the sum in one line."""
    rows = [_COLUMNS, *map(_row, planned)]
    if stream.isatty():
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    else:
        lines = tsv_text(_COLUMNS, rows[1:]).splitlines()
    print("\n".join(lines), file=stream)
    text = summary(planned, at_once=at_once, threads=threads, start=start)
    print(text, file=stream, flush=True)


def summary(planned: Sequence[Planned], *, at_once: int, threads: int, start: float) -> str:
    """``# 3 of 5 sessions to process, 1 completed, 1 not possible; ...``."""
    costs = [session.cost for session in planned if session.cost is not None]
    finished = sum(session.job.complete for session in planned)
    text = (
        f"# {len(costs)} of {counted(len(planned), 'session')} to process, {finished} completed, "
        f"{len(planned) - len(costs) - finished} not possible"
    )
    if not costs:
        return text
    largest = sorted((cost.memory_mib for cost in costs), reverse=True)[:at_once]
    return (
        f"{text}; {at_once} in parallel with {counted(threads, 'thread')} each: "
        f"about {spell(start + total_seconds(costs, at_once))} and "
        f"{math.ceil(sum(largest) / 102.4) / 10:.1f} GB"
    )


def _row(planned: Planned) -> tuple[str, ...]:
    job, cost = planned.job, planned.cost
    reasons: dict[str, list[str]] = {}
    for task, reason in planned.reasons.items():
        reasons.setdefault(reason, []).append(task)
    left_out = "; ".join(f"{' '.join(tasks)}: {reason}" for reason, tasks in reasons.items())
    cells = (
        f"sub-{job.subject}",
        f"ses-{job.session}" if job.session else "",
        *(_relative(job.images.get(modality), job.bids_dir) for modality in MODALITIES),
        " ".join(planned.tasks),
        " ".join(
            outcome.task
            for outcome in (*job.finished, *job.finished_spaces)
            if outcome.status == "resumed"
        ),
        left_out,
        "" if cost is None else f"{cost.seconds:.0f}",
        "" if cost is None else str(cost.memory_mib),
    )
    return tuple(" ".join(cell.split()) or "n/a" for cell in cells)


def _relative(path: Path | None, root: Path) -> str:
    return "" if path is None else str(path.relative_to(root))
