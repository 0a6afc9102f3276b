"""What the group level says of one subject: verdict, outlier, percentiles, whose page is next.

It is one block of JSON at the end of a page, which the page's script shows. The group level
exchanges this block in pages that are there already: their pictures are not drawn again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from scipy.stats import rankdata

from deepmrseg_bids.bids.names import group_path, group_qc_path, group_report_path, report_path
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import write_bytes
from deepmrseg_bids.reports.subject.volumes import Standing
from deepmrseg_bids.session.verdict import LEVELS
from deepmrseg_bids.tsv import NOT_KNOWN, read_foreign_tsv

__all__ = ["Study", "block", "refresh"]

_FEWEST = 5  # sessions: among fewer, a rank says nothing
_SHOWN = ("verdict", "verdict_reason", "outlier_reasons", "rating")
_START = b'<script type="application/json" id="study">'
_END = b"</script>"

Key = tuple[str, str]


@dataclass(frozen=True)
class Study:
    """The tables of the group level; without any, nothing is known.

    Attributes:
        out_dir: where they are.
    """

    out_dir: Path
    _tasks: dict[str, dict[Key, dict[str, Standing]]] = field(default_factory=dict)

    def standing(self, task: str, participant: str, session: str) -> dict[str, Standing]:
        """Of each structure of a session; empty where the session or a table is missing.

        Args:
            participant, session: with ``sub-`` and ``ses-``; session empty without sessions.
        """
        if task not in self._tasks:
            self._tasks[task] = self._ranked(task)
        return self._tasks[task].get((participant, session), {})

    def _ranked(self, task: str) -> dict[Key, dict[str, Standing]]:
        rows = [
            row for row in _rows(self.out_dir / group_path(task)) if row.get("excluded") != "yes"
        ]
        away = {
            (*_who(row), row.get("name", "")): (
                _value(row.get("deviation")),
                _value(row.get("z_adjusted")),
            )
            for row in _rows(self.out_dir / group_path(task, "structures"))
        }
        found: dict[Key, dict[str, Standing]] = {}
        for name in rows[0] if rows else ():
            values = [(_who(row), _value(row.get(name))) for row in rows]
            known = [(who, value) for who, value in values if value is not None]
            if len(known) < _FEWEST:
                continue
            ranks = rankdata([value for _, value in known])  # ties have their mean rank
            for (who, _), rank in zip(known, ranks.tolist(), strict=True):
                percent = 100 * (rank - 1) / (len(known) - 1)
                place = Standing(percent, len(known), *away.get((*who, name), (None, None)))
                found.setdefault(who, {})[name] = place
        return found

    @cached_property
    def _qc(self) -> dict[Key, Mapping[str, str]]:
        return {_who(row): row for row in _rows(self.out_dir / group_qc_path())}

    @cached_property
    def order(self) -> list[str]:
        """The pages of subjects, the worst first."""

        def rank(row: Mapping[str, str]) -> tuple[float, ...]:
            level = row.get("verdict", "")
            return (
                LEVELS.index(level) if level in LEVELS else len(LEVELS),
                -(_value(row.get("outlier_score")) or 0.0),
                _value(row.get("confidence_worst")) or 0.0,
            )

        there = {path.name for path in self.out_dir.glob("sub-*.html")}
        ordered = sorted(self._qc, key=lambda who: rank(self._qc[who]))
        pages = dict.fromkeys(str(report_path(who)) for who, _ in ordered)
        return [page for page in pages if page in there]

    def facts(
        self, participant: str, sessions: Sequence[str], tasks: Sequence[str]
    ) -> dict[str, Any]:
        """What the page of a subject is to show; empty before the group level has run.

        Args:
            sessions: with ``ses-``; empty without sessions.
        """
        if not self._qc:
            return {}
        found: dict[str, Any] = {}
        for session in sessions:
            row = self._qc.get((participant, session), {})
            places = {
                task: {
                    name: [round(one.percentile), one.of, one.deviation, one.adjusted]
                    for name, one in self.standing(task, participant, session).items()
                }
                for task in tasks
            }
            known = {name: row[name] for name in _SHOWN if row.get(name, NOT_KNOWN) != NOT_KNOWN}
            found[session] = {**known, "standing": places}
        return {"group": str(group_report_path()), "order": self.order, "sessions": found}


def block(facts: Mapping[str, Any]) -> bytes:
    """The block of a page; it holds no markup."""
    text = json.dumps(facts, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026").encode("ascii")


def refresh(path: Path, facts: Mapping[str, Any]) -> bool:
    """Exchange the block of a page; False where the page has none."""
    page = path.read_bytes()
    start = page.rfind(_START)
    end = page.find(_END, start)
    if min(start, end) < 0:
        return False
    fresh = page[: start + len(_START)] + block(facts) + page[end:]
    if fresh != page:
        write_bytes(path, fresh, anew=True)  # it is not read a second time
    return True


def _rows(path: Path) -> Sequence[Mapping[str, str]]:
    """The rows of a table; none of one that is missing or damaged."""
    try:
        return read_foreign_tsv(path).rows
    except DatasetError:
        return ()


def _who(row: Mapping[str, str]) -> Key:
    session = row.get("session_id", NOT_KNOWN)
    return row.get("participant_id", ""), "" if session == NOT_KNOWN else session


def _value(cell: str | None) -> float | None:
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
