"""What the volumes of many sessions say together: outliers, head size, sides, time, repetition.

Arrays of volumes have axes ``(sessions, structures)`` or ``(sessions,)``, in mm3; nan is a volume
that is not known. Nothing here needs more sessions than structures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from deepmrseg_bids.errors import MetricError
from deepmrseg_bids.metrics.reliability import bland_altman, concordance, concordance_interval, icc

__all__ = [
    "FEWEST",
    "LIMIT",
    "Adjusted",
    "JointDeviations",
    "Retest",
    "adjust_by_residuals",
    "asymmetry_percent",
    "deviations",
    "flagged",
    "joint_deviations",
    "retest",
    "yearly_change",
]

LIMIT = 3.5
"""A deviation beyond this is an outlier (Iglewicz and Hoaglin 1993)."""
FEWEST = 10
"""With fewer sessions the median absolute deviation is too unsure for flags: of 10 normal values
1.7 % lie beyond the limit by chance, of 5 it is 5 %, of 200 it is 0.07 %."""
_SHORTEST = 30 / 365.25  # years: below, the noise of a volume is divided by next to nothing

_Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class JointDeviations:
    """How unusual sessions are with all their values together.

    Attributes:
        score: ``(sessions,)``: robust standard deviations above the median session; nan for a
            session with less than half of its values, and for all if fewer than 3 remain.
        share: ``(sessions, structures)``: what each value adds to the session's distance; the
            shares of a session sum to 1. One below 0 makes the others less unusual.
    """

    score: _Floats
    share: _Floats


@dataclass(frozen=True)
class Adjusted:
    """Volumes adjusted for brain size by the residual method.

    Attributes:
        volumes: ``(sessions,)`` in mm3: each as it would be in a brain of size ``mean_brain``.
        slope: mm3 of the structure for a mm3 of brain.
        mean_brain: in mm3, of the sessions that the line was fitted to.
        n: how many sessions that were.
    """

    volumes: _Floats
    slope: float
    mean_brain: float
    n: int


@dataclass(frozen=True)
class Retest:
    """Agreement between two sessions of the same people, without a reference; nan if unknown.

    Attributes:
        n: people.
        n_ordered: those of them of whom it is known which volume is the first.
        ccc, ccc_low, ccc_high: concordance with its 95 % interval, from 3 people on.
        icc: ICC(2,1), from 3 people on: of 2 it has no lower bound.
        bias, lower, upper: second minus first of those, and its limits of agreement, in mm3.
        cv_percent: within-subject coefficient of variation, over all sessions.
    """

    n: int
    n_ordered: int
    ccc: float
    ccc_low: float
    ccc_high: float
    icc: float
    bias: float
    lower: float
    upper: float
    cv_percent: float


def deviations(values: npt.ArrayLike) -> _Floats:
    """Modified z-scores along the first axis: (x - median) / (1.4826 MAD), same shape.

    MAD is the median absolute deviation (Iglewicz and Hoaglin, How to Detect and Handle
    Outliers, 1993). Where more than half of the values are equal it is 0, and 1.2533 times the
    mean absolute deviation takes its place; where all are equal, all deviations are 0. nan where
    a value is nan, and everywhere in a column with fewer than 3 values.

    >>> deviations([1.0, 2.0, 3.0, 4.0, 30.0]).round(2).tolist()
    [-1.35, -0.67, 0.0, 0.67, 18.21]
    """
    x = np.asarray(values, dtype=np.float64)
    table = pd.DataFrame(x.reshape(len(x), -1))
    table = table.where(np.isfinite(table))
    table.loc[:, table.count() < 3] = np.nan
    away = table - table.median()
    spread = 1.4826 * away.abs().median()
    spread = spread.where(spread > 0, 1.2533 * away.abs().mean())
    scores = (away / spread.where(spread > 0)).fillna(0 * away)
    return np.array(scores, dtype=np.float64).reshape(x.shape)


def flagged(scores: npt.ArrayLike) -> list[bool | None]:
    """Whether each of the deviations ``(sessions,)`` is beyond `LIMIT`, either way.

    None where one is nan, and for all if fewer than `FEWEST` are not.

    >>> flagged([0.0] * 9 + [4.0])[-1], flagged([0.0, 4.0])
    (True, [None, None])
    """
    x = np.asarray(scores, dtype=np.float64)
    if np.count_nonzero(np.isfinite(x)) < FEWEST:
        return [None] * len(x)
    return [None if math.isnan(score) else bool(abs(score) > LIMIT) for score in x]


def joint_deviations(scores: npt.ArrayLike) -> JointDeviations:
    """Sessions that are unusual in the space of all their values, with n below p too.

    The deviations ``(sessions, structures)`` of `deviations` are clipped to +-`LIMIT`, so that
    outliers cannot bend their covariance (Raymaekers and Rousseeuw, Technometrics 63, 2021), and
    this is shrunk towards a multiple of the identity (Ledoit and Wolf, J. Multivar. Anal. 88,
    2004), so that it can be inverted with any number of sessions. The squared Mahalanobis
    distances of the unclipped deviations, made normal by their cube roots (Wilson and Hilferty
    1931), are compared with their own median and MAD. What a session lacks counts as the median.

    >>> rng = np.random.default_rng(1)
    >>> size = rng.standard_normal(100)
    >>> pairs = np.stack([size, size + 0.1 * rng.standard_normal(100)], axis=1)
    >>> pairs[7] = (1.5, -1.5)  # each alone is nothing special
    >>> int(np.argmax(joint_deviations(deviations(pairs)).score))
    7
    """
    z = np.asarray(scores, dtype=np.float64)
    known = np.isfinite(z)
    columns = known.any(axis=0)
    share = np.zeros(z.shape)
    enough = known.sum(axis=1) * 2 >= max(1, np.count_nonzero(columns))
    if np.count_nonzero(enough) < 3:
        return JointDeviations(np.full(len(z), np.nan), share)
    filled = np.where(known, z, 0.0)[np.ix_(enough, columns)]
    covariance = _shrunk_covariance(np.clip(filled, -LIMIT, LIMIT))
    parts = filled * np.linalg.solve(covariance, filled.T).T  # (sessions, structures)
    squared = parts.sum(axis=1)
    score = np.full(len(z), np.nan)
    score[enough] = deviations(np.cbrt(squared / filled.shape[1]))
    share[np.ix_(enough, columns)] = parts / np.where(squared > 0, squared, 1)[:, None]
    return JointDeviations(score, share)


def _shrunk_covariance(x: _Floats) -> _Floats:
    """Ledoit and Wolf's estimate from rows of observations; positive definite."""
    n, p = x.shape
    x = x - x.mean(axis=0)
    sample = x.T @ x / n
    scale = float(np.trace(sample)) / p or 1.0
    distance = float(((sample - scale * np.eye(p)) ** 2).sum())
    noise = float((x**2).T.dot(x**2).sum() / n - (sample**2).sum()) / n
    weight = min(1.0, noise / distance) if distance else 1.0
    # not all of the weight to the sample: with few sessions it may have no inverse
    weight = max(weight, 1e-6)
    return np.asarray((1 - weight) * sample + weight * scale * np.eye(p))


def adjust_by_residuals(
    volumes: npt.ArrayLike, brains: npt.ArrayLike, usable: npt.ArrayLike
) -> Adjusted:
    """Take brain size out of volumes: V - b (B - mean B), with b the slope of V over B.

    The residual method (Mathalon et al., Psychiatry Res. Neuroimaging 50, 1993; Buckner et al.,
    NeuroImage 23, 2004). Unlike the proportion V / B, it holds where a structure grows less than
    the brain does.

    Args:
        volumes, brains: ``(sessions,)`` in mm3; nan where unknown.
        usable: ``(sessions,)`` boolean: the line is fitted to these only (no outliers). All
            volumes are adjusted.

    With fewer than 3 usable sessions, or brains all of one size, all volumes are nan.

    >>> found = adjust_by_residuals([10.0, 12.0, 14.0], [100.0, 110.0, 120.0], [True] * 3)
    >>> found.volumes.tolist(), found.slope
    ([12.0, 12.0, 12.0], 0.2)
    """
    v, b = np.asarray(volumes, dtype=np.float64), np.asarray(brains, dtype=np.float64)
    fitted = np.asarray(usable, dtype=bool) & np.isfinite(v) & np.isfinite(b)
    n = int(np.count_nonzero(fitted))
    mean = float(b[fitted].mean()) if n else math.nan
    away = b[fitted] - mean
    spread = float((away**2).sum())
    if n < 3 or not spread:
        return Adjusted(np.full(v.shape, np.nan), math.nan, mean, n)
    slope = float((away * v[fitted]).sum()) / spread
    return Adjusted(v - slope * (b - mean), slope, mean, n)


def asymmetry_percent(left: npt.ArrayLike, right: npt.ArrayLike) -> _Floats:
    """100 (left - right) / mean of both, from -200 to 200; nan without any volume.

    >>> asymmetry_percent([110.0, 0.0], [90.0, 0.0]).tolist()
    [20.0, nan]
    """
    left, right = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    total = np.where(left + right > 0, left + right, np.nan)
    return np.asarray(200 * (left - right) / total)


def yearly_change(
    years: npt.ArrayLike, volumes: npt.ArrayLike, whose: npt.ArrayLike
) -> pd.DataFrame:
    """Change a year: slope of the least-squares line in mm3, and in percent of the mean volume.

    Args:
        years, volumes: ``(values,)`` of all people and structures, all of them known.
        whose: ``(values,)`` one number for each person and structure: a line is fitted to each.

    Returns:
        A row for each of ``whose``, by rising number, with the columns ``mm3`` and ``percent``:
        nan for both within 30 days; nan for the percentage if there is no volume.

    >>> change = yearly_change([0.0, 1.0, 0.0, 2.0], [101.0, 99.0, 52.0, 48.0], [1, 1, 2, 2])
    >>> change["mm3"].tolist(), change["percent"].tolist()
    ([-2.0, -2.0], [-2.0, -4.0])
    """
    points = pd.DataFrame({"t": years, "v": volumes, "whose": whose})
    lines = points.groupby("whose")
    away = points["t"] - lines["t"].transform("mean")
    sums = pd.DataFrame({"tv": away * points["v"], "tt": away**2}).groupby(points["whose"]).sum()
    span = lines["t"].max() - lines["t"].min()
    slope = (sums["tv"] / sums["tt"]).where(span >= _SHORTEST)
    mean = lines["v"].mean()
    return pd.DataFrame({"mm3": slope, "percent": 100 * slope / mean.where(mean > 0)})


def retest(people: npt.ArrayLike, ordered: npt.ArrayLike | None = None) -> Retest:
    """Agreement of the first two volumes of each person, and variation over all of them.

    The within-subject coefficient of variation is the root mean square over people of standard
    deviation over mean (Hyslop and White 2009); people without any volume do not enter it.

    Args:
        people: ``(people, sessions)`` in mm3, in the order of the sessions; nan in those that
            somebody has not. The first two are all known.
        ordered: ``(people,)`` boolean: the order of the first two is known; that of all unless
            given. What has a sign is measured in these alone.

    >>> retest([[100.0, 102.0], [200.0, 198.0], [300.0, 300.0]]).n
    3
    """
    table = pd.DataFrame(np.asarray(people, dtype=np.float64))
    if len(table.columns) < 2 or not np.isfinite(table[[0, 1]]).all(axis=None):
        raise MetricError("test-retest requires two volumes of each participant")
    n = len(table)
    first, second = table[0].to_numpy(), table[1].to_numpy()
    nan = math.nan
    low, high = concordance_interval(second, first) if n > 2 else (nan, nan)
    sure = np.ones(n, dtype=bool) if ordered is None else np.asarray(ordered, dtype=bool)
    limits = bland_altman(second[sure], first[sure]) if sure.sum() > 1 else None
    mean = table.mean(axis=1)
    variation = (table.std(axis=1) / mean)[mean > 0]
    return Retest(
        n=n,
        n_ordered=int(sure.sum()),
        ccc=concordance(second, first) if n > 2 else nan,
        ccc_low=low,
        ccc_high=high,
        icc=icc(second, first) if n > 2 else nan,
        bias=limits.bias if limits else nan,
        lower=limits.lower if limits else nan,
        upper=limits.upper if limits else nan,
        cv_percent=100 * math.sqrt((variation**2).mean()) if len(variation) else nan,
    )
