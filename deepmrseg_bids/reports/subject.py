"""One HTML page a subject: what was done, how it looks, what it measures, how to cite it.

The page is a single file without scripts, and opens without a network.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from deepmrseg_bids.bids.files import write_bytes
from deepmrseg_bids.bids.tables import MorphRow
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.image import Volume, read_labels, read_volume
from deepmrseg_bids.labels import LabelTable
from deepmrseg_bids.reports.figures import contour_figure
from deepmrseg_bids.reports.page import render_page

__all__ = ["SessionResult", "TaskResult", "write_subject_report"]

_PICTURE_BUDGET = 2_700_000  # bytes for all pictures of a page; base64 adds a third
_ML_FROM = 100_000  # mm3: a table with a larger volume is in millilitres
_TITLES = {
    "brain": "Brain",
    "deepbrain": "Deep brain structures",
    "hippocampus": "Hippocampus",
    "wml": "White-matter lesions",
}
_METHODS = {
    "brain": "The brain was separated from the rest of the head.",
    "deepbrain": (
        "Accumbens, amygdala, caudate, hippocampus, pallidum, putamen and thalamus were "
        "segmented on both sides within the brain."
    ),
    "hippocampus": "The anterior and posterior part of each hippocampus were segmented.",
    "wml": "White-matter lesions were segmented on the FLAIR image.",
}


@dataclass(frozen=True)
class TaskResult:
    """What became of one task in one session.

    Attributes:
        status: ``done``, ``resumed`` (was done before), ``skipped`` or ``failed``.
        reason: why it was skipped or failed; empty otherwise.
        image: the scan under the contours.
        dseg: the label map.
        rows: the measured volumes.
        seconds: how long the task took.
    """

    task: str
    status: str
    reason: str
    image: Path | None
    dseg: Path | None
    table: LabelTable | None
    rows: Sequence[MorphRow]
    seconds: float | None = None

    @property
    def finished(self) -> bool:
        """Whether there are results to show."""
        return self.status in ("done", "resumed")


@dataclass(frozen=True)
class SessionResult:
    """What became of one session; ``session`` is None in a data set without sessions.

    Attributes:
        findings: about the images and the results, those that matter most first.
    """

    subject: str
    session: str | None
    tasks: tuple[TaskResult, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def write_subject_report(
    path: Path,
    results: Sequence[SessionResult],
    *,
    version: str,
    command: str,
    models: Mapping[str, str],
) -> None:
    """Write the page of one subject, in one step: a broken run leaves the old page or none.

    An image or label map that cannot be read is named in the page, and the rest is written.
    The same results give the same bytes.

    Args:
        results: the sessions, in the order in which to show them.
        command: the command line that was run.
        models: for each task, its model's version and the start of its SHA-256.

    Raises:
        ValueError: no results, or results of several subjects.
    """
    subjects = {result.subject.removeprefix("sub-") for result in results}
    if len(subjects) != 1:
        raise ValueError(f"a report is about one subject, got {sorted(subjects) or 'no results'}")
    page = render_page(
        "subject.html.j2",
        subject=subjects.pop(),
        version=version,
        command=command,
        models=models,
        sessions=_sessions(results),
        tasks=_task_names(results),
        titles=_TITLES,
        methods=_methods(results, models),
    )
    write_bytes(path, page, anew=True)


@dataclass(frozen=True)
class _Picture:
    """A picture as a data URI, or the reason why there is none."""

    uri: str = ""
    problem: str = ""
    scan: str = ""


@dataclass(frozen=True)
class _Row:
    name: str
    color: str
    volume: str
    interval: str
    percent: str
    confidence: float | None


@dataclass(frozen=True)
class _Pair:
    """The rows of a structure, left and right or one alone, and how much they differ."""

    rows: tuple[_Row, ...]
    asymmetry: str


@dataclass(frozen=True)
class _Task:
    anchor: str
    title: str
    result: TaskResult
    picture: _Picture
    pairs: tuple[_Pair, ...]
    unit: str


@dataclass(frozen=True)
class _Session:
    anchor: str
    title: str
    result: SessionResult
    tasks: tuple[_Task, ...]


def _sessions(results: Sequence[SessionResult]) -> list[_Session]:
    drawn = sum(task.finished for result in results for task in result.tasks)
    limit = _PICTURE_BUDGET // max(drawn, 1)
    sessions = []
    for number, result in enumerate(results, start=1):
        label = (result.session or "").removeprefix("ses-")
        anchor = f"{number}-{_slug(label or 'session')}"
        # the tasks of a session share their scan; to draw it, any header will do
        read = lru_cache(maxsize=1)(partial(read_volume, force_header=True))
        tasks = tuple(
            _task(task, f"{anchor}-{_slug(task.task)}", read, limit) for task in result.tasks
        )
        title = f"Session {label}" if label else "Session"
        sessions.append(_Session(anchor, title, result, tasks))
    return sessions


def _task(result: TaskResult, anchor: str, read: Callable[[Path], Volume], limit: int) -> _Task:
    title = _TITLES.get(result.task, result.task)
    picture = _picture(result, read, limit) if result.finished else _Picture()
    largest = max((row.volume_mm3 or 0 for row in result.rows), default=0)
    scale, unit = (1000.0, "ml") if largest >= _ML_FROM else (1.0, "mm³")
    return _Task(anchor, title, result, picture, _pairs(result, scale), unit)


def _picture(result: TaskResult, read: Callable[[Path], Volume], limit: int) -> _Picture:
    if result.image is None or result.dseg is None or result.table is None:
        return _Picture(problem="the scan or its label map is not known to this report")
    try:
        volume = read(result.image)
        labels = read_labels(result.dseg)
    except DeepMRSegError as error:
        return _Picture(problem=str(error))
    data = contour_figure(volume, labels, result.table, task=result.task, limit=limit)
    shape = " x ".join(str(edge) for edge in volume.grid.shape)
    spacing = " x ".join(f"{edge:.2f}" for edge in volume.grid.spacing)
    scan = f"{result.image.name}: {shape} voxels of {spacing} mm, {volume.grid.orientation}"
    return _Picture("data:image/webp;base64," + base64.b64encode(data).decode("ascii"), scan=scan)


def _pairs(result: TaskResult, scale: float) -> tuple[_Pair, ...]:
    """Rows in the table's order, with left and right of a structure together, left first."""
    colours = {label.index: label.color for label in result.table or ()}
    groups: dict[str, dict[str, MorphRow]] = {}
    for row in result.rows:
        side, structure = _side(row.name)
        groups.setdefault(structure if side else row.name, {})[side] = row
    pairs = []
    for group in groups.values():
        rows = tuple(_row(group[side], colours, scale) for side in sorted(group))
        left, right = group.get("left"), group.get("right")
        asymmetry = "" if left is None or right is None else _asymmetry(left, right)
        pairs.append(_Pair(rows, asymmetry))
    return tuple(pairs)


def _row(row: MorphRow, colours: Mapping[int, str], scale: float) -> _Row:
    low, high = row.volume_low_mm3, row.volume_high_mm3
    interval = (
        "" if low is None or high is None else f"{_number(low, scale)} to {_number(high, scale)}"
    )
    percent = row.volume_icv_percent
    return _Row(
        row.name.replace("-", " "),
        colours.get(row.index, ""),
        "n/a" if row.volume_mm3 is None else _number(row.volume_mm3, scale),
        interval or "n/a",
        "n/a" if percent is None else f"{percent:.3g}",
        None if row.confidence is None else min(max(row.confidence, 0.0), 1.0),
    )


def _number(volume: float, scale: float) -> str:
    return f"{volume / scale:,.{1 if scale > 1 or volume < 10 else 0}f}"


def _side(name: str) -> tuple[str, str]:
    """The side of a structure, or an empty one, and its name without it."""
    first, _, rest = name.partition("-")
    return (first.lower(), rest) if first.lower() in ("left", "right") and rest else ("", name)


def _asymmetry(left: MorphRow, right: MorphRow) -> str:
    """Difference of left and right in percent of their mean; positive where left is larger."""
    a, b = left.volume_mm3, right.volume_mm3
    return "n/a" if a is None or b is None or a + b <= 0 else f"{200 * (a - b) / (a + b):+.1f}"


def _task_names(results: Sequence[SessionResult]) -> list[str]:
    return list(dict.fromkeys(task.task for result in results for task in result.tasks))


def _methods(results: Sequence[SessionResult], models: Mapping[str, str]) -> list[str]:
    """One sentence for each task that was done in some session, with its model."""
    done = {task.task for result in results for task in result.tasks if task.finished}
    sentences = []
    for task in _task_names(results):
        if task in done:
            sentence = _METHODS.get(task, f"The structures of the task {task} were segmented.")
            model = f" (model {models[task]})." if task in models else "."
            sentences.append(sentence.removesuffix(".") + model)
    return sentences


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "x"
