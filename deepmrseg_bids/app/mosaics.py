"""Draw the mosaics of a study in several processes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deepmrseg_bids.execution.progress import Progress
from deepmrseg_bids.execution.worker_pool import WorkerPool
from deepmrseg_bids.group.volumes import TaskVolumes
from deepmrseg_bids.reports.group.data import Cohort
from deepmrseg_bids.reports.group.mosaic import SheetJob, Tile, draw_sheets, sheet_jobs

__all__ = ["draw_mosaics"]

_PRELOAD = ("deepmrseg_bids.reports.group.mosaic",)


def draw_mosaics(
    out_dir: Path,
    bids_dir: Path,
    cohort: Cohort,
    volumes: Sequence[TaskVolumes],
    *,
    nprocs: int,
    quiet: bool = False,
) -> dict[str, list[Tile]]:
    """Write the sheets of every task into ``OUT_DIR/figures``, and say where each session is.

    Sessions with the worst confidence lie on the first sheets. Sheets of an earlier run that
    are not written again are removed.

    Args:
        nprocs: so many sheets at once, each in a process of its own.
    """
    jobs = sheet_jobs(out_dir, bids_dir, _worst_first(cohort, volumes))
    tiles: dict[str, list[Tile]] = {task.task: [] for task in volumes if task.sources}
    progress = Progress(len(jobs), stream=sys.stderr, quiet=quiet, what="mosaic image")
    with contextlib.closing(progress), WorkerPool(_PRELOAD) as pool:
        for job, result in pool.map_unordered(draw_sheets, jobs, at_once=nprocs):
            progress.count(good=not result.problem)
            drawn = _undrawn(job, result.problem) if result.problem else result.value
            for task, of_task in drawn.items():
                tiles[task] += of_task
    _remove_old(out_dir, jobs)
    return {task: sorted(of_task, key=lambda tile: (tile.sheet, tile.place))
            for task, of_task in tiles.items()}  # fmt: skip


def _worst_first(
    cohort: Cohort, volumes: Sequence[TaskVolumes]
) -> list[tuple[int, Mapping[str, str]]]:
    worst = cohort.qc.get("confidence_worst", ())
    order = sorted(
        range(len(cohort.keys)),
        key=lambda number: float(worst[number]) if worst and worst[number] else -1.0,
    )
    sources = [
        (number, {task.task: task.sources[key] for task in volumes if key in task.sources})
        for number in order
        if (key := cohort.keys[number])
    ]
    return [(number, by_task) for number, by_task in sources if by_task]


def _undrawn(job: SheetJob, problem: str) -> dict[str, list[Tile]]:
    """The tiles of sheets that could not be drawn."""
    tiles: dict[str, list[Tile]] = {}
    for place, (session, sources) in enumerate(job.sources):
        for task in sources:
            tiles.setdefault(task, []).append(Tile(session, job.number, place, problem))
    return tiles


def _remove_old(out_dir: Path, jobs: Sequence[SheetJob]) -> None:
    last = len(jobs)
    for path in (out_dir / "figures").glob("group_seg-*_mosaic-*.webp"):
        number = path.stem.rpartition("-")[2]
        if number.isdigit() and int(number) > last:
            path.unlink()
