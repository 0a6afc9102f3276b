"""The tables of the group level that need no reference: see :mod:`.columns`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmrseg_bids.bids.names import group_path
from deepmrseg_bids.bids.participants import People, SessionKey
from deepmrseg_bids.bids.tables import write_table
from deepmrseg_bids.bids.visits import Visits
from deepmrseg_bids.group.background import MoreColumns
from deepmrseg_bids.group.columns import (
    ABSENT,
    ASYMMETRY,
    BACKGROUND,
    CHANGE,
    FLOOR,
    MISSING,
    RATED,
    RETEST,
    STRUCTURES,
    Columns,
)
from deepmrseg_bids.group.times import Times
from deepmrseg_bids.group.volumes import SESSION, TaskVolumes
from deepmrseg_bids.metrics.cohort import (
    FEWEST,
    LIMIT,
    Retest,
    adjust_by_residuals,
    asymmetry_percent,
    deviations,
    flagged,
    retest,
    yearly_change,
)

__all__ = [
    "deviating",
    "write_asymmetry",
    "write_change",
    "write_morphs",
    "write_retest",
    "write_structures",
]

_SIZES = {"intracranial": "intracranial volume", "brain-mask": "volume of the brain mask"}
_LIMITS = {"OutlierLimit": LIMIT, "OutlierFewestSessions": FEWEST}


def deviating(sessions: pd.DataFrame, what: Any, score: Any, flag: Any) -> pd.DataFrame:
    """How far values are from the median session: a row a value.

    Args:
        sessions: the columns `SESSION` of each value.
        what: in words, as ``deepbrain: volume of Left-Caudate``.
        score: the deviation.
        flag: whether it is an outlier; None if there are too few sessions to tell.
    """
    return sessions[SESSION].assign(what=what, score=score, flag=flag)


def write_morphs(
    out_dir: Path,
    volumes: TaskVolumes,
    people: People,
    absent: Mapping[SessionKey, str] | None = None,
) -> Path:
    """Write ``group_seg-<task>_morph.tsv``: one row a session, one column a structure.

    Args:
        people: its sessions are the rows.
        absent: why sessions of them have no volumes.
    """
    path = out_dir / group_path(volumes.name)
    columns: dict[str, Any] = {
        "participant_id": {"Description": "Participant, as in participants.tsv"},
        "session_id": {"Description": "Session; n/a if the data set has no sessions"},
        **{title: people.meaning.get(title) for title in people.table.columns},
        **{name: {"Description": f"Volume of {name}", "Units": "mm^3"} for name in volumes.names},
    }
    table = people.table.join(volumes.wide("volume_mm3"))
    if volumes.ratings is not None:
        columns |= RATED
        table = volumes.rated(table.reset_index()).set_index(SESSION)
    if absent:
        columns |= ABSENT
        table[MISSING] = [absent.get(key) for key in table.index]
    write_table(path, columns, table.reset_index())
    return path


def write_structures(
    out_dir: Path,
    volumes: TaskVolumes,
    more: MoreColumns | None = None,
    *,
    size: str = "intracranial",
) -> pd.DataFrame:
    """Write ``group_seg-<task>_structures.tsv``; returns the deviations, see :func:`deviating`.

    Args:
        more: what is known besides, by age, sex and so on.
        size: of a head, for the residual method: see :meth:`TaskVolumes.head_sizes`.
    """
    sizes, (size, wholes) = volumes.wide("volume_mm3"), volumes.head_sizes(size)
    scores, flags = _deviations(volumes.usable(sizes.apply(np.cbrt)))
    residual, lines = _adjusted(volumes, sizes, wholes, scores)
    table = volumes.table.assign(
        volume_residual_mm3=volumes.long(residual),
        deviation=volumes.long(scores.where(flags.notna())),
        outlier=volumes.long(flags),
    )
    path = out_dir / group_path(volumes.name, "structures")
    wide, facts = ({}, {}) if more is None else (more.wide, more.facts)
    table = table.assign(**{column: volumes.long(values) for column, values in wide.items()})
    columns = {**STRUCTURES, **{name: of for name, of in BACKGROUND.items() if name in wide}}
    if table["volume_floor_mm3"].notna().any():
        below = np.where(table["volume_mm3"] < table["volume_floor_mm3"], "yes", "no")
        known = table["volume_floor_mm3"].notna() & table["volume_mm3"].notna()
        table = table.assign(below_floor=pd.Series(below, table.index).where(known))
        columns = {**columns, **FLOOR}
    if volumes.ratings is not None:
        columns = {**columns, **RATED}
    facts = {**facts, "ResidualMethod": lines, "ResidualHeadSize": _SIZES[size]}
    write_table(path, columns, volumes.rated(table), **facts, **_LIMITS)
    what = f"{volumes.words}: volume of " + table["name"]
    return deviating(table, what, table["deviation"], table["outlier"])


def _deviations(values: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The deviations of each column, and whether they are outliers."""
    scores = pd.DataFrame(deviations(values), index=values.index, columns=values.columns)
    flags = {name: flagged(column) for name, column in scores.items()}
    return scores, pd.DataFrame(flags, index=values.index, columns=values.columns, dtype=object)


def _adjusted(
    volumes: TaskVolumes,
    sizes: pd.DataFrame,
    wholes: pd.Series[float] | None,
    scores: pd.DataFrame,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Volumes by the residual method, and the line of each structure for the JSON."""
    residual = pd.DataFrame(np.nan, index=sizes.index, columns=sizes.columns)
    lines: dict[str, Any] = {}
    if wholes is None:
        return residual, lines
    usual = ~(np.abs(deviations(np.cbrt(wholes))) > LIMIT)
    for name in sizes:
        usable = usual & ~(scores[name].abs() > LIMIT) & volumes.usable(sizes)[name].notna()
        adjusted = adjust_by_residuals(sizes[name], wholes, usable)
        residual[name] = adjusted.volumes
        if math.isfinite(adjusted.slope):
            lines[str(name)] = {
                "Slope": round(adjusted.slope, 8),
                "MeanHeadSize": round(adjusted.mean_brain, 2),
                "Sessions": adjusted.n,
            }
    return residual, lines


def write_asymmetry(out_dir: Path, volumes: TaskVolumes) -> pd.DataFrame | None:
    """Write ``group_seg-<task>_asymmetry.tsv`` if the task has left and right structures.

    Returns:
        The deviations, see :func:`deviating`.
    """
    pairs = [
        name.removeprefix("Left-")
        for name in volumes.names
        if name.startswith("Left-") and name.replace("Left-", "Right-", 1) in volumes.names
    ]
    if not pairs:
        return None
    sizes = volumes.wide("volume_mm3")
    left, right = (
        sizes[[f"{side}-{pair}" for pair in pairs]].set_axis(pairs, axis="columns")
        for side in ("Left", "Right")
    )
    percent = pd.DataFrame(asymmetry_percent(left, right), index=sizes.index, columns=pairs)
    scores, flags = _deviations(volumes.usable(percent))
    table = volumes.sessions.to_frame(index=False).merge(pd.DataFrame({"name": pairs}), "cross")
    wide = {
        "left_mm3": left,
        "right_mm3": right,
        "asymmetry_percent": percent,
        "deviation": scores.where(flags.notna()),
        "outlier": flags,
    }
    table = table.assign(**{column: values.to_numpy().ravel() for column, values in wide.items()})
    path = out_dir / group_path(volumes.name, "asymmetry")
    columns = ASYMMETRY if volumes.ratings is None else {**ASYMMETRY, **RATED}
    write_table(path, columns, volumes.rated(table), **_LIMITS)
    what = f"{volumes.words}: asymmetry of " + table["name"]
    return deviating(table, what, table["deviation"], table["outlier"])


def _visits(volumes: TaskVolumes, times: Times) -> pd.DataFrame:
    """The rows of `TaskVolumes.table` in the order of time, with the column ``years``."""
    table = volumes.table
    # an index that has another name in other sessions is another structure
    table = table[table["name"] == table["index"].map(volumes.structures)]
    order = {key: place for place, key in enumerate(times.in_order(volumes.sources))}
    keys = list(zip(table["participant_id"], table["session_id"], strict=True))
    if volumes.excluded:
        kept = [key not in volumes.excluded for key in keys]
        table, keys = table[kept], [key for key, keep in zip(keys, kept, strict=True) if keep]
    years = [times.of(who, (when,)).years.get(when, math.nan) for who, when in keys]
    table = table.assign(years=years, place=[order[key] for key in keys])
    return table.sort_values("place", kind="stable")


def _known_ends(visits: Visits, sessions: Sequence[str]) -> tuple[str | None, str | None]:
    """The first and last of some sessions in the order of time; None if not known."""
    first = sessions[0] if visits.before(*sessions[:2]) else None
    return first, sessions[-1] if visits.before(*sessions[-2:]) else None


def write_change(out_dir: Path, volumes: TaskVolumes, times: Times) -> Path | None:
    """Write ``group_seg-<task>_change.tsv`` if subjects have several sessions with times."""
    whose = ["participant_id", "index", "name"]
    points = _visits(volumes, times).dropna(subset="years")
    years = points.groupby(whose)["years"]
    points = points[years.transform("max") > years.transform("min")]
    groups = points.groupby(whose)
    change = yearly_change(points["years"], points["volume_mm3"], groups.ngroup())
    table = groups.agg(
        n=("years", "size"),
        begin=("years", "first"),
        end=("years", "last"),
        first_volume_mm3=("volume_mm3", "first"),
        last_volume_mm3=("volume_mm3", "last"),
        first_low=("volume_low_mm3", "first"),
        first_high=("volume_high_mm3", "first"),
        last_low=("volume_low_mm3", "last"),
        last_high=("volume_high_mm3", "last"),
    ).reset_index()
    sessions: dict[int, list[str]] = {}
    for number, session in zip(groups.ngroup(), points["session_id"], strict=True):
        sessions.setdefault(number, []).append(session)
    ends_of = cache(lambda who, of: _known_ends(times.of(who, ()), of))
    of_each = enumerate(table["participant_id"])
    ends = [ends_of(who, tuple(sessions[number])) for number, who in of_each]
    table = table.join(pd.DataFrame(ends, columns=["first_session", "last_session"], dtype=object))
    for end in ("first", "last"):
        unknown = table[f"{end}_session"].isna()
        table[f"{end}_volume_mm3"] = table[f"{end}_volume_mm3"].mask(unknown)
    table = table.assign(
        years=table["end"] - table["begin"],
        time_from=[times.of(who, ()).source for who in table["participant_id"]],
        change_mm3_per_year=change["mm3"],
        change_percent_per_year=change["percent"],
        **_first_to_last(table),
    )
    return _written(out_dir / group_path(volumes.name, "change"), CHANGE, table)


def _first_to_last(table: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """The change in percent, and its 90 % interval: half widths of logarithms in quadrature."""
    known = (table["first_volume_mm3"] > 0) & (table["last_volume_mm3"] > 0)
    ratio = np.log((table["last_volume_mm3"] / table["first_volume_mm3"]).where(known))
    widths = []
    for end in ("first", "last"):
        low, high = table[f"{end}_low"], table[f"{end}_high"]
        widths.append(np.log((high / low).where((low > 0) & (high >= low))) / 2)
    half = np.hypot(*widths)
    return {
        "change_percent": 100 * np.expm1(ratio),
        "change_low_percent": 100 * np.expm1(ratio - half),
        "change_high_percent": 100 * np.expm1(ratio + half),
    }


def write_retest(out_dir: Path, volumes: TaskVolumes, times: Times) -> Path | None:
    """Write ``group_seg-<task>_retest.tsv`` if two subjects or more have several sessions."""
    visits = _visits(volumes, times)
    whose = ["index", "participant_id"]
    visits["visit"] = visits.groupby(whose).cumcount()
    sizes, years, sessions = (
        visits.pivot(index=whose, columns="visit", values=column)
        for column in ("volume_mm3", "years", "session_id")
    )
    sizes = sizes[sizes.count(axis="columns") > 1]
    firsts = sessions.reindex(index=sizes.index, columns=[0, 1])
    ordered = _in_known_order(firsts, times)
    years = years.reindex(index=sizes.index, columns=[0, 1])
    gaps = years[1] - years[0]
    people = sizes.index.get_level_values("index").value_counts()
    rows = []
    for index, name in volumes.structures.items():
        if people.get(index, 0) < 2:
            continue
        row = {"index": index, "name": name, "years_median": gaps.loc[index].median()}
        rows.append(row | _agreement_cells(retest(sizes.loc[index], ordered.loc[index])))
    path = out_dir / group_path(volumes.name, "retest")
    unknown = times.unknown
    more = {"SessionOrderUnknown": unknown} if unknown else {}
    return _written(path, RETEST, pd.DataFrame(rows), **more)


def _in_known_order(firsts: pd.DataFrame, times: Times) -> pd.Series[bool]:
    """Whether the first of two sessions is known to be the earlier one, for each row."""

    @cache
    def known(who: str, one: str, other: str) -> bool:
        return times.of(who, (one, other)).before(one, other) is True

    people = firsts.index.get_level_values("participant_id")
    pairs = zip(people, firsts[0], firsts[1], strict=True)
    return pd.Series([known(*pair) for pair in pairs], index=firsts.index, dtype=bool)


def _agreement_cells(agreement: Retest) -> dict[str, float]:
    """The cells of test and retest."""
    return {
        "n": agreement.n,
        "n_ordered": agreement.n_ordered,
        "ccc": agreement.ccc,
        "ccc_low": agreement.ccc_low,
        "ccc_high": agreement.ccc_high,
        "icc": agreement.icc,
        "bias_mm3": agreement.bias,
        "limit_low_mm3": agreement.lower,
        "limit_high_mm3": agreement.upper,
        "cv_percent": agreement.cv_percent,
    }


def _written(path: Path, columns: Columns, table: pd.DataFrame, **more: Any) -> Path | None:
    """Write a table that has rows; without any, an earlier run's must not stay."""
    if len(table):
        write_table(path, columns, table, **more)
        return path
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    return None
