"""Tables of a subject's page: volumes with left beside right, and change between sessions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deepmrseg_bids.bids.tables import MorphRow
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.tasks.regions import Region

__all__ = ["Change", "Group", "Pair", "Standing", "changes", "grouped", "paired", "unit_of"]

_MOST = 0.8  # share of all structures
_ML_FROM = 100_000  # mm3: a table with a larger volume is in millilitres


@dataclass(frozen=True)
class Standing:
    """Where a volume stands among the sessions of the study.

    Attributes:
        percentile: share of the other sessions with a smaller volume, 0 to 100; ties count half.
        of: how many sessions have this volume.
        deviation: from their median, in robust standard deviations; None if not known.
        adjusted: the same from what is expected for age, sex and head size.
        norm: the centile of the reference for age and sex.
    """

    percentile: float
    of: int
    deviation: float | None = None
    adjusted: float | None = None
    norm: float | None = None


@dataclass(frozen=True)
class Row:
    """One structure, as text; ``key`` is its name in tables."""

    index: int
    key: str
    name: str
    color: str
    volume: str
    interval: str
    percent: str
    confidence: float | None
    standing: Standing | None
    note: str = ""


@dataclass(frozen=True)
class Pair:
    """The rows of a structure, left and right or one alone, and how much they differ."""

    rows: tuple[Row, ...]
    asymmetry: str


@dataclass(frozen=True)
class Change:
    """A structure over the sessions: its volumes as text, and first to last in percent."""

    name: str
    color: str
    volumes: tuple[str, ...]
    percent: str
    interval: str


def unit_of(rows: Sequence[MorphRow]) -> tuple[float, str]:
    """What a table of these volumes is divided by, and the unit it is then in."""
    largest = max((row.volume_mm3 or 0 for row in rows), default=0)
    return (1000.0, "ml") if largest >= _ML_FROM else (1.0, "mm³")


def is_of_icv(rows: Sequence[MorphRow]) -> bool:
    """Whether the intracranial volume is known that volumes can be a share of."""
    return any(row.volume_icv_percent is not None for row in rows)


def paired(
    rows: Sequence[MorphRow],
    table: LabelTable | None,
    standing: Mapping[str, Standing],
    scale: float,
) -> tuple[Pair, ...]:
    """Rows in the table's order, with left and right of a structure together, left first."""
    colours, of_icv = _colours(table), is_of_icv(rows)
    groups: dict[str, dict[str, MorphRow]] = {}
    for row in rows:
        side, structure = _side(row.name)
        groups.setdefault(structure if side else row.name, {})[side] = row
    pairs = []
    for group in groups.values():
        shown = tuple(
            _row(group[side], colours, standing, scale, of_icv=of_icv) for side in sorted(group)
        )
        left, right = group.get("left"), group.get("right")
        asymmetry = "" if left is None or right is None else _asymmetry(left, right)
        pairs.append(Pair(shown, asymmetry))
    return tuple(pairs)


@dataclass(frozen=True)
class Group:
    """Structures that belong together, under one title; an empty one where there is no other."""

    title: str
    pairs: tuple[Pair, ...]


def grouped(pairs: Sequence[Pair], regions: Sequence[Region]) -> tuple[Group, ...]:
    """Structures by the smallest composite region that has all of their labels.

    Groups are in the order of the regions, those in none at the end.
    """
    places: dict[str, list[Pair]] = {}
    known = sum(len(pair.rows) for pair in pairs)
    # a region of nearly everything, such as all tissue, is no group
    wanted = [one for one in regions if not one.near and len(one.labels) < _MOST * known]
    for pair in pairs:
        own = pair.rows[0].index
        around = [region for region in wanted if own in region.labels]
        smallest = min(around, key=lambda region: len(region.labels), default=None)
        title = _side(smallest.name)[1].replace("-", " ") if smallest else "Other"
        places.setdefault(title, []).append(pair)
    if len(places) == 1:
        return (Group("", tuple(pairs)),)
    order = [_side(region.name)[1].replace("-", " ") for region in wanted]
    titles = sorted(places, key=lambda title: order.index(title) if title in order else len(order))
    return tuple(Group(title, tuple(places[title])) for title in titles)


def changes(
    sessions: Sequence[Sequence[MorphRow]],
    table: LabelTable | None,
    scale: float,
    *,
    ordered: bool = True,
) -> tuple[Change, ...]:
    """Each structure over the sessions, in the order of the last of them.

    The 90 % interval of the change takes the errors of the two sessions as independent:
    log-ratios, half widths added in quadrature. Errors that both share cancel, so it is wide.

    Args:
        ordered: it is known that the sessions are in the order of time; else there is no change.
    """
    colours = _colours(table)
    by_name = [{row.name: row for row in rows} for rows in sessions]
    found = []
    for last in sessions[-1] if sessions else ():
        rows = [known.get(last.name) for known in by_name]
        first = rows[0]
        known = ordered and first is not None
        percent, interval = _change(first, last) if known and first else ("n/a", "n/a")
        volumes = tuple(
            "n/a" if row is None or row.volume_mm3 is None else _number(row.volume_mm3, scale)
            for row in rows
        )
        name, color = last.name.replace("-", " "), colours.get(last.index, "")
        found.append(Change(name, color, volumes, percent, interval))
    return tuple(found)


def _change(first: MorphRow, last: MorphRow) -> tuple[str, str]:
    if not first.volume_mm3 or not last.volume_mm3:
        return "n/a", "n/a"
    ratio = math.log(last.volume_mm3 / first.volume_mm3)
    widths = [_half_width(row) for row in (first, last)]
    if None in widths:
        return _percent(ratio), "n/a"
    half = math.hypot(*(width for width in widths if width is not None))
    return _percent(ratio), f"{_percent(ratio - half)} to {_percent(ratio + half)}"


def _half_width(row: MorphRow) -> float | None:
    """Half of the 90 % interval of the logarithm of a volume."""
    low, high = row.volume_low_mm3, row.volume_high_mm3
    return math.log(high / low) / 2 if low and high and low > 0 and high >= low else None


def _percent(log_ratio: float) -> str:
    return f"{100 * math.expm1(log_ratio):+.1f}"


def _colours(table: LabelTable | None) -> dict[int, str]:
    return {label.index: label.color for label in table or ()}


def _row(
    row: MorphRow,
    colours: Mapping[int, str],
    standing: Mapping[str, Standing],
    scale: float,
    *,
    of_icv: bool,
) -> Row:
    low, high = row.volume_low_mm3, row.volume_high_mm3
    interval = (
        "" if low is None or high is None else f"{_number(low, scale)} to {_number(high, scale)}"
    )
    percent = row.volume_icv_percent if of_icv else row.volume_brain_percent
    return Row(
        row.index,
        row.name,
        row.name.replace("-", " "),
        colours.get(row.index, ""),
        "n/a" if row.volume_mm3 is None else _number(row.volume_mm3, scale),
        interval or "n/a",
        "n/a" if percent is None else f"{percent:.3g}",
        None if row.confidence is None else min(max(row.confidence, 0.0), 1.0),
        standing.get(row.name),
        _floor_note(row),
    )


def _floor_note(row: MorphRow) -> str:
    """What is said of a volume that is below the floor of its model."""
    floor = row.volume_floor_mm3
    if floor is None or not row.below_floor:
        return ""
    return f"below {floor / 1000:g} ml: not distinguishable from none"


def _number(volume: float, scale: float) -> str:
    """In mm3 or, with a scale, in ml: small ones with more decimals."""
    value = volume / scale
    if scale == 1:
        return f"{value:,.{1 if value < 10 else 0}f}"
    return f"{value:,.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def _side(name: str) -> tuple[str, str]:
    """The side of a structure, or an empty one, and its name without it."""
    first, _, rest = name.partition("-")
    return (first.lower(), rest) if first.lower() in ("left", "right") and rest else ("", name)


def _asymmetry(left: MorphRow, right: MorphRow) -> str:
    """Difference of left and right in percent of their mean; positive where left is larger."""
    a, b = left.volume_mm3, right.volume_mm3
    return "n/a" if a is None or b is None or a + b <= 0 else f"{200 * (a - b) / (a + b):+.1f}"
