"""The tables of the group level that need no reference: see :mod:`.group_columns`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.bids.names import group_path
from deepmrseg_bids.bids.participants import Key, People, session_years
from deepmrseg_bids.bids.tables import write_table
from deepmrseg_bids.group.columns import ASYMMETRY, CHANGE, RETEST, STRUCTURES, Columns
from deepmrseg_bids.group.volumes import TaskVolumes
from deepmrseg_bids.metrics.cohort import (
    FEWEST,
    LIMIT,
    adjust_by_residuals,
    asymmetry_percent,
    deviations,
    flagged,
    retest,
    yearly_change,
)

__all__ = [
    "Deviation",
    "Times",
    "who",
    "write_asymmetry",
    "write_change",
    "write_morphs",
    "write_retest",
    "write_structures",
]

Rows = list[dict[str, object]]


@dataclass(frozen=True)
class Deviation:
    """How far one value of a session is from the median session.

    Attributes:
        what: in words, as ``deepbrain: volume of Left-Caudate``.
        flagged: None if there are too few sessions to tell.
    """

    what: str
    score: float
    flagged: bool | None


Deviations = dict[Key, list[Deviation]]


def write_morphs(out_dir: Path, volumes: TaskVolumes, people: People) -> Path:
    """Write ``group_seg-<task>_morph.tsv``: one row a session, one column a structure."""
    path = out_dir / group_path(volumes.task)
    columns: dict[str, Any] = {
        "participant_id": {"Description": "Participant, as in participants.tsv"},
        "session_id": {"Description": "Session; n/a where the data set has none"},
        **{title: people.meaning.get(title) for title in people.columns},
        **{name: {"Description": f"Volume of {name}", "Units": "mm^3"} for name in volumes.names},
    }
    rows = []
    for key, found in volumes.rows.items():
        person = {title: value or None for title, value in people.rows.get(key, {}).items()}
        sizes = {row.name: round(row.volume_mm3, 2) for row in found}
        rows.append({**person, **who(key), **{k: f"{v + 0.0:.2f}" for k, v in sizes.items()}})
    write_table(path, columns, rows)
    return path


def write_structures(out_dir: Path, volumes: TaskVolumes) -> Deviations:
    """Write ``group_seg-<task>_structures.tsv``; returns the deviations by session."""
    sizes, brains = volumes.values("volume_mm3"), volumes.brains()
    scores = deviations(np.cbrt(sizes))
    flags = [flagged(column) for column in scores.T]
    odd: Deviations = {key: [] for key in volumes.rows}
    residual, slopes = _adjusted(volumes, sizes, brains, scores)
    place = {name: number for number, name in enumerate(volumes.names)}
    rows: Rows = []
    for number, (key, found) in enumerate(volumes.rows.items()):
        for row in found:
            column = place[row.name]
            score, flag = float(scores[number, column]), flags[column][number]
            odd[key].append(Deviation(f"{volumes.task}: volume of {row.name}", score, flag))
            rows.append(
                {
                    **who(key),
                    "index": row.index,
                    "name": row.name,
                    "volume_mm3": row.volume_mm3,
                    "volume_low_mm3": row.volume_low_mm3,
                    "volume_high_mm3": row.volume_high_mm3,
                    "confidence": row.confidence,
                    "volume_icv_percent": row.volume_icv_percent,
                    "volume_residual_mm3": float(residual[number, column]),
                    "deviation": score,
                    "outlier": flag,
                }
            )
    path = out_dir / group_path(volumes.task, "structures")
    write_table(path, STRUCTURES, rows, ResidualMethod=slopes, **_LIMITS)
    return odd


_LIMITS = {"OutlierLimit": LIMIT, "OutlierFewestSessions": FEWEST}


def _adjusted(
    volumes: TaskVolumes,
    sizes: NDArray[np.float64],
    brains: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Volumes by the residual method, and the line of each structure for the JSON."""
    residual = np.full(sizes.shape, np.nan)
    lines: dict[str, Any] = {}
    if volumes.task == "brain":
        return residual, lines
    usual = ~(np.abs(deviations(np.cbrt(brains))) > LIMIT)
    for column, name in enumerate(volumes.names):
        usable = usual & ~(np.abs(scores[:, column]) > LIMIT)
        found = adjust_by_residuals(sizes[:, column], brains, usable)
        residual[:, column] = found.volumes
        if math.isfinite(found.slope):
            lines[name] = {
                "Slope": round(found.slope, 8),
                "MeanBrainVolume": round(found.mean_brain, 2),
                "Sessions": found.n,
            }
    return residual, lines


def write_asymmetry(out_dir: Path, volumes: TaskVolumes) -> Deviations:
    """Write ``group_seg-<task>_asymmetry.tsv`` if the task has left and right structures.

    Returns:
        The deviations by session.
    """
    place = {name: number for number, name in enumerate(volumes.names)}
    pairs = [
        name.removeprefix("Left-")
        for name in place
        if name.startswith("Left-") and name.replace("Left-", "Right-", 1) in place
    ]
    if not pairs:
        return {}
    sizes = volumes.values("volume_mm3")
    values = np.full((len(volumes.rows), len(pairs)), np.nan)
    for column, pair in enumerate(pairs):
        for number, (left, right) in enumerate(
            sizes[:, [place[f"Left-{pair}"], place[f"Right-{pair}"]]]
        ):
            values[number, column] = asymmetry_percent(float(left), float(right))
    scores = deviations(values)
    flags = [flagged(column) for column in scores.T]
    odd: Deviations = {key: [] for key in volumes.rows}
    rows: Rows = []
    for number, key in enumerate(volumes.rows):
        for column, pair in enumerate(pairs):
            score, flag = float(scores[number, column]), flags[column][number]
            odd[key].append(Deviation(f"{volumes.task}: asymmetry of {pair}", score, flag))
            rows.append(
                {
                    **who(key),
                    "name": pair,
                    "left_mm3": float(sizes[number, place[f"Left-{pair}"]]),
                    "right_mm3": float(sizes[number, place[f"Right-{pair}"]]),
                    "asymmetry_percent": float(values[number, column]),
                    "deviation": score,
                    "outlier": flag,
                }
            )
    path = out_dir / group_path(volumes.task, "asymmetry")
    write_table(path, ASYMMETRY, rows, **_LIMITS)
    return odd


@dataclass(frozen=True)
class Times:
    """When the sessions of each subject were.

    Attributes:
        years: by session, from any zero within a subject.
        source: by subject: scans.tsv, sessions.tsv or age.
    """

    years: Mapping[Key, float] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, bids_dir: Path, volumes: Iterable[TaskVolumes]) -> Times:
        """The times of the subjects that have several sessions."""
        stems: dict[str, dict[str, str]] = {}
        for task in volumes:
            for (subject, session), stem in task.sources.items():
                stems.setdefault(subject, {})[session] = stem
        years: dict[Key, float] = {}
        source = {}
        for subject, sources in stems.items():
            if len(sources) < 2:
                continue
            found, source[subject] = session_years(bids_dir, subject, sources)
            years |= {(subject, session): time for session, time in found.items()}
        return cls(years, source)


def _several(volumes: TaskVolumes) -> dict[str, list[Key]]:
    """The sessions of each subject that has several."""
    by_subject: dict[str, list[Key]] = {}
    for key in volumes.rows:
        by_subject.setdefault(key[0], []).append(key)
    return {subject: keys for subject, keys in by_subject.items() if len(keys) > 1}


def write_change(out_dir: Path, volumes: TaskVolumes, times: Times) -> Path | None:
    """Write ``group_seg-<task>_change.tsv`` if subjects have several sessions with times."""
    rows: Rows = []
    for subject, keys in _several(volumes).items():
        timed = sorted((times.years[key], key) for key in keys if key in times.years)
        for index, name in volumes.structures:
            points = [
                (when, key, row.volume_mm3)
                for when, key in timed
                for row in volumes.rows[key]
                if (row.index, row.name) == (index, name)
            ]
            if len(points) < 2:
                continue
            years, sessions, sizes = zip(*points, strict=True)
            slope, percent = yearly_change(years, sizes)
            rows.append(
                {
                    "participant_id": subject,
                    "index": index,
                    "name": name,
                    "n": len(points),
                    "first_session": sessions[0][1],
                    "last_session": sessions[-1][1],
                    "years": years[-1] - years[0],
                    "time_from": times.source[subject],
                    "first_volume_mm3": sizes[0],
                    "last_volume_mm3": sizes[-1],
                    "change_mm3_per_year": slope,
                    "change_percent_per_year": percent,
                }
            )
    return _written(out_dir / group_path(volumes.task, "change"), CHANGE, rows)


def write_retest(out_dir: Path, volumes: TaskVolumes, times: Times) -> Path | None:
    """Write ``group_seg-<task>_retest.tsv`` if two subjects or more have several sessions."""
    several = _several(volumes)
    rows: Rows = []
    for index, name in volumes.structures if len(several) > 1 else ():
        people, gaps = [], []
        for keys in several.values():
            order = sorted(keys, key=lambda key: (times.years.get(key, math.inf), key))
            found = [
                (key, row.volume_mm3)
                for key in order
                for row in volumes.rows[key]
                if (row.index, row.name) == (index, name)
            ]
            if len(found) < 2:
                continue
            people.append([size for _, size in found])
            first, second = (times.years.get(key) for key, _ in found[:2])
            if first is not None and second is not None:
                gaps.append(second - first)
        if len(people) < 2:
            continue
        agreed = retest(people)
        rows.append(
            {
                "index": index,
                "name": name,
                "n": agreed.n,
                "ccc": agreed.ccc,
                "ccc_low": agreed.ccc_low,
                "ccc_high": agreed.ccc_high,
                "icc": agreed.icc,
                "bias_mm3": agreed.bias,
                "limit_low_mm3": agreed.lower,
                "limit_high_mm3": agreed.upper,
                "cv_percent": agreed.cv_percent,
                "years_median": float(np.median(gaps)) if gaps else None,
            }
        )
    return _written(out_dir / group_path(volumes.task, "retest"), RETEST, rows)


def who(key: Key) -> dict[str, object]:
    """The two first cells of a row."""
    return {"participant_id": key[0], "session_id": key[1] or None}


def _written(path: Path, columns: Columns, rows: Rows) -> Path | None:
    """Write a table that has rows; without any, an earlier run's must not stay."""
    if rows:
        write_table(path, columns, rows)
        return path
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)
    return None
