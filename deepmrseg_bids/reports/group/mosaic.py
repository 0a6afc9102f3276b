"""Mosaics: one small cut of every session, on sheets that lie beside the page of the study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from deepmrseg_bids.bids.derivatives import label_maps_of, tasks_in
from deepmrseg_bids.bids.description import APP
from deepmrseg_bids.bids.label_tables import label_table_of
from deepmrseg_bids.bids.names import mosaic_path, sidecar_path
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.files import read_json, write_bytes
from deepmrseg_bids.imaging.grid import Array
from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.reports.figures import encode, thumbnail
from deepmrseg_bids.tasks.spec import TaskSpec

__all__ = ["COLUMNS", "EDGE", "SheetJob", "Tile", "draw_sheets", "sheet_jobs"]

COLUMNS = 5
"""A sheet has so many columns and rows."""
EDGE = 176
"""Of a tile, in pixels."""
_RAW = "bids:raw:"


@dataclass(frozen=True)
class Tile:
    """The place of one session's cut.

    Attributes:
        session: its number.
        sheet: the sheet's number, from 1.
        place: from 0, along the rows.
        problem: why there is no picture; empty if there is one.
    """

    session: int
    sheet: int
    place: int
    problem: str = ""


@dataclass(frozen=True)
class SheetJob:
    """The sessions of one sheet, for all tasks.

    Attributes:
        sources: number of the session and, by task, the stem of the image segmented.
    """

    out_dir: Path
    bids_dir: Path
    number: int
    sources: tuple[tuple[int, Mapping[str, str]], ...]


def sheet_jobs(
    out_dir: Path, bids_dir: Path, sources: Sequence[tuple[int, Mapping[str, str]]]
) -> list[SheetJob]:
    """Deal sessions to sheets, in the order given."""
    full = COLUMNS * COLUMNS
    return [
        SheetJob(out_dir, bids_dir, 1 + start // full, tuple(sources[start : start + full]))
        for start in range(0, len(sources), full)
    ]


def draw_sheets(job: SheetJob) -> dict[str, list[Tile]]:
    """Draw the sheet of every task of a job; the tiles of each task.

    A scan is read once for all tasks. What cannot be drawn stays black, and is told.
    """
    tasks = dict.fromkeys(task for _, sources in job.sources for task in sources)
    specs = tasks_in(job.out_dir, tasks)
    sheets = {task: np.zeros((COLUMNS * EDGE, COLUMNS * EDGE, 3), np.uint8) for task in tasks}
    tiles: dict[str, list[Tile]] = {task: [] for task in tasks}
    for place, (session, sources) in enumerate(job.sources):
        read = lru_cache(maxsize=1)(partial(read_volume, force_header=True))
        for task, source in sources.items():
            problem = ""
            try:
                labels, scan = _images(job, specs[task], source)
                marked = read_labels(labels)
                style = specs[task].figure
                table = label_table_of(job.out_dir, task, labels)
                picture = thumbnail(read(scan), marked, table, style=style, edge=EDGE)
                _put(sheets[task], place, picture)
            except DeepMRSegError as error:
                problem = str(error)
            tiles[task].append(Tile(session, job.number, place, problem))
    for task, sheet in sheets.items():
        path = job.out_dir / mosaic_path(task, job.number)
        if all(tile.problem for tile in tiles[task]):
            path.unlink(missing_ok=True)  # of an earlier run
            continue
        # tiles are small and many: sharp enough to see a contour that is off
        write_bytes(path, encode(sheet, COLUMNS * COLUMNS * 6000, software=APP))
    return tiles


def _put(sheet: Array, place: int, picture: Array) -> None:
    row, column = divmod(place, COLUMNS)
    sheet[row * EDGE : (row + 1) * EDGE, column * EDGE : (column + 1) * EDGE] = picture


def _images(job: SheetJob, task: TaskSpec, source: str) -> tuple[Path, Path]:
    """The label map of a session, and the scan on whose grid it lies."""
    for labels in label_maps_of(job.out_dir, task, source):
        try:
            reference = read_json(sidecar_path(labels)).get("SpatialReference", "")
        except (OSError, ValueError, AttributeError) as error:
            raise DeepMRSegError(f"{sidecar_path(labels)}: cannot be read ({error})") from error
        if isinstance(reference, str) and reference.startswith(_RAW):
            return labels, job.bids_dir / unquote(reference.removeprefix(_RAW))
        raise DeepMRSegError(f"{sidecar_path(labels)}: does not name the scan")
    raise DeepMRSegError(f"{source}: no label map of {task.name}")
