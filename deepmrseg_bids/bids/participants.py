"""What the raw data set's tables say about people and sessions.

``participants.tsv`` and a subject's ``sessions.tsv`` give columns; ``scans.tsv``, ``sessions.tsv``
or ages give the time of a session.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from deepmrseg_bids.bids.names import strip_prefix
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import read_json
from deepmrseg_bids.tsv import read_foreign_tsv

__all__ = ["Key", "People", "listed", "read_people", "session_years"]

_YEAR = 365.25 * 24 * 3600  # seconds
_SHOWN = 5  # names in a message

Key = tuple[str, str]
"""participant_id and session_id, with their prefixes; no session is the empty string."""


@dataclass(frozen=True)
class People:
    """The columns that the raw data set has for sessions.

    Attributes:
        columns: their titles, in order.
        rows: a value for some of the columns, by session.
        meaning: what participants.json and sessions.json say of a column.
        problems: tables that could not be used, one line each.
        notes: what is odd in them, one line each.
    """

    columns: tuple[str, ...]
    rows: Mapping[Key, Mapping[str, str]]
    meaning: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_people(bids_dir: Path, sessions: Iterable[Key], *, taken: Iterable[str]) -> People:
    """The columns of participants.tsv and of each subject's sessions.tsv.

    Args:
        sessions: whose.
        taken: titles that are not free: a column of participants.tsv with one of them gets
            ``participants_`` in front; one of sessions.tsv ``sessions_``, also if
            participants.tsv has it.
    """
    sessions = list(sessions)
    people, notes, problems = _table(bids_dir / "participants.tsv", "participant_id", "sub")
    if people:
        notes += _about_people(bids_dir / "participants.tsv", people, sessions)
    used = {"participant_id", "session_id", *taken}
    titles = _titles(people.values(), "participants", used)
    visits: dict[Key, dict[str, str]] = {}
    for subject in sorted({subject for subject, session in sessions if session}):
        found, odd, wrong = _table(
            bids_dir / subject / f"{subject}_sessions.tsv", "session_id", "ses"
        )
        visits |= {(subject, session): row for session, row in found.items()}
        notes, problems = notes + odd, problems + wrong
    titles_of_visits = _titles(visits.values(), "sessions", used)
    rows = {}
    for key in sessions:
        person, visit = people.get(key[0], {}), visits.get(key, {})
        rows[key] = {titles[name]: value for name, value in person.items()}
        rows[key] |= {titles_of_visits[name]: value for name, value in visit.items()}
    meaning: dict[str, Any] = {}
    for named, table in ((titles, "participants"), (titles_of_visits, "sessions")):
        tree = _json(bids_dir / f"{table}.json") if named else {}
        meaning |= {title: tree[name] for name, title in named.items() if name in tree}
    columns = (*titles.values(), *titles_of_visits.values())
    return People(columns, rows, meaning, tuple(problems), tuple(notes))


def _table(
    path: Path, key: str, prefix: str
) -> tuple[dict[str, dict[str, str]], list[str], list[str]]:
    """The rows of a table by their (prefixed) key, what is odd, and what is wrong."""
    if not path.is_file():
        return {}, [], []
    try:
        table = read_foreign_tsv(path)
        table.require(key)
    except DatasetError as error:
        reason = str(error).removeprefix(str(path)).lstrip(":, ")
        return {}, [], [f"{path}: left out, {reason}"]
    rows: dict[str, dict[str, str]] = {}
    counts: Counter[str] = Counter()
    for row in table.rows:
        label = strip_prefix(row.pop(key, ""), prefix)
        if label:
            counts[f"{prefix}-{label}"] += 1
            rows[f"{prefix}-{label}"] = row
    notes = list(table.notes)
    if twice := [name for name, count in counts.items() if count > 1]:
        notes.append(f"{path}: {listed(twice)} in several rows; the last one is used")
    return rows, notes, []


def _about_people(
    path: Path, people: Mapping[str, Mapping[str, str]], sessions: Sequence[Key]
) -> list[str]:
    """What is odd in participants.tsv: people without a row, columns that mix kinds of values."""
    notes = []
    known = dict.fromkeys(subject for subject, _ in sessions)
    if missing := [subject for subject in known if subject not in people]:
        notes.append(f"{path}: no row for {listed(missing)}; their columns are n/a")
    values: dict[str, dict[str, str]] = {}
    for subject in known:
        for column, value in people.get(subject, {}).items():
            if value and value != "n/a":
                values.setdefault(column, {})[subject] = value
    for column, by_subject in values.items():
        odd = {who: value for who, value in by_subject.items() if not _is_number(value)}
        if odd and len(odd) * 2 < len(by_subject):
            who, value = next(iter(odd.items()))
            notes.append(
                f"{path}: column {column} holds numbers, but {len(odd)} other "
                f"value{'s' if len(odd) > 1 else ''}, {value!r} for {who} first; kept as text"
            )
    return notes


def _titles(rows: Iterable[Mapping[str, str]], table: str, used: set[str]) -> dict[str, str]:
    """A free title for each column; ``used`` grows by them."""
    titles = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        title = name
        while title in used:
            title = f"{table}_{title}"
        titles[name] = title
        used.add(title)
    return titles


def session_years(
    bids_dir: Path, subject: str, sources: Mapping[str, str]
) -> tuple[dict[str, float], str]:
    """When the sessions of a subject were, in years from any zero, and where that comes from.

    Dates are taken from one kind of table for all sessions: the one that knows most of them, in
    the order scans.tsv, sessions.tsv (their ``acq_time``), the ``age`` of sessions.tsv.

    Args:
        subject: with ``sub-``.
        sources: by session_id, the stem of the T1w that was segmented, as ``sub-01_ses-1``.

    Returns:
        Years by session_id, for those that have a time; and scans.tsv, sessions.tsv or age.
    """
    visits, _, _ = _table(bids_dir / subject / f"{subject}_sessions.tsv", "session_id", "ses")
    by_table: dict[str, dict[str, float | None]] = {
        "scans.tsv": {
            session: _scan_time(bids_dir / subject / session, stem)
            for session, stem in sources.items()
        },
        "sessions.tsv": {
            session: _years(visits.get(session, {}).get("acq_time", "")) for session in sources
        },
        "age": {
            session: float(row["age"])
            for session, row in visits.items()
            if session in sources and _is_number(row.get("age", ""))
        },
    }
    known = {
        table: {session: time for session, time in times.items() if time is not None}
        for table, times in by_table.items()
    }
    best = max(known, key=lambda table: len(known[table]))  # the first of equals
    return known[best], best


def _scan_time(folder: Path, stem: str) -> float | None:
    """When an image was acquired, by the scans.tsv of its session's folder."""
    for path in folder.glob("*_scans.tsv"):
        try:
            table = read_foreign_tsv(path)
        except DatasetError:
            return None
        for row in table.rows:
            if Path(row.get("filename", "")).name.partition(".")[0] == f"{stem}_T1w":
                return _years(row.get("acq_time", ""))
    return None


def _years(text: str) -> float | None:
    """A date or date and time of BIDS in years; None if it is none.

    >>> _years("2009-06-15T13:45:30.25Z") - _years("2008-06-15T13:45:30")
    0.9993155...
    """
    # without the time zone: a difference of dates with and without one is an error
    match = re.fullmatch(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?))?[.\d]*Z?", text)
    if match is None:
        return None
    try:
        when = datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00'}")
    except ValueError:
        return None
    return (when - datetime(1970, 1, 1)).total_seconds() / _YEAR


def _is_number(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return abs(value) < float("inf")


def listed(names: Sequence[str]) -> str:
    """Some names in a line: ``a, b and 3 others``."""
    shown = ", ".join(names[:_SHOWN])
    rest = len(names) - _SHOWN
    return shown if rest < 1 else f"{shown} and {rest} other{'s' if rest > 1 else ''}"


def _json(path: Path) -> dict[str, Any]:
    try:
        tree = read_json(path)
        json.dumps(tree, allow_nan=False)
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}
