"""The tables of OUT_DIR: volumes of one session, of all sessions, and the log of sessions."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmrseg_bids.bids.files import read_json, write_json, write_text
from deepmrseg_bids.bids.names import BidsName, group_path, sidecar_path, strip_prefix
from deepmrseg_bids.errors import DatasetError

__all__ = [
    "MORPH_COLUMNS",
    "GroupTable",
    "MorphRow",
    "SessionRow",
    "group_morph",
    "read_morph",
    "read_sessions",
    "write_morph",
    "write_sessions",
]

STATUSES = ("done", "resumed", "skipped", "failed")
_SESSION_COLUMNS = (
    "participant_id", "session_id", "task", "status", "reason", "seconds", "peak_mib", "findings",
)  # fmt: skip
_COUNT = "lesion_count"
_DECIMALS = {
    "volume_mm3": 2,
    "volume_low_mm3": 2,
    "volume_high_mm3": 2,
    "volume_icv_percent": 5,
    "confidence": 4,
}
MORPH_COLUMNS: dict[str, dict[str, str]] = {
    "index": {"Description": "Number of the structure in the label map"},
    "name": {"Description": "Name of the structure"},
    "volume_mm3": {"Description": "Volume of the structure", "Units": "mm^3"},
    "volume_low_mm3": {
        "Description": "Lower end of the 90 % interval of the volume",
        "Units": "mm^3",
    },
    "volume_high_mm3": {
        "Description": "Upper end of the 90 % interval of the volume",
        "Units": "mm^3",
    },
    "volume_icv_percent": {
        "Description": "Volume relative to the volume of the brain mask",
        "Units": "percent",
    },
    "confidence": {"Description": "Dice that the posteriors of the network promise, 0 to 1"},
    _COUNT: {"Description": "Number of lesions (connected components)"},
}
_REQUIRED = tuple(key for key in MORPH_COLUMNS if key != _COUNT)


@dataclass(frozen=True)
class MorphRow:
    """One structure of one session; None where something is not known.

    Attributes:
        volume_low_mm3, volume_high_mm3: the ends of the 90 % interval.
        volume_icv_percent: relative to the brain mask, 0 to 100.
        confidence: the Dice that the posteriors promise, 0 to 1.
        lesion_count: for lesions only; the column is there if any row has it.
    """

    index: int
    name: str
    volume_mm3: float
    volume_low_mm3: float | None
    volume_high_mm3: float | None
    volume_icv_percent: float | None
    confidence: float | None
    lesion_count: int | None = None


@dataclass(frozen=True)
class SessionRow:
    """What became of one task of one session; a line of ``logs/sessions.tsv``.

    Attributes:
        participant_id: with ``sub-``.
        session_id: with ``ses-``; empty without sessions.
        status: done, resumed, skipped or failed.
        reason: one line; line breaks and tabs become spaces.
        findings: their tags, worst first, with a comma between them.
    """

    participant_id: str
    session_id: str
    task: str
    status: str
    reason: str = ""
    seconds: float | None = None
    peak_mib: float | None = None
    findings: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"a status is one of {', '.join(STATUSES)}; got {self.status!r}")
        object.__setattr__(self, "reason", " ".join(self.reason.split()))


@dataclass(frozen=True)
class GroupTable:
    """What :func:`group_morph` wrote.

    Attributes:
        sessions: how many rows.
        problems: files that could not be used, one line each.
    """

    path: Path
    sessions: int
    problems: tuple[str, ...] = ()


def write_morph(
    path: str | os.PathLike[str],
    rows: Sequence[MorphRow],
    *,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the volumes of one session, and beside them the JSON that describes the columns.

    Args:
        provenance: what else the JSON says, as from :func:`~.derivatives.sidecar`.
    """
    columns = list(_REQUIRED)
    if any(row.lesion_count is not None for row in rows):
        columns.append(_COUNT)
    lines = [[_cell(getattr(row, column), _DECIMALS.get(column)) for column in columns]
             for row in rows]  # fmt: skip
    write_text(path, _tsv(columns, lines))
    meaning = {column: MORPH_COLUMNS[column] for column in columns}
    write_json(sidecar_path(path), {**(provenance or {}), **meaning})


def read_morph(path: str | os.PathLike[str]) -> list[MorphRow]:
    """Read what :func:`write_morph` wrote.

    Raises:
        DatasetError: missing, half-written, or not such a table.
    """
    path = Path(path)
    columns, rows = _read_tsv(path)
    missing = [column for column in _REQUIRED if column not in columns]
    if missing:
        raise DatasetError(f"{path}: not a table of volumes, it lacks {', '.join(missing)}")
    found = []
    for number, row in enumerate(rows, start=2):
        try:
            found.append(_morph_row(row))
        except ValueError as error:
            raise DatasetError(
                f"{path}, row {number}: {error}; remove the file and run the session again"
            ) from error
    return found


def write_sessions(path: str | os.PathLike[str], rows: Iterable[SessionRow]) -> None:
    """Write ``logs/sessions.tsv``, in the order given."""
    lines = [
        [row.participant_id, row.session_id or "n/a", row.task, row.status, row.reason or "n/a",
         _cell(row.seconds, 1), _cell(row.peak_mib, 0), row.findings or "n/a"]
        for row in rows
    ]  # fmt: skip
    write_text(path, _tsv(_SESSION_COLUMNS, lines))


def read_sessions(path: str | os.PathLike[str]) -> list[SessionRow]:
    """Read what :func:`write_sessions` wrote.

    Raises:
        DatasetError: missing, half-written, or not such a table.
    """
    path = Path(path)
    columns, rows = _read_tsv(path)
    if tuple(columns) not in (_SESSION_COLUMNS, _SESSION_COLUMNS[:-1]):  # the last came later
        raise DatasetError(f"{path}: not a log of sessions; expected {_SESSION_COLUMNS}")
    try:
        return [
            SessionRow(
                row["participant_id"], _text(row["session_id"]), row["task"], row["status"],
                _text(row["reason"]), _number(row["seconds"]), _number(row["peak_mib"]),
                _text(row.get("findings", "n/a")),
            )
            for row in rows
        ]  # fmt: skip
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from error


def group_morph(
    out_dir: str | os.PathLike[str], bids_dir: str | os.PathLike[str], task: str
) -> GroupTable:
    """Gather the volumes of all sessions into one table, and write it with its JSON.

    One row a session: participant_id, session_id, the columns of participants.tsv, then the
    volume of each structure in mm^3. What is missing is ``n/a``; a file that cannot be used
    costs its own row alone. A column of participants.tsv that is called like one of ours gets
    ``participants_`` in front.

    Raises:
        DatasetError: no session has volumes of this task, or OUT_DIR cannot be written.
    """
    out = Path(out_dir)
    volumes, problems = _all_volumes(out, task)
    if not volumes:
        raise DatasetError(
            f"{out}: no {task} volumes to gather; run the participant level first"
            + "".join(f"\n  {problem}" for problem in problems)
        )
    structures: dict[int, str] = {}
    for rows in volumes.values():
        structures.update({row.index: row.name for row in rows})
    names = list(dict.fromkeys(structures[index] for index in sorted(structures)))
    people, meaning, more_problems = _participants(Path(bids_dir))
    ours = {"participant_id", "session_id", *names}
    columns = list(dict.fromkeys(key for row in people.values() for key in row))
    titles = {key: f"participants_{key}" if key in ours else key for key in columns}
    lines = []
    for (participant, session), rows in sorted(volumes.items()):
        person = people.get(participant, {})
        by_name = {row.name: row.volume_mm3 for row in rows}
        lines.append(
            [participant, session or "n/a"]
            + [person.get(key) or "n/a" for key in columns]
            + [_cell(by_name.get(name), _DECIMALS["volume_mm3"]) for name in names]
        )
    header = ["participant_id", "session_id", *titles.values(), *names]
    path = out / group_path(task)
    write_text(path, _tsv(header, lines))
    described = {titles[key]: meaning[key] for key in columns if key in meaning}
    write_json(sidecar_path(path), {**_group_columns(names), **described})
    return GroupTable(path, len(lines), (*problems, *more_problems))


def _group_columns(names: Iterable[str]) -> dict[str, dict[str, str]]:
    structures = {name: {"Description": f"Volume of {name}", "Units": "mm^3"} for name in names}
    return {
        "participant_id": {"Description": "Participant, as in participants.tsv"},
        "session_id": {"Description": "Session; n/a where the data set has none"},
        **structures,
    }


def _all_volumes(out: Path, task: str) -> tuple[dict[tuple[str, str], list[MorphRow]], list[str]]:
    """The rows of each (participant_id, session_id), and what could not be used."""
    volumes: dict[tuple[str, str], list[MorphRow]] = {}
    problems = []
    pattern = f"anat/sub-*_seg-{task}_morph.tsv"
    paths = sorted([*out.glob(f"sub-*/{pattern}"), *out.glob(f"sub-*/ses-*/{pattern}")])
    for path in paths:
        try:
            name = BidsName.parse(path)
            session = name.get("ses")
            key = (f"sub-{name.get('sub')}", f"ses-{session}" if session else "")
            rows = read_morph(path)
        except DatasetError as error:
            problems.append(str(error))
            continue
        if key in volumes:
            problems.append(f"{path}: left out, the session has another table of {task} volumes")
        else:
            volumes[key] = rows
    return volumes, problems


def _participants(bids_dir: Path) -> tuple[dict[str, dict[str, str]], dict[str, Any], list[str]]:
    """participants.tsv by participant_id (with ``sub-``), its JSON, and what is wrong."""
    path = bids_dir / "participants.tsv"
    if not path.is_file():
        return {}, {}, []
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        # tab-separated means no quoting: a lone quote in a cell is just a quote
        table = list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, csv.Error) as error:
        return {}, {}, [f"{path}: left out, it cannot be read ({error})"]
    header = [title.strip() for title in table[0]] if table else []
    if "participant_id" not in header:
        return {}, {}, [f"{path}: left out, it has no column participant_id"]
    people = {}
    for cells in table[1:]:
        row = {key: value.strip() for key, value in zip(header, cells, strict=False) if key}
        identifier = strip_prefix(row.pop("participant_id", ""), "sub")
        if identifier:
            people[f"sub-{identifier}"] = row
    return people, _participants_json(path.with_suffix(".json")), []


def _participants_json(path: Path) -> dict[str, Any]:
    try:
        tree = read_json(path)
        json.dumps(tree, allow_nan=False)
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _read_tsv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    advice = "remove it and run again"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as a table ({error})") from error
    if not text.endswith("\n"):
        raise DatasetError(f"{path}: the table is empty or breaks off; {advice}")
    header, *lines = (line.split("\t") for line in text.splitlines())
    for number, cells in enumerate(lines, start=2):
        if len(cells) != len(header):
            raise DatasetError(
                f"{path}, row {number}: {len(header)} cells were expected, found {len(cells)}; "
                f"{advice}"
            )
    return header, [dict(zip(header, cells, strict=True)) for cells in lines]


def _morph_row(row: Mapping[str, str]) -> MorphRow:
    count = _number(row.get(_COUNT, "n/a"))
    volume = _number(row["volume_mm3"])
    if volume is None:
        raise ValueError("no volume_mm3")
    return MorphRow(
        int(row["index"]),
        row["name"],
        volume,
        _number(row["volume_low_mm3"]),
        _number(row["volume_high_mm3"]),
        _number(row["volume_icv_percent"]),
        _number(row["confidence"]),
        None if count is None else int(count),
    )


def _number(text: str) -> float | None:
    return None if text == "n/a" else float(text)


def _text(cell: str) -> str:
    return "" if cell == "n/a" else cell


def _cell(value: object, decimals: int | None = None) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "n/a"
    if decimals is not None and isinstance(value, (int, float)):
        return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no "-0.00"
    return str(value)


def _tsv(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    # TSV has no quoting: white space inside a cell becomes one space
    rows = [[" ".join(cell.split()) for cell in cells] for cells in (header, *lines)]
    return "".join("\t".join(cells) + "\n" for cells in rows)
