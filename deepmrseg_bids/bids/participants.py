"""What participants.tsv and the sessions.tsv of each subject say about people and sessions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepmrseg_bids.bids.keyed_tables import listed, read_keyed
from deepmrseg_bids.files import read_json
from deepmrseg_bids.tsv import NOT_KNOWN, number_in
from deepmrseg_bids.wording import counted, once

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["People", "SessionKey", "read_people"]


SessionKey = tuple[str, str]
"""participant_id and session_id, with their prefixes; no session is the empty string."""


@dataclass(frozen=True)
class People:
    """The columns that the raw data set has for sessions.

    Attributes:
        table: one row a session, with an index of participant_id and session_id; text, ``n/a``
            where the data set says nothing.
        meaning: what participants.json and sessions.json say of a column.
        problems: tables that could not be used, one line each.
        notes: what is odd in them, one line each.
    """

    table: pd.DataFrame
    meaning: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_people(bids_dir: Path, sessions: pd.MultiIndex, *, taken: Iterable[str]) -> People:
    """The columns of participants.tsv and of each subject's sessions.tsv.

    Args:
        sessions: whose, by participant_id and session_id.
        taken: titles that are not free: a column of participants.tsv with one of them gets
            ``participants_`` in front; one of sessions.tsv ``sessions_``, also if
            participants.tsv has it.
    """
    subjects = sessions.unique("participant_id")
    table_of_persons = bids_dir / "participants.tsv"
    persons = read_keyed(
        table_of_persons, "participant_id", "sub", {*subjects, *_folders(bids_dir, "sub")}
    )
    tables = [persons]
    notes = []
    if table_of_persons.is_file() and not persons.problem:
        notes = _about_persons(table_of_persons, persons.rows, subjects)
    visits: dict[SessionKey, dict[str, str]] = {}
    by_subject: dict[str, set[str]] = {}
    for subject, session in sessions:
        by_subject.setdefault(subject, set()).add(session)
    for subject in sorted(who for who, labels in by_subject.items() if any(labels)):
        path = bids_dir / subject / f"{subject}_sessions.tsv"
        known = {*by_subject[subject], *_folders(bids_dir / subject, "ses")}
        tables.append(read_keyed(path, "session_id", "ses", known))
        visits |= {(subject, session): row for session, row in tables[-1].rows.items()}
    used = {"participant_id", "session_id", *taken}
    titles = _titles(persons.rows.values(), "participants", used)
    titles_of_visits = _titles(visits.values(), "sessions", used)
    table = sessions.to_frame()[[]]
    if persons.rows:
        table = table.join(_frame(persons.rows, titles), on="participant_id")
    if visits:
        table = table.join(_frame(visits, titles_of_visits))
    meaning: dict[str, Any] = {}
    for named, file in ((titles, "participants"), (titles_of_visits, "sessions")):
        path = bids_dir / f"{file}.json"
        if not named or not path.is_file():
            continue
        tree = _json(path)
        if tree is None:
            notes.append(f"{path}: cannot be read as a JSON object; columns have no description")
            continue
        meaning |= {title: tree[name] for name, title in named.items() if name in tree}
    problems = [one.problem for one in tables if one.problem]
    odd = [*(note for one in tables for note in one.notes), *notes]
    return People(table.fillna(NOT_KNOWN), meaning, tuple(problems), tuple(once(odd)))


def _folders(folder: Path, prefix: str) -> list[str]:
    """The participants or sessions that a data set has: their labels are meant as they are."""
    return [path.name for path in folder.glob(f"{prefix}-*") if path.is_dir()]


def _frame(
    rows: Mapping[str, Mapping[str, str]] | Mapping[SessionKey, Mapping[str, str]],
    titles: Mapping[str, str],
) -> pd.DataFrame:
    """The rows of a table by their keys, with new titles."""
    import pandas as pd

    table = pd.DataFrame(list(rows.values()), columns=list(titles), dtype=object)
    index = pd.Index(list(rows))
    index.names = ["participant_id", "session_id"][: index.nlevels]
    return table.set_index(index).rename(columns=titles)


def _about_persons(
    path: Path, persons: Mapping[str, Mapping[str, str]], subjects: Iterable[str]
) -> list[str]:
    """What is odd in participants.tsv: people without a row, columns that mix kinds of values."""
    import pandas as pd

    notes = []
    known = list(subjects)
    if missing := [subject for subject in known if subject not in persons]:
        notes.append(f"{path}: no row for {listed(missing)}; their columns are {NOT_KNOWN}")
    rows = [persons.get(subject, {}) for subject in known]
    table = pd.DataFrame(rows, index=known, dtype=object)
    for column, cells in table.items():
        values = cells[~cells.isin(["", NOT_KNOWN])].dropna()
        odd = values[values.map(number_in).isna()]
        if 0 < 2 * len(odd) < len(values):
            notes.append(
                f"{path}: column {column} contains numbers, but "
                f"{counted(len(odd), 'other value')}, first {odd.iloc[0]!r} for "
                f"{odd.index[0]}; kept as text"
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


def _json(path: Path) -> dict[str, Any] | None:
    """The object of a JSON file; None if it cannot be read, or written again."""
    try:
        tree = read_json(path)
        json.dumps(tree, allow_nan=False)
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) else None
