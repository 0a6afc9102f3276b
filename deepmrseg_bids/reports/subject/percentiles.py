"""Where a session stands in its study, from the tables of the group level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from deepmrseg_bids.bids.names import group_path
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.reports.subject.volumes import Standing
from deepmrseg_bids.tsv import read_foreign_tsv

__all__ = ["read_standing"]

_FEWEST = 5  # sessions: among fewer, a rank says nothing


def read_standing(
    out_dir: Path, task: str, participant: str, session: str | None
) -> dict[str, Standing]:
    """The standing of each structure of one session; empty before the group level has run.

    A table that is missing, damaged or lacks the session says nothing; it never stops a page.

    Args:
        participant, session: with ``sub-`` and ``ses-``; session None where there is none.
    """
    key = (participant, session or "n/a")
    rows = _rows(out_dir / group_path(task))
    deviations = {
        row.get("name", ""): _value(row.get("deviation"))
        for row in _rows(out_dir / group_path(task, "structures"))
        if _who(row) == key
    }
    own = next((row for row in rows if _who(row) == key), None)
    if own is None:
        return {}
    found = {}
    for name in own:
        value = _value(own[name])
        others = [_value(row.get(name)) for row in rows if row is not own]
        known = [other for other in others if other is not None]
        if value is None or len(known) + 1 < _FEWEST:
            continue
        below = sum(other < value for other in known) + sum(other == value for other in known) / 2
        found[name] = Standing(100 * below / len(known), len(known) + 1, deviations.get(name))
    return found


def _who(row: Mapping[str, str]) -> tuple[str, str]:
    return row.get("participant_id") or "", row.get("session_id") or "n/a"


def _rows(path: Path) -> Sequence[Mapping[str, str]]:
    try:
        return read_foreign_tsv(path).rows
    except DatasetError:
        return ()


def _value(cell: str | None) -> float | None:
    try:
        return float(cell or "")
    except ValueError:
        return None
