"""Fit what a bundle states of its volumes by range of load, from samples it never saw.

See :mod:`deepmrseg_bids.inference.calibration` for what each fact means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from deepmrseg_bids.inference.calibration import Calibration, logit
from deepmrseg_bids.train.evaluation import Evaluated

__all__ = ["confidence_fit", "coverage", "floor_of", "interval_ranges"]

_OFFSET_MM3 = 100.0  # errors of smaller loads do not go with the load
_FEWEST = 5  # samples of a range
_RIDGE = 0.05  # so that a handful of samples does not decide the slopes
_LEAST_ML = 0.01


def interval_ranges(
    rows: Sequence[Evaluated], ends: Sequence[float], *, level: float = 0.9
) -> dict[str, Any]:
    """Factors by range of the predicted volume, as ``volume_interval_ranges`` states them.

    In each range, the logarithm of reference over predicted volume, both with an offset, is
    normal with unknown mean and spread: Student's t prediction interval. A range with fewer
    than five samples is joined with the next one.

    Args:
        rows: of one structure, of samples that the model was not trained on.
        ends: where ranges end, mm3, rising; the last one has no end.

    Raises:
        ValueError: fewer than five samples.
    """
    if len(rows) < _FEWEST:
        raise ValueError(f"intervals need at least {_FEWEST} samples, got {len(rows)}")
    volumes = np.array([row.agreement.volume_mm3 for row in rows])
    logs = _logs(rows)
    limits = _joined(volumes, [*ends, math.inf])
    ranges, start = [], 0.0
    for end in limits:
        part = logs[(volumes >= start) & (volumes < end)]
        low, high = _reach(part, level)
        ranges.append([None if math.isinf(end) else end, round(low, 4), round(high, 4)])
        start = end
    return {"offset_mm3": _OFFSET_MM3, "ranges": ranges}


def coverage(
    rows: Sequence[Evaluated], ends: Sequence[float], *, level: float = 0.9
) -> list[tuple[float, int, float]]:
    """How often the interval of all other samples holds the reference, by range.

    Returns:
        Upper end in mm3, number of samples and share of each range.
    """
    held = []
    for place, row in enumerate(rows):
        others = [*rows[:place], *rows[place + 1 :]]
        facts = {"volume_interval_ranges": {"x": interval_ranges(others, ends, level=level)}}
        low, high = Calibration.of(facts, "x").interval(max(row.agreement.volume_mm3, 1e-6))
        assert low is not None and high is not None
        held.append(low - 0.5 <= row.agreement.reference_volume_mm3 <= high + 0.5)
    found, start = [], 0.0
    for end in (*ends, math.inf):
        part = [ok for ok, row in zip(held, rows, strict=True)
                if start <= row.agreement.volume_mm3 < end]  # fmt: skip
        if part:
            found.append((end, len(part), sum(part) / len(part)))
        start = end
    return found


def floor_of(rows: Sequence[Evaluated], *, none_below_mm3: float, level: float = 0.95) -> float:
    """The load below which a person may have no lesions: ``volume_floor``, mm3.

    The upper end of a one-sided prediction interval of what is found beyond the reference in
    another person with few lesions: as much may be found where there are none.

    Args:
        none_below_mm3: a reference below this is few.

    Raises:
        ValueError: fewer than five such samples.
    """
    known = [row.agreement for row in rows]
    beyond = np.array([one.volume_mm3 - one.reference_volume_mm3 for one in known
                       if one.reference_volume_mm3 < none_below_mm3])  # fmt: skip
    n = len(beyond)
    if n < _FEWEST:
        raise ValueError(
            f"a floor needs at least {_FEWEST} samples with a reference below "
            f"{none_below_mm3:g} mm3, got {n}"
        )
    reach = stats.t.ppf(level, n - 1) * np.std(beyond, ddof=1) * math.sqrt(1 + 1 / n)
    return max(0.0, round(float(beyond.mean() + reach), -2))  # to a tenth of a millilitre


def confidence_fit(rows: Sequence[Evaluated]) -> list[float]:
    """How the true Dice goes with the load and the Dice that the posteriors promise.

    Least squares of the logit, with a small penalty on the slopes; for ``confidence_fit``.

    Args:
        rows: of one structure, whose confidence is that of the posteriors (a model without
            ``confidence_fit``); those in which nothing was found are left out.

    Raises:
        ValueError: fewer than five samples.
    """
    known = [row for row in rows if row.confidence is not None and row.agreement.volume_mm3 > 0]
    if len(known) < _FEWEST:
        raise ValueError(f"a confidence needs at least {_FEWEST} samples, got {len(known)}")
    loads = [math.log10(max(row.agreement.volume_mm3 / 1000, _LEAST_ML)) for row in known]
    promised = [logit(row.confidence or 0.0) for row in known]
    dice = np.array([logit(min(max(row.agreement.f1, 0.02), 0.98)) for row in known])
    columns = np.stack([np.ones(len(known)), loads, promised], axis=1)
    penalty = len(known) * np.diag([0.0, _RIDGE, _RIDGE])
    fit = np.linalg.solve(columns.T @ columns + penalty, columns.T @ dice)
    return [round(float(value), 4) for value in fit]


def _logs(rows: Sequence[Evaluated]) -> NDArray[np.float64]:
    pairs = np.array(
        [[row.agreement.reference_volume_mm3, row.agreement.volume_mm3] for row in rows]
    )
    logs: NDArray[np.float64] = np.diff(np.log(pairs[:, ::-1] + _OFFSET_MM3), axis=1)[:, 0]
    return logs


def _joined(volumes: NDArray[np.float64], limits: Sequence[float]) -> list[float]:
    """The ends of ranges that hold enough samples each; the last is infinite."""
    kept: list[float] = []
    start = 0.0
    for end in limits:
        inside = int(((volumes >= start) & (volumes < end)).sum())
        if inside >= _FEWEST:
            kept.append(end)
            start = end
    if kept and not math.isinf(kept[-1]):
        kept[-1] = math.inf
    return kept or [math.inf]


def _reach(logs: NDArray[np.float64], level: float) -> tuple[float, float]:
    n = len(logs)
    half = stats.t.ppf(0.5 + level / 2, n - 1) * np.std(logs, ddof=1) * math.sqrt(1 + 1 / n)
    return math.exp(logs.mean() - half), math.exp(logs.mean() + half)
