"""Draw the mosaics of a study in several processes."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deepmrseg_bids.execution.progress import Progress
from deepmrseg_bids.execution.worker_pool import Answer, Crew
from deepmrseg_bids.group.volumes import TaskVolumes
from deepmrseg_bids.reports.group.data import Cohort
from deepmrseg_bids.reports.group.mosaic import SheetJob, Tile, draw_sheets, read_tiles, sheet_jobs

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
    with (
        contextlib.closing(progress),
        tempfile.TemporaryDirectory(prefix="deepmrseg-mosaics-") as name,
    ):
        for job, answer in _draw(jobs, Path(name), nprocs):
            progress.count(good=not (answer.died or answer.error))
            for task, own in _tiles(job, _record(Path(name), job), answer).items():
                tiles[task] += own
    _remove_old(out_dir, jobs)
    return {task: sorted(own, key=lambda tile: (tile.sheet, tile.place))
            for task, own in tiles.items()}  # fmt: skip


def _draw(jobs: Sequence[SheetJob], folder: Path, nprocs: int) -> Iterator[tuple[SheetJob, Answer]]:
    """Each job when it has ended; a process that dies costs its own sheets."""
    if nprocs < 2 or len(jobs) < 2:
        for job in jobs:
            draw_sheets(job, _record(folder, job))
            yield job, Answer(job.number)
        return
    waiting = iter(jobs)
    by_number = {job.number: job for job in jobs}
    with Crew(_PRELOAD) as crew:
        while by_number:
            while crew.busy < nprocs and (one := next(waiting, None)) is not None:
                crew.start(one.number, draw_sheets, one, _record(folder, one))
            for answer in crew.wait():
                yield by_number.pop(int(str(answer.task))), answer


def _record(folder: Path, job: SheetJob) -> Path:
    return folder / f"{job.number}.json"


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


def _tiles(job: SheetJob, record: Path, answer: Answer) -> dict[str, list[Tile]]:
    if not (answer.died or answer.error):
        return read_tiles(job.number, record)
    why = answer.died or (answer.error or "").strip().rpartition("\n")[2]
    found: dict[str, list[Tile]] = {}
    for place, (session, sources) in enumerate(job.sources):
        for task in sources:
            found.setdefault(task, []).append(Tile(session, job.number, place, why))
    return found


def _remove_old(out_dir: Path, jobs: Sequence[SheetJob]) -> None:
    last = len(jobs)
    for path in (out_dir / "figures").glob("group_seg-*_mosaic-*.webp"):
        number = path.stem.rpartition("-")[2]
        if number.isdigit() and int(number) > last:
            path.unlink()
