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

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.bids.demographics import age_column, sex_column
from deepmrseg_bids.bids.names import (
    REGIONS,
    group_norms_path,
    group_path,
    group_qc_path,
    group_report_path,
    report_path,
)
from deepmrseg_bids.bids.norms import Curve, Norms, read_norms
from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.files import write_bytes
from deepmrseg_bids.reports.subject.volumes import Standing
from deepmrseg_bids.session.verdict import LEVELS
from deepmrseg_bids.tsv import NOT_KNOWN, number_in, read_foreign_tsv

__all__ = ["Study", "block", "refresh"]

_FEWEST = 5  # sessions: among fewer, a rank says nothing
_AGES = 25  # of a curve in a page: more of them cannot be seen
_SHOWN = ("verdict", "verdict_reason", "outlier_reasons", "rating", "excluded")
_AWAY = ("deviation", "z_adjusted", "norm_centile")
_POINT = ("volume_mm3", "volume_low_mm3", "volume_high_mm3", "norm_centile")
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
    _read: dict[str, list[_Part]] = field(default_factory=dict)

    def standing(self, task: str, participant: str, session: str) -> dict[str, Standing]:
        """Of each structure of a session; empty where the session or a table is missing.

        Args:
            participant, session: with ``sub-`` and ``ses-``; session empty without sessions.
        """
        if task not in self._tasks:
            self._tasks[task] = {}
            for part in self._parts(task):
                for who, places in self._ranked(part).items():
                    self._tasks[task].setdefault(who, {}).update(places)
        return self._tasks[task].get((participant, session), {})

    def _parts(self, task: str) -> list[_Part]:
        """The structures of a task, and its composite regions."""
        if task not in self._read:
            names = (task, f"{task}_desc-{REGIONS}")
            self._read[task] = [_Part.read(self.out_dir, name) for name in names]
        return self._read[task]

    @staticmethod
    def _ranked(part: _Part) -> dict[Key, dict[str, Standing]]:
        rows = [row for row in part.morphs if row.get("excluded") != "yes"]
        away = {
            (who, row.get("name", "")): tuple(_value(row.get(column)) for column in _AWAY)
            for who, own in part.structures.items()
            for row in own
        }
        structures = {name for _, name in away}
        found: dict[Key, dict[str, Standing]] = {}
        for name in rows[0] if rows else ():
            if structures and name not in structures:  # an age is no volume
                continue
            values = [(_who(row), _value(row.get(name))) for row in rows]
            known = [(who, value) for who, value in values if value is not None]
            if len(known) < _FEWEST:
                continue
            ranks = _ranks([value for _, value in known])
            for (who, _), rank in zip(known, ranks.tolist(), strict=True):
                percent = 100 * (rank - 1) / (len(known) - 1)
                place = Standing(percent, len(known), *away.get((who, name), ()))
                found.setdefault(who, {})[name] = place
        return found

    @cached_property
    def _qc(self) -> dict[Key, Mapping[str, str]]:
        return {_who(row): row for row in _rows(self.out_dir / group_qc_path())}

    @cached_property
    def order(self) -> list[str]:
        """The pages of subjects, the worst first, as the table of sessions in the group report."""

        def rank(row: Mapping[str, str]) -> tuple[float, ...]:
            level, sure = row.get("verdict", ""), _value(row.get("confidence_worst"))
            return (
                LEVELS.index(level) if level in LEVELS else len(LEVELS),
                sure is not None,  # without a result first
                -(_value(row.get("outlier_score")) or 0.0),
                sure or 0.0,
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
                    name: [round(one.percentile), one.of, one.deviation, one.adjusted, one.norm]
                    for name, one in self.standing(task, participant, session).items()
                }
                for task in tasks
            }
            known = {name: row[name] for name in _SHOWN
                     if row.get(name, NOT_KNOWN) not in (NOT_KNOWN, "no")}  # fmt: skip
            found[session] = {**known, "standing": places}
        facts = {"group": str(group_report_path()), "order": self.order, "sessions": found}
        if self.norms is not None:
            facts["norms"] = self._against_norms(self.norms, participant, sessions, tasks)
        return facts

    @cached_property
    def norms(self) -> Norms | None:
        """The reference centiles that the group level has used."""
        try:
            return read_norms(self.out_dir / group_norms_path())
        except UsageError:
            return None

    def _against_norms(
        self, norms: Norms, participant: str, sessions: Sequence[str], tasks: Sequence[str]
    ) -> dict[str, Any]:
        """The curves for a person's sex, and the person's points on them, by task."""
        found: dict[str, list[dict[str, Any]]] = {}
        for task in tasks:
            panels: dict[str, dict[str, Any]] = {}
            for part, session in ((p, s) for p in self._parts(task) for s in sessions):
                age, sex = part.person((participant, session))
                for row in part.structures.get((participant, session), ()):
                    curve = norms.curve(row.get("name", ""), sex)
                    if curve is not None:
                        fresh = {"name": row["name"], **_drawn(curve), "points": []}
                        panel = panels.setdefault(row["name"], fresh)
                        values = [_value(row.get(column)) for column in _POINT]
                        panel["points"].append([session, age, *values])
            if panels:
                found[task] = list(panels.values())
        return {"centiles": list(norms.centiles), "tasks": found}


@dataclass(frozen=True)
class _Part:
    """The tables of a task, or of its regions.

    Attributes:
        morphs: a row a session, with its volumes.
        structures: the rows of each session, one a structure.
        age, sex: the columns of `morphs`; empty without one.
    """

    morphs: Sequence[Mapping[str, str]]
    structures: Mapping[Key, Sequence[Mapping[str, str]]]
    age: str
    sex: str

    @classmethod
    def read(cls, out_dir: Path, name: str) -> _Part:
        morphs = _rows(out_dir / group_path(name))
        structures: dict[Key, list[Mapping[str, str]]] = {}
        for row in _rows(out_dir / group_path(name, "structures")):
            structures.setdefault(_who(row), []).append(row)
        titles = morphs[0] if morphs else ()
        cells = {title: [row.get(title, NOT_KNOWN) for row in morphs] for title in titles}
        return cls(morphs, structures, age_column(cells), sex_column(cells))

    @cached_property
    def _people(self) -> dict[Key, tuple[float | None, str]]:
        return {
            _who(row): (number_in(row.get(self.age, "")), row.get(self.sex, ""))
            for row in self.morphs
        }

    def person(self, who: Key) -> tuple[float | None, str]:
        """Age and sex at a session, as far as they are known."""
        return self._people.get(who, (None, ""))


def _drawn(curve: Curve) -> dict[str, Any]:
    """A curve as a page holds it: the volumes by centile."""
    ages = curve.ages
    if len(ages) > _AGES:
        ages = np.linspace(ages[0], ages[-1], _AGES)
    volumes = [[_brief(one) for one in line] for line in curve.at(ages).T.tolist()]
    return {"ages": [_brief(age) for age in ages.tolist()], "volumes": volumes}


def _brief(value: float) -> float:
    """A number with four digits; none of a large one is lost before its point.

    >>> _brief(1234.56), _brief(12.3456)
    (1235, 12.35)
    """
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")


def block(facts: Mapping[str, Any]) -> bytes:
    """The block of a page; it holds no markup."""
    text = json.dumps(facts, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026").encode("ascii")


def refresh(path: Path, facts: Mapping[str, Any]) -> bool:
    """Exchange the block of a page; False where the page has none, or no place for all of it."""
    page = path.read_bytes()
    if "norms" in facts and b'id="norms"' not in page:
        return False
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


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """The rank of each value, from 1 on; ties have their mean rank."""
    order = np.sort(values)
    below, up_to = (np.searchsorted(order, values, side) for side in ("left", "right"))
    ranks: NDArray[np.float64] = (below + up_to + 1) / 2
    return ranks


def _who(row: Mapping[str, str]) -> Key:
    session = row.get("session_id", NOT_KNOWN)
    return row.get("participant_id", ""), "" if session == NOT_KNOWN else session


def _value(cell: str | None) -> float | None:
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
