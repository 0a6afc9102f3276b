"""What the group report shows: the tables of the group level, arranged in columns.

Every column has one value for each session, in the order of ``group_qc.tsv``, so that the report
can filter them all in the same way.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from deepmrseg_bids.bids.names import group_path, report_path
from deepmrseg_bids.bids.norms import Norms
from deepmrseg_bids.bids.ratings import Rating
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.group.columns import MISSING, QC, RATED
from deepmrseg_bids.tsv import read_columns, read_tsv, tsv_text

__all__ = [
    "Agreement",
    "Cohort",
    "Matrix",
    "Reason",
    "Table",
    "TaskTables",
    "payload",
    "read_cohort",
    "readable",
    "titled",
]

Columns = Mapping[str, Sequence[str]]
Numbers = tuple[float | None, ...]
_MEASURES = {
    "volume_mm3": ("Volume", "mm³"),
    "volume_icv_percent": ("Percentage of intracranial volume", "%"),
    "volume_brain_percent": ("Percentage of brain volume", "%"),
    "volume_residual_mm3": ("Volume adjusted for head size (residual method)", "mm³"),
    "confidence": ("Confidence", "0 to 1"),
    "z_adjusted": ("z adjusted for age, sex and head size", "robust SD"),
    "volume_harmonised_mm3": ("Volume harmonised over sites (ComBat)", "mm³"),
    "norm_centile": ("Centile of the reference (--norms)", "0 to 100"),
    "deviation": ("Robust z (deviation from the median of all sessions)", "robust SD"),
}
_SCORES = ("f1", "hd95_mm", "asd_mm", "volume_mm3", "reference_volume_mm3")


@dataclass(frozen=True)
class Table:
    """A table to show as it is: one row a structure or so.

    Attributes:
        name: of its file.
        rows: cells as they stand in the file.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def known(self) -> Table:
        """The same without columns that are n/a in all rows."""
        kept = [k for k in range(len(self.columns)) if any(row[k] != "n/a" for row in self.rows)]
        rows = tuple(tuple(row[k] for k in kept) for row in self.rows)
        return Table(self.name, tuple(self.columns[k] for k in kept), rows)

    @property
    def text(self) -> str:
        """The file."""
        return tsv_text(self.columns, self.rows)


@dataclass(frozen=True)
class Matrix:
    """One measure of several structures in all sessions.

    Attributes:
        names: the structures.
        values: for each structure, one number a session; None where it is not known.
    """

    key: str
    title: str
    unit: str
    names: tuple[str, ...]
    values: tuple[Numbers, ...]


@dataclass(frozen=True)
class Agreement:
    """How one task agrees with one reference: per session, and over all.

    Attributes:
        scores: ``f1``, ``volume_mm3`` and so on, of the structures ``names``.
        summary: what ``group_seg-<task>_agreement_summary.tsv`` says of each structure.
    """

    reference: str
    names: tuple[str, ...]
    scores: tuple[Matrix, ...]
    summary: Mapping[str, Mapping[str, float | None]]
    resampled: int


@dataclass(frozen=True)
class TaskTables:
    """What is known of one task.

    Attributes:
        change: from the first to the last session of a person, with its bounds, in percent; at
            the last session.
    """

    task: str
    measures: tuple[Matrix, ...]
    agreements: tuple[Agreement, ...] = ()
    tables: tuple[Table, ...] = ()
    change: tuple[Matrix, ...] = ()


@dataclass(frozen=True)
class Reason:
    """Something that happened to sessions: how many, and who the first of them are."""

    kind: str
    text: str
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Cohort:
    """All sessions of a study.

    Attributes:
        keys: participant_id and session_id; the latter is empty without sessions.
        qc: the other columns of ``group_qc.tsv``; empty where it says n/a.
        people: the columns of participants.tsv and sessions.tsv; empty where they say n/a.
        pages: the page of each session's subject, relative to OUT_DIR; empty if there is none.
        problems: tables that could not be used, one line each.
        files: the tables that lie beside the page.
        raters: how far raters agree.
        ratings: that were given.
        years, visits: of sessions whose place in time is known: since the first one of the
            person, and from 1.
        norms: reference centiles.
    """

    keys: tuple[tuple[str, str], ...]
    qc: Mapping[str, tuple[str, ...]]
    people: Mapping[str, tuple[str, ...]]
    pages: tuple[str, ...]
    tasks: tuple[TaskTables, ...]
    problems: tuple[str, ...] = ()
    files: tuple[str, ...] = field(default=())
    raters: Table | None = None
    ratings: tuple[Rating, ...] = ()
    years: Numbers = ()
    visits: tuple[int | None, ...] = ()
    norms: Norms | None = None

    def statuses(self) -> dict[str, Counter[str]]:
        """For each task that was asked for, how many sessions are done, failed and so on."""
        found = {}
        for column, cells in self.qc.items():
            task, _, kind = column.rpartition("_")
            if kind == "status" and any(cells):
                found[task] = Counter(cell or "not requested" for cell in cells)
        return found

    def reasons(self) -> list[Reason]:
        """Why tasks failed or were skipped, what is most frequent first."""
        tasks = "|".join(c.removesuffix("_status") for c in self.qc if c.endswith("_status"))
        return self._counted(self.qc.get("reasons", ()), f"; (?=(?:{tasks}): )", ": ")

    def findings(self) -> list[Reason]:
        """The findings by severity and code, the most severe first."""
        order = {"error": 0, "warning": 1, "info": 2}
        found = self._counted(self.qc.get("findings", ()), ",", ":")
        return sorted(found, key=lambda one: (order.get(one.kind, 3), -one.count))

    def _counted(self, cells: Iterable[str], between: str, after: str) -> list[Reason]:
        who: dict[tuple[str, str], list[str]] = {}
        for key, cell in zip(self.keys, cells, strict=False):
            for part in dict.fromkeys(filter(None, re.split(between, cell))):
                kind, mark, text = part.partition(after)
                what = (kind, text) if mark else ("", kind)
                who.setdefault(what, []).append(" ".join(key).strip())
        found = [
            Reason(kind, text, len(names), tuple(names[:5])) for (kind, text), names in who.items()
        ]
        return sorted(found, key=lambda one: -one.count)


def read_cohort(out_dir: Path, tasks: Sequence[str]) -> Cohort:
    """The tables that the group level has written into OUT_DIR.

    A table that cannot be read costs itself alone, and is named in ``problems``.

    Raises:
        DatasetError: there is no ``group_qc.tsv``.
    """
    table = read_tsv(out_dir / "group_qc.tsv")
    columns, rows = table.columns, table.rows
    keys = tuple((row["participant_id"], _known(row["session_id"])) for row in rows)
    place = {key: number for number, key in enumerate(keys)}
    reader = _Reader(out_dir, place, [], [])
    qc = {c: tuple(_known(row[c]) for row in rows) for c in columns[2:]
          if c in QC or c.endswith("_status")}  # fmt: skip
    found = tuple(one for task in tasks if (one := _task(reader, task)) is not None)
    people = _people(reader, [one.task for one in found], found)
    there = {path.name for path in out_dir.glob("sub-*.html")}
    pages = tuple(
        page if (page := str(report_path(participant))) in there else "" for participant, _ in keys
    )
    raters = reader.table("", "", "group_ratings_agreement.tsv")
    reader.columns("", "", "group_ratings.tsv")
    files = ("group_qc.tsv", *reader.files)
    return Cohort(keys, qc, people, pages, found, tuple(reader.problems), files, raters)


@dataclass(frozen=True)
class _Reader:
    """Tables of OUT_DIR whose rows are about sessions."""

    out_dir: Path
    place: Mapping[tuple[str, str], int]
    problems: list[str]
    files: list[str]

    def columns(self, task: str, table: str, name: str = "") -> Columns:
        """The cells of a table by column; no columns if there is none, or it is damaged."""
        path = self.out_dir / (name or group_path(task, table))
        if not path.is_file():
            return {}
        try:
            read = read_columns(path)
        except DatasetError as error:
            self.problems.append(str(error))
            return {}
        self.files.append(path.name)
        return read

    def table(self, task: str, table: str, name: str = "") -> Table | None:
        columns = self.columns(task, table, name)
        cells = tuple(zip(*columns.values(), strict=True))
        if not cells:
            return None
        return Table(name or group_path(task, table).name, tuple(columns), cells)

    def places(self, columns: Columns, session: str = "session_id") -> list[int | None]:
        """Which of the sessions each row is about; None for one that is not there."""
        keys = zip(columns["participant_id"], map(_known, columns[session]), strict=True)
        return [self.place.get(key) for key in keys]

    def matrices(
        self, columns: Columns, measures: Mapping[str, tuple[str, str]],
        session: str = "session_id",
    ) -> list[Matrix]:  # fmt: skip
        """The measures that hold a number somewhere."""
        if not columns:
            return []
        names = {name: number for number, name in enumerate(dict.fromkeys(columns["name"]))}
        places = self.places(columns, session)
        there = [place is not None for place in places]
        cells = (
            [names[name] for name in compress(columns["name"], there)],
            [place for place in places if place is not None],
        )
        found = []
        for column, (title, unit) in measures.items():
            numbers = [_number(cell) for cell in compress(columns.get(column, ()), there)]
            if any(number is not None for number in numbers):
                values = np.full((len(names), len(self.place)), None, dtype=object)
                values[cells] = numbers
                lines = tuple(map(tuple, values.tolist()))
                found.append(Matrix(column, title, unit, tuple(names), lines))
        return found


def _task(reader: _Reader, task: str) -> TaskTables | None:
    columns = reader.columns(task, "structures")
    if not columns.get("name"):
        return None
    measures = reader.matrices(columns, _MEASURES)
    title = "Asymmetry (left minus right, percent of their mean)"
    columns = reader.columns(task, "asymmetry")
    measures += reader.matrices(columns, {"asymmetry_percent": (title, "%")})
    columns = reader.columns(task, "change")
    title = "Change per year (shown at the last session)"
    measures += reader.matrices(
        columns, {"change_percent_per_year": (title, "% per year")}, "last_session"
    )
    title = "Change from the first to the last session"
    names = ("change_percent", "change_low_percent", "change_high_percent")
    change = reader.matrices(columns, dict.fromkeys(names, (title, "%")), "last_session")
    kept = ("retest", "agreement_summary")
    tables = tuple(table for name in kept if (table := reader.table(task, name)) is not None)
    agreements = _agreements(reader, task, tables)
    return TaskTables(task, tuple(measures), agreements, tables, tuple(change))


def _agreements(reader: _Reader, task: str, tables: Sequence[Table]) -> tuple[Agreement, ...]:
    columns = reader.columns(task, "agreement")
    summaries: dict[str, dict[str, dict[str, float | None]]] = {}
    for table in tables:
        for cells in table.rows if "reference" in table.columns else ():
            row = dict(zip(table.columns, cells, strict=True))
            numbers = {key: _number(cell) for key, cell in row.items()}
            summaries.setdefault(row["reference"], {})[row["name"]] = numbers
    found = []
    references = columns.get("reference", ())
    for reference in dict.fromkeys(references):
        wanted = [one == reference for one in references]
        own = {column: tuple(compress(cells, wanted)) for column, cells in columns.items()}
        scores = reader.matrices(own, {score: (score, "") for score in _SCORES})
        grids = zip(own["sample_id"], own.get("grid", ()), strict=False)
        resampled = len({sample for sample, grid in grids if grid == "resampled"})
        names = tuple(dict.fromkeys(own["name"]))
        summary = summaries.get(reference, {})
        found.append(Agreement(reference, names, tuple(scores), summary, resampled))
    return tuple(found)


def _people(
    reader: _Reader, tasks: Sequence[str], found: Sequence[TaskTables]
) -> dict[str, tuple[str, ...]]:
    """The columns of ``group_seg-<task>_morph.tsv`` that are no structures, from all tasks."""
    people: dict[str, list[str]] = {}
    for task, tables in zip(tasks, found, strict=True):
        columns = reader.columns(task, "morph")
        places = reader.places(columns) if columns else []
        structures = {name for measure in tables.measures for name in measure.names}
        for column in list(columns)[2:]:
            if column in structures or column == MISSING or column in RATED:
                continue
            cells = people.setdefault(column, [""] * len(reader.place))
            for place, cell in zip(places, columns[column], strict=True):
                if place is not None:
                    cells[place] = _known(cell)
    return {column: tuple(cells) for column, cells in people.items()}


def _norms(cohort: Cohort) -> dict[str, Any] | None:
    """The reference centiles of the structures in the report, by structure and sex."""
    if cohort.norms is None:
        return None
    names = {name for task in cohort.tasks for one in task.measures for name in one.names}
    curves: dict[str, dict[str, Any]] = {}
    for (name, sex), curve in cohort.norms.curves.items():
        if name in names:
            curves.setdefault(name, {})[sex] = {
                "ages": curve.ages.tolist(),
                "volumes": curve.volumes.tolist(),
            }
    return {"centiles": list(cohort.norms.centiles), "curves": curves}


def _known(cell: str) -> str:
    return "" if cell == "n/a" else cell


def _number(cell: str) -> float | None:
    if cell == "n/a":
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


_WORDS = {
    "index": "Label", "name": "Structure", "reference": "Reference", "n": "Number",
    "n_volumes": "Number (volumes)", "n_ordered": "Number (known order)", "ccc": "CCC",
    "icc": "ICC", "f1": "Dice", "f2": "F2", "bacc": "Balanced accuracy", "hd95_mm": "HD95",
    "asd_mm": "Surface distance", "volume_difference_mm3": "Absolute volume difference",
    "bias_mm3": "Bias", "limit_low_mm3": "Lower limit of agreement",
    "limit_high_mm3": "Upper limit of agreement", "cv_percent": "Within-subject CV",
    "years_median": "Interval, median", "agreement_percent": "Same rating", "kappa": "Kappa",
    "kappa_weighted": "Kappa, linear weights", "task": "Task", "rater_1": "Rater 1",
    "rater_2": "Rater 2", "lesion_recall": "Lesion recall",
    "lesion_precision": "Lesion precision", "lesion_f1": "Lesion F1",
}  # fmt: skip
_PARTS = {"mean": "mean", "sd": "SD", "low": "95 % CI, lower", "high": "95 % CI, upper"}
_UNITS = (("_mm3", "mm³"), ("_mm", "mm"), ("_percent", "%"), ("years", "years"))


def titled(column: str) -> str:
    """A column of a table of agreement for people, with its unit.

    >>> titled("hd95_mm_mean"), titled("ccc_low"), titled("bias_mm3")
    ('HD95, mean (mm)', 'CCC, 95 % CI, lower', 'Bias (mm³)')
    """
    base, _, part = column.rpartition("_")
    known = column in _WORDS or base not in _WORDS
    text = _WORDS.get(column, column) if known else f"{_WORDS[base]}, {_PARTS.get(part, part)}"
    unit = next((unit for mark, unit in _UNITS if mark in column), "")
    return f"{text} ({unit})" if unit else text


def readable(cell: str) -> str:
    """A number of a table with two decimals, or none where it is large; other text as it is."""
    value = _number(cell)
    if value is None or "." not in cell:
        return cell
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def payload(cohort: Cohort) -> dict[str, Any]:
    """What the script of the page reads."""
    return {
        "participants": [key[0] for key in cohort.keys],
        "sessions": [key[1] for key in cohort.keys],
        "pages": list(cohort.pages),
        "qc": cohort.qc,
        "people": cohort.people,
        "years": list(cohort.years),
        "visits": list(cohort.visits),
        "norms": _norms(cohort),
        "tasks": [
            {
                "task": one.task,
                "measures": [vars(measure) for measure in one.measures],
                "change": {measure.key: vars(measure) for measure in one.change},
                "agreements": [
                    {
                        "reference": agreement.reference,
                        "names": agreement.names,
                        "scores": {score.key: vars(score) for score in agreement.scores},
                        "summary": agreement.summary,
                    }
                    for agreement in one.agreements
                ],
            }
            for one in cohort.tasks
        ],
    }
