"""The subject report: task status, contours, volumes, methods and references.

The report is a single HTML file that opens without a network. The viewer starts on request;
everything else works without scripts.
"""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from deepmrseg_bids.bids.names import sidecar_path
from deepmrseg_bids.bids.ownership import page_guard
from deepmrseg_bids.bids.pages import TABLES_MARK
from deepmrseg_bids.bids.ratings import RATING_COLUMNS
from deepmrseg_bids.bids.tables import MorphRow
from deepmrseg_bids.bids.visits import Visits
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.files import read_json, write_bytes
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume, read_labels, read_volume
from deepmrseg_bids.reports.citation import Citation, TaskMethods
from deepmrseg_bids.reports.guide import SUBJECT
from deepmrseg_bids.reports.page import render_page
from deepmrseg_bids.reports.subject.alignment import alignment_figure
from deepmrseg_bids.reports.subject.lesion_changes import LesionChanges
from deepmrseg_bids.reports.subject.lesions import LesionView, lesion_view
from deepmrseg_bids.reports.subject.slices import Slice, SliceSet, draw_slices
from deepmrseg_bids.reports.subject.study import block
from deepmrseg_bids.reports.subject.viewer import Scene, ViewerMap, make_scene
from deepmrseg_bids.reports.subject.volumes import (
    Change,
    Group,
    Pair,
    Standing,
    changes,
    grouped,
    is_of_icv,
    paired,
    unit_of,
)
from deepmrseg_bids.session.verdict import Verdict, verdict
from deepmrseg_bids.tasks.regions import Region
from deepmrseg_bids.tasks.spec import TaskSpec

__all__ = ["Alignment", "SessionResult", "TaskResult", "write_subject_report"]

_PICTURE_BUDGET = 2_400_000  # bytes for all pictures of a page; base64 adds a third
_MANY = 30  # structures: a longer table is closed at first
_VIEWER_BUDGET = 3_000_000  # bytes, as base64, for all scans in the viewer


@dataclass(frozen=True)
class TaskResult:
    """The result of one task in one session.

    Attributes:
        status: ``done``, ``resumed`` (was done before), ``skipped`` or ``failed``.
        reason: why it was skipped or failed; empty otherwise.
        image: the scan under the contours.
        dseg: the label map.
        rows: the measured volumes.
        seconds, peak_mib: what the task took, where it is known.
        standing: by name of the structure, its cohort percentile.
        provenance: what the sidecar of the label map says about how it was made.
        tsv: the table of volumes as it was written, and its name, to download.
        edited: somebody changed the label map; the volumes are those of the original.
        lesions: the table of single lesions, where the task writes one.
        regions: the measured volumes of composite regions.
        composition: the labels of each of these regions.
        tables: the names of the tables that all these volumes are from.
    """

    spec: TaskSpec
    status: str
    reason: str
    image: Path | None
    dseg: Path | None
    table: LabelTable | None
    rows: Sequence[MorphRow]
    seconds: float | None = None
    peak_mib: float | None = None
    standing: Mapping[str, Standing] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    tsv: tuple[str, str] = ("", "")
    edited: bool = False
    lesions: Path | None = None
    regions: Sequence[MorphRow] = ()
    composition: Sequence[Region] = ()
    tables: Sequence[str] = ()

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.spec.name

    @property
    def finished(self) -> bool:
        """Whether there are results to show."""
        return self.status in ("done", "resumed")


@dataclass(frozen=True)
class Alignment:
    """A scan that was registered to another one.

    Attributes:
        matrix: 4 rows of 4, points of the fixed scan's space to points of the moving one's.
        quality: measures by name, after; for the caption.
    """

    fixed: Path
    moving: Path
    matrix: Sequence[Sequence[float]]
    quality: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionResult:
    """The results of one session; ``session`` is None in a data set without sessions.

    Attributes:
        lesion_changes: of its lesions since the session before, by task.
        findings: about the images and the results, those that matter most first.
        dataset, person: the name of the data set; age and sex, for the title.
        name: in the place of ``sub-<label>``, for an image outside a data set.
    """

    subject: str
    session: str | None
    tasks: tuple[TaskResult, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    alignment: Alignment | None = None
    lesion_changes: tuple[LesionChanges, ...] = ()
    dataset: str = ""
    person: str = ""
    name: str = ""

    @property
    def verdict(self) -> Verdict:
        """What the run itself says of the session; the group level may add an outlier."""
        told = [(task.status, (task.spec.title, task.reason)) for task in self.tasks]
        nothing = not any(task.finished for task in self.tasks)
        return verdict(
            [(one.severity, one.message) for one in self.findings],
            failed=[what for status, what in told if status == "failed"],
            skipped=[what for status, what in told if nothing and status == "skipped"],
        )

    @property
    def label(self) -> str:
        """With ``ses-``; empty without sessions."""
        return _session_id(self)


def write_subject_report(
    path: Path,
    results: Sequence[SessionResult],
    *,
    version: str,
    command: str,
    models: Mapping[str, str],
    visits: Visits | None = None,
    study: Mapping[str, Any] | None = None,
) -> None:
    """Write the page of one subject, in one step: a broken run leaves the old page or none.

    An image or label map that cannot be read is named in the page, and the rest is written.
    The same results give the same bytes.

    Args:
        results: the sessions, in the order in which to show them.
        command: the command line that was run.
        models: for each task, its model's version and the start of its SHA-256.
        visits: what is known of the order of the sessions; what their labels say unless given.
        study: what the group level says, see :meth:`.study.Study.facts`.

    Raises:
        ValueError: no results, or results of several subjects.
    """
    subjects = {result.subject.removeprefix("sub-") for result in results}
    if len(subjects) != 1:
        raise ValueError(f"a report is about one subject, got {sorted(subjects) or 'no results'}")
    visits = visits or Visits.of(_session_id(result) for result in results)
    page = render_page(
        "subject.html.j2",
        scripts=["ratings.js", "subject.js", "lesions.js"],
        libraries=["niivue"],
        name=results[0].name or f"sub-{subjects.pop()}",
        tables_mark=TABLES_MARK,
        tables=[table for one in results for task in one.tasks for table in task.tables],
        rating_columns=RATING_COLUMNS,
        guide=SUBJECT,
        study=Markup(block(study or {}).decode("ascii")),  # it escapes all markup itself
        dataset=results[0].dataset,
        people=list(dict.fromkeys(one.person for one in results if one.person)),
        version=version,
        command=command,
        models=models,
        sessions=_sessions(results),
        changes=_changes(results, visits),
        lesion_changes=[change for result in results for change in result.lesion_changes],
        order_notes=visits.notes,
        counts=_counts(results),
        tasks=_task_names(results),
        titles=_titles(results),
        methods=_methods(results, models),
        credits=_credits(results),
        citation=_citation(results, version, models),
        software=_torch(results),
        intervals=any(row.volume_low_mm3 is not None for row in _rows(results)),
        edited=[
            task.dseg.name for one in results for task in one.tasks if task.edited and task.dseg
        ],
    )
    page_guard(path)
    write_bytes(path, page, anew=True)


@dataclass(frozen=True)
class _Picture:
    """A picture, or the reason why there is none.

    Attributes:
        uri: of a single picture.
        slices: of a label map.
        scan: a sentence on what is below.
    """

    uri: str = ""
    slices: SliceSet | None = None
    problem: str = ""
    scan: str = ""

    @staticmethod
    def of(one: Slice) -> str:
        """The scan of a slice as a data URI."""
        return _uri("image/webp", one.scan)


@dataclass(frozen=True)
class _Task:
    anchor: str
    title: str
    result: TaskResult
    picture: _Picture
    pairs: tuple[Pair, ...]
    groups: tuple[Group, ...]
    regions: tuple[Pair, ...]
    unit: str
    whole: str
    made: Mapping[str, Sequence[tuple[str, str]]]
    lesions: LesionView | None = None

    @property
    def share(self) -> str:
        """What volumes are a percentage of, for the head of a column."""
        return "ICV" if self.whole.startswith("intracranial") else "brain"

    @property
    def many(self) -> bool:
        """Whether there are too many structures to be read at once."""
        return sum(len(pair.rows) for pair in self.pairs) > _MANY

    @property
    def regions_unit(self) -> str:
        """Of the volumes of regions."""
        return unit_of(self.result.regions)[1]


@dataclass(frozen=True)
class _Session:
    anchor: str
    title: str
    result: SessionResult
    tasks: tuple[_Task, ...]
    scenes: tuple[Scene, ...]
    alignment: _Picture | None

    @property
    def maps(self) -> list[ViewerMap]:
        """The label maps of the viewer, over all its scans."""
        return [one for scene in self.scenes for one in scene.maps]

    @property
    def places(self) -> list[dict[str, Any]]:
        """For the viewer's script: on which scan each label map lies, and its structures."""
        masks = {task.result.task for task in self.tasks if task.result.spec.brain_mask}
        return [
            {
                "task": one.task,
                "mask": one.task in masks,
                "scan": number,
                "places": [asdict(place) for place in one.places],
            }
            for number, scene in enumerate(self.scenes)
            for one in scene.maps
        ]


@dataclass(frozen=True)
class _Changes:
    title: str
    unit: str
    sessions: tuple[str, ...]
    rows: tuple[Change, ...]
    unordered: str
    regions: bool = False

    @property
    def many(self) -> bool:
        """Whether there are too many structures to be read at once."""
        return len(self.rows) > _MANY and not self.regions


_Read = Callable[[Path], Volume]


def _sessions(results: Sequence[SessionResult]) -> list[_Session]:
    drawn = sum(task.finished for result in results for task in result.tasks)
    drawn += sum(result.alignment is not None for result in results)
    drawn += sum(task.lesions is not None for result in results for task in result.tasks)
    limit = _PICTURE_BUDGET // max(drawn, 1)
    return [
        _session(result, number, limit, _VIEWER_BUDGET // len(results))
        for number, result in enumerate(results, start=1)
    ]


def _session(result: SessionResult, number: int, limit: int, viewer_limit: int) -> _Session:
    label = (result.session or "").removeprefix("ses-")
    anchor = f"{number}-{_slug(label or 'session')}"
    # the tasks of a session share their scans; to draw one, any header will do
    read = lru_cache(maxsize=2)(partial(read_volume, force_header=True))
    scenes = _scenes(result, read, viewer_limit)
    tasks = []
    for task in result.tasks:
        picture, labels = _picture(task, read, limit) if task.finished else (_Picture(), None)
        made = _task(task, f"{anchor}-{_slug(task.task)}", picture)
        tasks.append(replace(made, lesions=_lesions(task, labels, read, limit)))
        if labels and task.table and task.image in scenes:
            scenes[task.image] = scenes[task.image].and_map(task.task, labels, task.table)
    title = f"Session {label}" if label else "Session"
    alignment = _aligned(result.alignment, read, limit) if result.alignment else None
    return _Session(anchor, title, result, tuple(tasks), tuple(scenes.values()), alignment)


def _task(result: TaskResult, anchor: str, picture: _Picture) -> _Task:
    title = result.spec.title
    scale, unit = unit_of(result.rows)
    pairs = paired(result.rows, result.table, result.standing, scale)
    groups = grouped(pairs, result.composition)
    regions = paired(result.regions, None, result.standing, unit_of(result.regions)[0])
    whole = "intracranial volume" if is_of_icv(result.rows) else "brain volume"
    return _Task(
        anchor, title, result, picture, pairs, groups, regions, unit, whole,
        _made(result.provenance),
    )  # fmt: skip


def _made(provenance: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """By what a label map was made: names and values, as far as its sidecar is one of ours."""

    def entries(key: str) -> list[tuple[str, Any]]:
        tree = provenance.get(key)
        return list(tree.items()) if isinstance(tree, Mapping) else []

    models = [(name, one) for name, one in entries("Models") if isinstance(one, Mapping)]
    return {
        "software": [(name, str(value)) for name, value in entries("Software")],
        "models": [(f"{name} {one.get('Version', '')}", str(one.get("SHA256", "")))
                   for name, one in models],
        "parameters": [(name, str(value)) for name, value in entries("Parameters")],
        "inputs": [(name, str(value)) for name, value in entries("InputSHA256")],
    }  # fmt: skip


def _picture(result: TaskResult, read: _Read, limit: int) -> tuple[_Picture, LabelMap | None]:
    """A task's picture, and the label map in it."""
    if result.image is None or result.dseg is None or result.table is None:
        return _Picture(problem="the scan or its label map is unknown"), None
    try:
        labels = read_labels(result.dseg)
    except DeepMRSegError as error:
        return _Picture(problem=str(error)), None
    style = result.spec.figure
    try:
        volume = read(result.image)
    except DeepMRSegError as error:  # the scan has gone: its labels are still worth a look
        volume = Volume(np.zeros(labels.grid.shape, np.float32), labels.grid)
        slices = draw_slices(volume, labels, result.table, style=style, limit=limit)
        scan = f"Contours without the scan, which cannot be read ({error})"
        return _Picture(slices=slices, scan=scan), None
    slices = draw_slices(volume, labels, result.table, style=style, limit=limit)
    shape = " x ".join(str(edge) for edge in volume.grid.shape)
    spacing = " x ".join(f"{edge:.2f}" for edge in volume.grid.spacing)
    scan = f"{result.image.name}: {shape} voxels of {spacing} mm, {volume.grid.orientation}"
    return _Picture(slices=slices, scan=scan), labels


def _lesions(
    result: TaskResult, labels: LabelMap | None, read: _Read, limit: int
) -> LesionView | None:
    """The single lesions of a task; None where their table or the scan cannot be read."""
    if result.lesions is None or result.image is None or labels is None:
        return None
    try:
        facts = read_json(Path(sidecar_path(result.lesions)))
    except (OSError, ValueError):
        facts = {}
    return lesion_view(
        result.lesions, facts, read(result.image), labels, style=result.spec.figure, limit=limit
    )


def _scenes(result: SessionResult, read: _Read, limit: int) -> dict[Path | None, Scene]:
    """What the viewer shows of each scan; of one that cannot be read, its picture tells."""
    images = dict.fromkeys(task.image for task in result.tasks if task.finished and task.image)
    scenes: dict[Path | None, Scene] = {}
    for image in images:
        with suppress(DeepMRSegError):
            if scene := make_scene(read(image), limit=limit // len(images)):
                scenes[image] = scene
    return scenes


def _aligned(alignment: Alignment, read: _Read, limit: int) -> _Picture:
    try:
        fixed, moving = read(alignment.fixed), read(alignment.moving)
    except DeepMRSegError as error:
        return _Picture(problem=str(error))
    data = alignment_figure(fixed, moving, np.array(alignment.matrix), limit=limit)
    return _Picture(
        _uri("image/webp", data), scan=f"{alignment.fixed.name}, {alignment.moving.name}"
    )


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _changes(results: Sequence[SessionResult], visits: Visits) -> list[_Changes]:
    """For each task that several sessions have, its regions and structures over the sessions.

    Where the order of the sessions is not known, no change is given.
    """
    found = []
    for name in _task_names(results):
        done = [
            (_session_id(result), task)
            for result in results
            for task in result.tasks
            if task.task == name and task.rows
        ]
        if len(done) > 1:
            title, last = _titles(results)[name], done[-1][1]
            regions = [(session, task.regions) for session, task in done]
            if last.regions:
                found.append(_change_of(f"{title}: regions", regions, None, visits, regions=True))
            rows = [(session, task.rows) for session, task in done]
            found.append(_change_of(title, rows, last.table, visits))
    return found


def _change_of(
    title: str,
    done: Sequence[tuple[str, Sequence[MorphRow]]],
    table: LabelTable | None,
    visits: Visits,
    *,
    regions: bool = False,
) -> _Changes:
    """The volumes of some sessions beside each other, with the change from first to last."""
    sessions = [session for session, _ in done]
    unordered = visits.among(sessions).reason
    scale, unit = unit_of(done[-1][1])
    rows = changes([volumes for _, volumes in done], table, scale, ordered=not unordered)
    labels = tuple(session.removeprefix("ses-") for session in sessions)
    return _Changes(title, unit, labels, rows, unordered, regions)


def _session_id(result: SessionResult) -> str:
    """With ``ses-``; empty without sessions."""
    label = (result.session or "").removeprefix("ses-")
    return f"ses-{label}" if label else ""


def _counts(results: Sequence[SessionResult]) -> Counter[str]:
    """How many tasks have each status, and how many findings each severity."""
    counts = Counter("done" if task.finished else task.status for r in results for task in r.tasks)
    counts.update(finding.severity for result in results for finding in result.findings)
    counts["sessions"] = len(results)
    return counts


def _task_names(results: Sequence[SessionResult]) -> list[str]:
    return list(dict.fromkeys(task.task for result in results for task in result.tasks))


def _titles(results: Sequence[SessionResult]) -> dict[str, str]:
    """The title of each task."""
    return {task.task: task.spec.title for result in results for task in result.tasks}


def _methods(results: Sequence[SessionResult], models: Mapping[str, str]) -> list[str]:
    """A paragraph for each task that was done in some session: what its bundles say of it."""
    texts = []
    for name in _task_names(results):
        done = [t for r in results for t in r.tasks if t.task == name and t.finished]
        if done:
            known = (t.provenance["Methods"] for t in done if _has_methods(t))
            facts: Mapping[str, Any] = next(known, {})
            model = f" (model {models[name]})." if name in models else "."
            text = str(facts.get("Text") or done[0].spec.methods or f"{done[0].spec.title}.")
            texts.append(f"{done[0].spec.title}: {text.removesuffix('.')}{model}")
    return texts


def _credits(results: Sequence[SessionResult]) -> dict[str, dict[str, str]]:
    """For each model that ran, what its bundle says of its data and its terms."""
    stated: dict[str, dict[str, str]] = {}
    for task in (task for result in results for task in result.tasks):
        models = task.provenance["Methods"].get("Models") if _has_methods(task) else None
        for model, facts in models.items() if isinstance(models, Mapping) else ():
            if isinstance(facts, Mapping):
                stated.setdefault(model, {key: str(value) for key, value in facts.items()})
    return stated


def _citation(
    results: Sequence[SessionResult], version: str, models: Mapping[str, str]
) -> Citation:
    """References, and the registration, of what was done in some session."""
    tasks = []
    for name in _task_names(results):
        done = [t for r in results for t in r.tasks if t.task == name and t.finished]
        if done:
            known = (t.provenance["Methods"] for t in done if _has_methods(t))
            facts: Mapping[str, Any] = next(known, {})
            paired = any("Registration" in task.provenance for task in done)
            tasks.append(TaskMethods(done[0].spec.title, facts, models.get(name, ""), paired))
    return Citation(version, _torch(results), tasks)


def _has_methods(task: TaskResult) -> bool:
    return isinstance(task.provenance.get("Methods"), Mapping)


def _rows(results: Sequence[SessionResult]) -> list[MorphRow]:
    return [row for result in results for task in result.tasks for row in task.rows]


def _torch(results: Sequence[SessionResult]) -> str:
    """The versions of torch that made the label maps."""
    made = [task.provenance.get("Software") for result in results for task in result.tasks]
    versions = {str(one["torch"]) for one in made if isinstance(one, dict) and "torch" in one}
    return ", ".join(sorted(versions))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-") or "x"
