"""Tables of the raw data set whose rows are about participants or sessions.

They come from many programs. What is meant plainly is used and named: labels that a spreadsheet has
changed (``1`` for ``sub-01``), decimal commas, the words that other programs have for ``n/a``.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepmrseg_bids.bids.names import strip_prefix
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.tsv import NOT_KNOWN, Table, number_in, read_foreign_tsv
from deepmrseg_bids.wording import counted

__all__ = ["KeyedTable", "listed", "read_keyed"]

_SHOWN = 5  # names in a message
_BETWEEN = re.compile(r"[\s\u200b-\u200f\ufeff_\-\u2010-\u2015\u2212]+")
_WHOLE = re.compile(r"\d+\.0+", re.ASCII)
_NO_VALUE = ("NA", "N/A", "NaN", "nan", "<NA>", "#N/A", "NULL", "#NULL!", ".")


@dataclass(frozen=True)
class KeyedTable:
    """A table by the labels of its rows.

    Attributes:
        rows: the cells of each row by column, without the label; ``n/a`` for what is not known.
        notes: what is odd in it, one line each.
        problem: why it could not be used; empty if it could.
    """

    rows: Mapping[str, dict[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    problem: str = ""


def read_keyed(path: Path, key: str, prefix: str, known: Iterable[str]) -> KeyedTable:
    """Read a table; one that is not there has no rows.

    Args:
        key: the column of the labels, as participant_id.
        prefix: of the labels, as ``sub``; they may lack it.
        known: the labels that are looked for, with their prefix.
    """
    if not path.is_file():
        return KeyedTable()
    try:
        table = read_foreign_tsv(path)
        title = _title(table, key)
        table.require(title)
    except DatasetError as error:
        reason = str(error).removeprefix(str(path)).lstrip(":, ")
        return KeyedTable(problem=f"{path}: not used, {reason}")
    notes = [] if title == key else [f"column {title} is read as {key}"]
    rows: dict[str, dict[str, str]] = {}
    counts: Counter[str] = Counter()
    meant = _meant([row.get(title, "") for row in table.rows], prefix, set(known))
    for row in table.rows:
        text = row.get(title, "")
        if text:
            label = meant.get(text) or f"{prefix}-{strip_prefix(text, prefix)}"
            counts[label] += 1
            rows[label] = {column: cell for column, cell in row.items() if column != title}
    if meant:
        pairs = [f"{text} as {label}" for text, label in meant.items()]
        notes.append(f"{key} is read by its number or letters: {listed(pairs)}")
    if twice := [name for name, count in counts.items() if count > 1]:
        notes.append(f"{listed(twice)} in several rows; the last one is used")
    notes += [*_without_values(rows), *_decimal_points(rows)]
    return KeyedTable(rows, (*table.notes, *(f"{path}: {note}" for note in notes)))


def _title(table: Table, key: str) -> str:
    """The column of the labels, also where it is written in another way."""
    alike = [title for title in table.columns if _bare(title) == _bare(key)]
    return alike[0] if key not in table.columns and len(alike) == 1 else key


def _bare(text: str) -> str:
    """Letters and digits without marks between them, in one case."""
    return _BETWEEN.sub("", unicodedata.normalize("NFKC", text).casefold())


def _plain_label(text: str, prefix: str) -> str:
    """What is left of a label if case, leading zeros and marks count for nothing."""
    bare = _bare(text).removeprefix(prefix)
    if _WHOLE.fullmatch(bare):
        bare = bare.partition(".")[0]
    return bare.lstrip("0") or "0" if bare.isdecimal() else bare


def _meant(texts: Sequence[str], prefix: str, known: set[str]) -> dict[str, str]:
    """The labels that are not as they are looked for, and which of those each means."""
    exact = {f"{prefix}-{strip_prefix(text, prefix)}" for text in texts}
    wanted: dict[str, list[str]] = {}
    for label in sorted(known - exact):
        wanted.setdefault(_plain_label(label, prefix), []).append(label)
    left: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        if text and f"{prefix}-{strip_prefix(text, prefix)}" not in known:
            left.setdefault(_plain_label(text, prefix), []).append(text)
    return {
        texts[0]: wanted[plain][0]
        for plain, texts in left.items()
        if len(texts) == 1 and len(wanted.get(plain, ())) == 1
    }


def _without_values(rows: Mapping[str, dict[str, str]]) -> list[str]:
    """Write ``n/a`` for what other programs write where there is no value."""
    found: dict[str, None] = {}
    columns: dict[str, None] = {}
    for row in rows.values():
        for column, text in row.items():
            if text in _NO_VALUE:
                found[text], columns[column] = None, None
            if text in _NO_VALUE or not text:
                row[column] = NOT_KNOWN
    if not found:
        return []
    where = f"column{'' if len(columns) == 1 else 's'} {listed(list(columns))}"
    return [f"{', '.join(found)} in {where} is read as {NOT_KNOWN}"]


def _decimal_points(rows: Mapping[str, dict[str, str]]) -> list[str]:
    """Write decimal points in columns of numbers that have decimal commas."""
    notes = []
    for column in dict.fromkeys(column for row in rows.values() for column in row):
        texts = [row[column] for row in rows.values() if row.get(column, NOT_KNOWN) != NOT_KNOWN]
        commas = [text for text in texts if "," in text]
        if not commas or any(number_in(text) is None for text in texts):
            continue
        for row in rows.values():
            row[column] = row.get(column, NOT_KNOWN).replace(",", ".")
        notes.append(f"column {column} has decimal commas ({commas[0]}); they are read as points")
    return notes


def listed(names: Sequence[str]) -> str:
    """Some names in a line: ``a, b and 3 others``."""
    shown = ", ".join(names[:_SHOWN])
    rest = len(names) - _SHOWN
    return shown if rest < 1 else f"{shown} and {counted(rest, 'other')}"
