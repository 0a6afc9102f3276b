"""The tables that we write, with the JSON beside them: of a session, and the log of all."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmrseg_bids.bids.names import sidecar_path
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import write_json, write_text
from deepmrseg_bids.tasks.lesion_change import BORDER_MM, Change
from deepmrseg_bids.tasks.lesion_change import STATUSES as STATUSES_OF_LESIONS
from deepmrseg_bids.tasks.lesions import (
    CORTEX_LABEL_MM,
    CORTEX_MM,
    PLACES,
    VENTRICLE_MM,
    Lesion,
)
from deepmrseg_bids.tsv import NOT_KNOWN, cell, frame_text, number_of, read_tsv, tsv_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "CHANGE_COLUMNS",
    "LESION_COLUMNS",
    "MORPH_COLUMNS",
    "MorphRow",
    "SessionRow",
    "read_changes",
    "read_lesions",
    "read_morph",
    "read_sessions",
    "write_changes",
    "write_lesions",
    "write_morph",
    "write_sessions",
    "write_table",
]

STATUSES = ("done", "resumed", "skipped", "failed")
_SESSION_COLUMNS = (
    "participant_id", "session_id", "task", "status", "reason", "seconds", "peak_mib", "findings",
    "source",
)  # fmt: skip
_ABOUT_SESSIONS: dict[str, dict[str, Any]] = {
    "participant_id": {"Description": "Participant, with sub-"},
    "session_id": {"Description": "Session, with ses-; n/a if the data set has no sessions"},
    "task": {"Description": "Task, or output space"},
    "status": {
        "Description": "Status of the task in the last run that requested it",
        "Levels": {
            "done": "completed by this run",
            "resumed": "completed by an earlier run",
            "skipped": "an input or a model is missing",
            "failed": "could not be completed",
        },
    },
    "reason": {"Description": "Reason, if it was not completed"},
    "seconds": {
        "Description": "Time; steps that tasks share are counted for the first of them",
        "Units": "s",
    },
    "peak_mib": {
        "Description": "Peak memory of the process since the start of the session",
        "Units": "MiB",
    },
    "findings": {"Description": "severity:code of each finding, most severe first"},
    "source": {"Description": "Image of which there is a result, without its suffix"},
}
_COUNT, _FLOOR = "lesion_count", "volume_floor_mm3"
_OF_ICV, _OF_BRAIN = "volume_icv_percent", "volume_brain_percent"
_DECIMALS = {
    "volume_mm3": 2,
    "volume_low_mm3": 2,
    "volume_high_mm3": 2,
    _OF_ICV: 5,
    _OF_BRAIN: 5,
    "confidence": 4,
    _FLOOR: 2,
}
MORPH_COLUMNS: dict[str, dict[str, str]] = {
    "index": {"Description": "Label value of the structure in the label map"},
    "name": {"Description": "Name of the structure"},
    "volume_mm3": {"Description": "Volume of the structure", "Units": "mm^3"},
    "volume_low_mm3": {
        "Description": "Lower bound of the 90 % interval of the volume",
        "Units": "mm^3",
    },
    "volume_high_mm3": {
        "Description": "Upper bound of the 90 % interval of the volume",
        "Units": "mm^3",
    },
    _OF_ICV: {
        "Description": "Volume as a percentage of the intracranial volume, DenominatorVolume in "
        "mm^3; n/a without a skull",
        "Units": "percent",
    },
    _OF_BRAIN: {
        "Description": "Volume as a percentage of the volume of the brain mask, "
        "DenominatorVolume in mm^3",
        "Units": "percent",
    },
    "confidence": {
        "Description": "Confidence: Dice predicted from the posteriors of the network, 0 to 1"
    },
    _COUNT: {"Description": "Number of lesions (connected components)"},
    _FLOOR: {
        "Description": "Floor of the model: smaller volumes are not distinguishable from none",
        "Units": "mm^3",
    },
}
LESION_COLUMNS: dict[str, dict[str, Any]] = {
    "index": {"Description": "Number of the lesion, starting with the largest"},
    "volume_mm3": {"Description": "Volume on the grid of the FLAIR", "Units": "mm^3"},
    "x_mm": {
        "Description": "Centre of mass, towards the right, in the space of the FLAIR",
        "Units": "mm",
    },
    "y_mm": {
        "Description": "Centre of mass, towards anterior, in the space of the FLAIR",
        "Units": "mm",
    },
    "z_mm": {
        "Description": "Centre of mass, towards superior, in the space of the FLAIR",
        "Units": "mm",
    },
    "location": {
        "Description": "Location of the lesion; n/a if it cannot be determined. LocationSources "
        "names what each landmark was found with",
        "Levels": {
            "infratentorial": "in the brain stem or the cerebellum",
            "periventricular": f"otherwise, at most {VENTRICLE_MM:g} mm from a lateral ventricle",
            "juxtacortical": f"otherwise, at most {CORTEX_LABEL_MM:g} mm from the cortex of a "
            f"label map, or {CORTEX_MM:g} mm from the brain surface or the fluid of a sulcus",
            "deep": "none of these",
        },
    },
    "confidence": {"Description": "Mean probability of its voxels, 0 to 1"},
    "region": {
        "Description": "Side and lobe of the nearest cortex, or part of the brain below the "
        "tentorium; n/a without a label map of the whole brain"
    },
}
CHANGE_COLUMNS: dict[str, dict[str, Any]] = {
    "index": {"Description": "Number of the group of lesions, starting with the largest"},
    "status": {
        "Description": "Change of the lesions since the session before; n/a where the other "
        "scan does not show this part of the brain",
        "Levels": {
            "new": "none before; the interval of the change is above zero",
            "enlarged": "the interval of the change is above zero",
            "unchanged": "the interval of the change contains zero",
            "shrunken": "the interval of the change is below zero",
            "gone": "none now; the interval of the change is below zero",
        },
    },
    "lesions_before": {
        "Description": "Lesions of the session before that belong to the group, by their index in "
        "its table of lesions, with commas between; n/a for none"
    },
    "lesions": {"Description": "The same of this session"},
    "volume_before_mm3": {"Description": "Volume in the session before", "Units": "mm^3"},
    "volume_mm3": {"Description": "Volume in this session", "Units": "mm^3"},
    "change_mm3": {"Description": "Change of the volume", "Units": "mm^3"},
    "change_low_mm3": {
        "Description": f"Lower bound of the 90 % interval of the change, for an error of "
        f"{BORDER_MM:g} mm (standard deviation) of the border of each lesion",
        "Units": "mm^3",
    },
    "change_high_mm3": {"Description": "Upper bound of the interval", "Units": "mm^3"},
    **{column: LESION_COLUMNS[column] for column in ("x_mm", "y_mm", "z_mm")},
}
_PLAIN = re.compile(r"\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII)
_REDO = "remove the file and run the session again"
_REQUIRED = tuple(key for key in MORPH_COLUMNS if key not in (_COUNT, _FLOOR, _OF_BRAIN))


@dataclass(frozen=True, slots=True)
class MorphRow:
    """One structure of one session; None where something is not known.

    Attributes:
        volume_low_mm3, volume_high_mm3: the ends of the 90 % interval.
        volume_icv_percent: relative to the intracranial volume, 0 to 100.
        volume_brain_percent: relative to the brain mask.
        confidence: the Dice that the posteriors promise, 0 to 1.
        lesion_count: for lesions only; the column is there if any row has it.
        volume_floor_mm3: smaller volumes are not distinguishable from none; as lesion_count.
    """

    index: int
    name: str
    volume_mm3: float
    volume_low_mm3: float | None
    volume_high_mm3: float | None
    volume_icv_percent: float | None
    confidence: float | None
    lesion_count: int | None = None
    volume_floor_mm3: float | None = None
    volume_brain_percent: float | None = None

    @property
    def below_floor(self) -> bool:
        """Whether the volume is not distinguishable from none."""
        return self.volume_floor_mm3 is not None and self.volume_mm3 < self.volume_floor_mm3


@dataclass(frozen=True)
class SessionRow:
    """What became of one task of one session; a line of ``logs/sessions.tsv``.

    Attributes:
        participant_id: with ``sub-``.
        session_id: with ``ses-``; empty without sessions.
        status: done, resumed, skipped or failed.
        reason: one line; line breaks and tabs become spaces.
        findings: their tags, worst first, with a comma between them.
        source: the stem of the image that the result is named after; empty without a result.
    """

    participant_id: str
    session_id: str
    task: str
    status: str
    reason: str = ""
    seconds: float | None = None
    peak_mib: float | None = None
    findings: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"a status is one of {', '.join(STATUSES)}; got {self.status!r}")
        object.__setattr__(self, "reason", " ".join(self.reason.split()))


def write_table(path: Path, columns: Mapping[str, Any], table: pd.DataFrame, **more: Any) -> None:
    """Write a table, and beside it the JSON that describes its columns.

    Volumes have two decimals, other fractions five; what is not known or empty is ``n/a``.

    Args:
        columns: what the JSON says of each; None for nothing. Of the table these are written,
            in this order; those that it lacks are ``n/a``.
        more: what else it says.
    """
    decimals = {column: _places(column, facts) for column, facts in columns.items()}
    described = {column: facts for column, facts in columns.items() if facts is not None}
    # first the JSON: a table without one is not ours, and is not replaced
    write_json(Path(sidecar_path(path)), {**described, **more})
    write_text(path, frame_text(table.reindex(columns=list(columns)), decimals))


def _places(column: str, facts: Any) -> int:
    volume = "mm3" in column or (isinstance(facts, Mapping) and facts.get("Units") == "mm^3")
    return 2 if volume else 5


def write_morph(
    path: str | os.PathLike[str],
    rows: Sequence[MorphRow],
    *,
    provenance: Mapping[str, Any] | None = None,
    brain_mm3: float | None = None,
    icv_mm3: float | None = None,
) -> None:
    """Write the volumes of one session, and beside them the JSON that describes the columns.

    Args:
        provenance: what else the JSON says, as from :func:`~.derivatives.sidecar`.
        brain_mm3: the volume that ``volume_brain_percent`` is a percentage of, where it is known.
        icv_mm3: that of ``volume_icv_percent``.
    """
    columns = [key for key in MORPH_COLUMNS if key not in (_COUNT, _FLOOR)]
    columns += [
        column for column in (_COUNT, _FLOOR)
        if any(getattr(row, column) is not None for row in rows)
    ]  # fmt: skip
    lines = [[cell(getattr(row, column), _DECIMALS.get(column)) for column in columns]
             for row in rows]  # fmt: skip
    meaning: dict[str, dict[str, Any]] = {column: MORPH_COLUMNS[column] for column in columns}
    for column, whole in ((_OF_ICV, icv_mm3), (_OF_BRAIN, brain_mm3)):
        if whole is not None:
            meaning[column] = {**meaning[column], "DenominatorVolume": round(whole, 2)}
    write_json(sidecar_path(path), {**(provenance or {}), **meaning})
    write_text(path, tsv_text(columns, lines))


def read_morph(
    path: str | os.PathLike[str], *, labels: Sequence[tuple[int, str]] = ()
) -> list[MorphRow]:
    """Read what :func:`write_morph` wrote.

    Args:
        labels: what the rows must be about, where that is known: index and name of each label.

    Raises:
        DatasetError: missing, half-written, or not such a table; a value that no volume has, a
            structure twice, or one of the labels is missing.
    """
    path = Path(path)
    table = read_tsv(path)
    missing = [column for column in _REQUIRED if column not in table.columns]
    if missing:
        raise DatasetError(
            f"{path}: damaged or not a table of volumes, it lacks {', '.join(missing)}; {_REDO}"
        )
    rows: list[MorphRow] = []
    seen: set[int | str] = set()
    for line, cells in zip(table.lines, table.rows, strict=True):
        try:
            row = _morph_row(cells)
            if not seen.isdisjoint((row.index, row.name)):
                raise ValueError(f"{row.index} {row.name} occurs twice")
        except ValueError as error:
            raise DatasetError(f"{path}, line {line}: {error}; {_REDO}") from error
        rows.append(row)
        seen |= {row.index, row.name}
    structures = {(row.index, row.name) for row in rows}
    lost = [name for index, name in labels if (index, name) not in structures]
    if lost and structures <= set(labels):  # rows of other labels are a table of another model
        raise DatasetError(
            f"{path}: damaged, it ends early: {', '.join(lost)} {_is(lost)} missing; {_REDO}"
        )
    return rows


def write_lesions(
    path: str | os.PathLike[str],
    lesions: Sequence[Lesion],
    *,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the single lesions of one session, and the JSON that describes the columns.

    Args:
        provenance: what else the JSON says, as from :func:`~.derivatives.sidecar`.
    """
    lines = [
        [str(one.index), cell(one.volume_mm3, 2), *(cell(mm, 1) for mm in one.centre),
         one.place or NOT_KNOWN, cell(one.confidence, 4), one.region or NOT_KNOWN]
        for one in lesions
    ]  # fmt: skip
    write_text(path, tsv_text(list(LESION_COLUMNS), lines))
    write_json(sidecar_path(path), {**(provenance or {}), **LESION_COLUMNS})


def read_lesions(path: str | os.PathLike[str]) -> list[Lesion]:
    """Read what :func:`write_lesions` wrote, also before it wrote regions.

    Raises:
        DatasetError: missing, half-written, or not such a table.
    """
    path = Path(path)
    table = read_tsv(path)
    missing = [name for name in LESION_COLUMNS if name not in (*table.columns, "region")]
    if missing:
        raise DatasetError(f"{path}: not a table of lesions, it lacks {', '.join(missing)}")
    try:
        return [_lesion(row) for row in table.rows]
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error


def _lesion(row: Mapping[str, str]) -> Lesion:
    location = row["location"]
    place = next((one for one in PLACES if one == location), None)
    if place is None and location != NOT_KNOWN:
        raise ValueError(f"{location!r} is no location of a lesion")
    return Lesion(
        int(row["index"]),
        _measured(row, "volume_mm3", needed=True) or 0.0,
        (float(row["x_mm"]), float(row["y_mm"]), float(row["z_mm"])),
        place,
        _measured(row, "confidence", needed=True, most=1.0) or 0.0,
        _text(row.get("region", NOT_KNOWN)),
    )


def write_changes(
    path: str | os.PathLike[str],
    changes: Sequence[Change],
    *,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the lesions of a session against the one before, and the JSON for the columns.

    Args:
        provenance: what else the JSON says, as from :func:`~.derivatives.sidecar`.
    """
    lines = [
        [str(number), one.status or NOT_KNOWN, _joined(one.before), _joined(one.after),
         *(cell(mm3, 2) for mm3 in (one.before_mm3, one.after_mm3, one.change_mm3, one.low_mm3,
                                    one.high_mm3)),
         *(cell(mm, 1) for mm in one.centre)]
        for number, one in enumerate(changes, start=1)
    ]  # fmt: skip
    write_text(path, tsv_text(list(CHANGE_COLUMNS), lines))
    write_json(sidecar_path(path), {**(provenance or {}), **CHANGE_COLUMNS})


def read_changes(path: str | os.PathLike[str]) -> list[Change]:
    """Read what :func:`write_changes` wrote.

    Raises:
        DatasetError: missing, half-written, or not such a table.
    """
    path = Path(path)
    table = read_tsv(path)
    if table.columns != tuple(CHANGE_COLUMNS):
        raise DatasetError(f"{path}: not a table of changes; expected {tuple(CHANGE_COLUMNS)}")
    try:
        return [_change(row) for row in table.rows]
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error


def _change(row: Mapping[str, str]) -> Change:
    status = next((one for one in STATUSES_OF_LESIONS if one == row["status"]), None)
    return Change(
        status,
        _split(row["lesions_before"]),
        _split(row["lesions"]),
        float(row["volume_before_mm3"]),
        float(row["volume_mm3"]),
        float(row["change_low_mm3"]),
        float(row["change_high_mm3"]),
        (float(row["x_mm"]), float(row["y_mm"]), float(row["z_mm"])),
    )


def _joined(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers)) or NOT_KNOWN


def _split(cell: str) -> tuple[int, ...]:
    return () if cell == NOT_KNOWN else tuple(int(number) for number in cell.split(","))


def write_sessions(path: str | os.PathLike[str], rows: Iterable[SessionRow]) -> None:
    """Write ``logs/sessions.tsv``, in the order given."""
    lines = [
        [row.participant_id, row.session_id or "n/a", row.task, row.status, row.reason or "n/a",
         cell(row.seconds, 1), cell(row.peak_mib, 0), row.findings or "n/a",
         row.source or "n/a"]
        for row in rows
    ]  # fmt: skip
    write_text(path, tsv_text(_SESSION_COLUMNS, lines))
    sidecar = Path(path).with_suffix(".json")
    if not sidecar.exists():  # the table is written often
        write_json(sidecar, _ABOUT_SESSIONS)


def read_sessions(path: str | os.PathLike[str]) -> list[SessionRow]:
    """Read what :func:`write_sessions` wrote.

    Raises:
        DatasetError: missing, half-written, or not such a table.
    """
    path = Path(path)
    table = read_tsv(path)
    known = [_SESSION_COLUMNS[:number] for number in (-2, -1, None)]  # the last came later
    if table.columns not in known:
        raise DatasetError(f"{path}: not a log of sessions; expected {_SESSION_COLUMNS}")
    try:
        return [
            SessionRow(
                row["participant_id"], _text(row["session_id"]), row["task"], row["status"],
                _text(row["reason"]), number_of(row["seconds"]), number_of(row["peak_mib"]),
                _text(row.get("findings", NOT_KNOWN)), _text(row.get("source", NOT_KNOWN)),
            )
            for row in table.rows
        ]  # fmt: skip
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error


def _morph_row(row: Mapping[str, str]) -> MorphRow:
    count = number_of(row.get(_COUNT, NOT_KNOWN))
    of_icv, of_brain = _measured(row, _OF_ICV), None
    if _OF_BRAIN in row:
        of_brain = _measured(row, _OF_BRAIN)
    else:  # before version 0.3 the share of the brain had the other name
        of_icv, of_brain = None, of_icv
    found = MorphRow(
        int(row["index"]) if _PLAIN.fullmatch(row["index"]) else 0,
        row["name"],
        _measured(row, "volume_mm3", needed=True) or 0.0,
        _measured(row, "volume_low_mm3"),
        _measured(row, "volume_high_mm3"),
        of_icv,
        _measured(row, "confidence", most=1.0),
        None if count is None else int(count),
        _measured(row, _FLOOR) if _FLOOR in row else None,
        of_brain,
    )
    if found.index < 1 or found.name in ("", NOT_KNOWN):
        raise ValueError(f"a structure has an index from 1 on and a name, got {row['index']!r} "
                         f"{row['name']!r}")  # fmt: skip
    low, high = found.volume_low_mm3, found.volume_high_mm3
    if low is not None and high is not None and low > high:
        raise ValueError(f"volume_low_mm3 {low:g} is above volume_high_mm3 {high:g}")
    if count is not None and not (count >= 0 and count.is_integer()):
        raise ValueError(f"{_COUNT} is a whole number, got {row[_COUNT]!r}")
    return found


def _measured(
    row: Mapping[str, str], column: str, *, most: float = math.inf, needed: bool = False
) -> float | None:
    """A cell that is a number from 0 on; None for ``n/a``."""
    text = row[column]
    if text == NOT_KNOWN:
        if needed:
            raise ValueError(f"no {column}")
        return None
    value = float(text) if _PLAIN.fullmatch(text) else math.nan
    if not 0 <= value <= most or math.isinf(value):
        limit = f"from 0 to {most:g}" if math.isfinite(most) else "of at least 0"
        raise ValueError(f"{column} is a number {limit}, got {text!r}")
    return value


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _text(cell: str) -> str:
    return "" if cell == NOT_KNOWN else cell
