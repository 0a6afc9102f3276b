"""Lesions of consecutive sessions in a subject's page: how many changed, and which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.tables import read_changes
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import read_json
from deepmrseg_bids.session.lesion_changes import VisitPair
from deepmrseg_bids.tasks.lesion_change import STATUSES, Change, interval_of

__all__ = ["ChangeRow", "ChangeTotal", "LesionChanges", "lesion_changes"]

_UNSEEN = "not in the other field of view"


@dataclass(frozen=True)
class ChangeTotal:
    """All groups of lesions of a status, as text; volumes in millilitres."""

    name: str
    count: int
    before: str
    after: str
    change: str
    interval: str


@dataclass(frozen=True)
class ChangeRow:
    """One group of lesions that changed, as text."""

    status: str
    lesions_before: str
    lesions: str
    before: str
    after: str
    change: str
    interval: str
    centre: str


@dataclass(frozen=True)
class LesionChanges:
    """What became of the lesions between two sessions.

    Attributes:
        before, after: the labels of the sessions.
        rows: what is new, enlarged, shrunken or gone.
        tsv: the name of the table, and its text.
    """

    title: str
    before: str
    after: str
    totals: tuple[ChangeTotal, ...]
    rows: tuple[ChangeRow, ...]
    tsv: tuple[str, str]


def lesion_changes(pairs: Sequence[VisitPair], out_dir: Path) -> list[LesionChanges]:
    """Read the tables of a subject; a pair without a table of these two sessions is left out."""
    found = []
    for pair in pairs:
        path = out_dir / pair.table
        try:
            if read_json(out_dir / names.sidecar_path(pair.table)).get("Before") != pair.before:
                continue
            changes = read_changes(path)
            text = path.read_text(encoding="utf-8")
        except (DatasetError, OSError, ValueError, AttributeError):
            continue
        found.append(
            LesionChanges(
                pair.spec.title,
                pair.before.removeprefix("ses-"),
                pair.after.removeprefix("ses-"),
                _totals(changes),
                tuple(_row(one) for one in changes if one.status not in (None, "unchanged")),
                (path.name, text),
            )
        )
    return found


def _totals(changes: Sequence[Change]) -> tuple[ChangeTotal, ...]:
    """A row for each status, also without lesions, and one for all of them."""
    parts = {status: [one for one in changes if one.status == status] for status in STATUSES}
    rows = [_total(status, part) for status, part in parts.items()]
    if unseen := [one for one in changes if one.status is None]:
        rows.append(_total(_UNSEEN, unseen))
    return (*rows, _total("all", [one for one in changes if one.status is not None]))


def _total(name: str, changes: Sequence[Change]) -> ChangeTotal:
    before, after = (
        sum(mm3) / 1000
        for mm3 in ([one.before_mm3 for one in changes], [one.after_mm3 for one in changes])
    )
    low, high = (end / 1000 for end in interval_of(changes))
    return ChangeTotal(
        name,
        len(changes),
        f"{before:.2f}",
        f"{after:.2f}",
        f"{after - before:+.2f}",
        f"{low:+.2f} to {high:+.2f}" if changes else "n/a",
    )


def _row(one: Change) -> ChangeRow:
    return ChangeRow(
        one.status or "n/a",
        ", ".join(map(str, one.before)) or "none",
        ", ".join(map(str, one.after)) or "none",
        f"{one.before_mm3:,.0f}",
        f"{one.after_mm3:,.0f}",
        f"{one.change_mm3:+,.0f}",
        f"{one.low_mm3:+,.0f} to {one.high_mm3:+,.0f}",
        ", ".join(f"{mm:.0f}" for mm in one.centre),
    )
