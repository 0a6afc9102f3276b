"""Agreement of numbers in pairs, such as volumes: CCC, ICC, Bland-Altman, a paired test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from deepmrseg_bids.errors import MetricError
from deepmrseg_bids.wording import counted

__all__ = [
    "BlandAltman",
    "Kappa",
    "PairedTest",
    "bland_altman",
    "concordance",
    "concordance_interval",
    "icc",
    "kappa",
    "paired_test",
]

_Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BlandAltman:
    """Differences x - y: mean (bias), standard deviation, limits of agreement, pairs."""

    bias: float
    sd: float
    lower: float
    upper: float
    n: int


@dataclass(frozen=True, slots=True)
class Kappa:
    """Cohen's kappa of two raters: with its 95 % interval, and with linear weights.

    nan where both gave one and the same rating to everything.
    """

    kappa: float
    low: float
    high: float
    weighted: float


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Differences x - y of paired values, and how likely chance would make them.

    Attributes:
        n: pairs in which both values are there.
        w: the statistic of Wilcoxon's signed-rank test, the smaller sum of ranks.
        p: two-sided; 1 if no pair differs.
        rank_biserial: effect size in [-1, 1]: the share of ranks in favour of x, minus that
            in favour of y (Kerby 2014).
        dz: effect size: mean difference over its standard deviation (Cohen 1988); nan if
            all differences are equal.
    """

    n: int
    mean: float
    median: float
    w: float
    p: float
    rank_biserial: float
    dz: float


def concordance(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Lin's concordance correlation coefficient of n pairs, in [-1, 1].

    CCC = 2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2) with moments over n (Lin, Biometrics 45, 1989).
    0 if either side is constant, as the formula says; nan if both are constant and equal (0 / 0):
    volumes that never vary are no evidence of agreement.

    Raises `MetricError` unless x and y are finite vectors of one length, 2 or more.

    >>> round(concordance([1, 2, 3], [2, 3, 4]), 4)  # (4/3) / (2/3 + 2/3 + 1) = 4/7
    0.5714
    """
    a, b = _pairs(x, y, minimum=2)
    if _constant(a) or _constant(b):
        return math.nan if np.array_equal(a, b) else 0.0
    da, db = a - a.mean(), b - b.mean()
    spread = float(np.mean(da * da) + np.mean(db * db) + (a.mean() - b.mean()) ** 2)
    return min(1.0, max(-1.0, _ratio(2 * float(np.mean(da * db)), spread)))


def concordance_interval(
    x: npt.ArrayLike, y: npt.ArrayLike, *, level: float = 0.95
) -> tuple[float, float]:
    """Confidence interval of `concordance`: Fisher's z with Lin's asymptotic variance.

    With r Pearson's correlation, C = CCC / r and u = (m_x - m_y) / sqrt(s_x s_y), the variance is
    (Lin 1989 as corrected in Lin, Biometrics 56, 2000)
    [(1 - r^2) C^2 / (1 - CCC^2) + 2 CCC^2 (1 - CCC) C u^2 / (1 - CCC^2)^2
    - CCC^2 C^2 u^4 / (2 (1 - CCC^2)^2)] / (n - 2).
    It assumes pairs drawn from a bivariate normal distribution. Without any disagreement it is
    (1, 1), or (-1, -1) for its mirror image; (nan, nan) if either side is constant.

    Raises `MetricError` as `concordance`, for n below 3 and for a level outside (0, 1).

    >>> low, high = concordance_interval([1, 2, 3, 4, 5], [1.1, 2.2, 2.9, 4.3, 4.8])
    >>> round(low, 3), round(high, 3)
    (0.918, 0.999)
    """
    a, b = _pairs(x, y, minimum=3)
    if not 0 < level < 1:
        raise MetricError(f"level must lie between 0 and 1, got {level}")
    ccc = concordance(a, b)
    sds = float(a.std() * b.std())
    if _constant(a) or _constant(b) or sds == 0:
        return math.nan, math.nan
    if abs(ccc) == 1:
        return ccc, ccc
    gap = float(a.mean() - b.mean()) ** 2
    r = float(np.mean((a - a.mean()) * (b - b.mean()))) / sds
    c, u2, rest = 2 * sds / (float(a.var() + b.var()) + gap), gap / sds, 1 - ccc**2
    linear = (1 - r**2) * c**2 / rest
    shift = (2 * ccc**2 * (1 - ccc) * c * u2 - ccc**2 * c**2 * u2**2 / 2) / rest**2
    se = math.sqrt(max(0.0, linear + shift) / (a.size - 2))
    half = NormalDist().inv_cdf((1 + level) / 2) * se
    return math.tanh(math.atanh(ccc) - half), math.tanh(math.atanh(ccc) + half)


def icc(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Intraclass correlation ICC(2,1): two-way random, absolute agreement, single measure.

    (MSR - MSE) / (MSR + MSE + 2 (MSC - MSE) / n) for two raters and n subjects, from the mean
    squares of subjects, raters and error (Shrout and Fleiss, Psychol. Bull. 86, 1979). At most 1;
    negative if disagreement outweighs the differences between subjects. As in `concordance`, 0 if
    a side is constant, nan if both are and are equal; nan wherever the denominator is 0.

    Raises `MetricError` unless x and y are finite vectors of one length, 2 or more.

    >>> round(icc([1, 2, 3], [2, 3, 4]), 4)  # MSR 2, MSC 1.5, MSE 0: 2 / (2 + 1)
    0.6667
    """
    a, b = _pairs(x, y, minimum=2)
    if _constant(a) or _constant(b):
        return math.nan if np.array_equal(a, b) else 0.0
    n, grand = a.size, (a.mean() + b.mean()) / 2
    rows = 2 * float(np.sum(((a + b) / 2 - grand) ** 2)) / (n - 1)
    columns = n * float((a.mean() - grand) ** 2 + (b.mean() - grand) ** 2)
    difference = a - b
    error = float(np.sum((difference - difference.mean()) ** 2)) / 2 / (n - 1)
    return _ratio(rows - error, rows + error + 2 * (columns - error) / n)


def bland_altman(x: npt.ArrayLike, y: npt.ArrayLike) -> BlandAltman:
    """Bias and 95 % limits of agreement, bias -/+ 1.96 sd, of x - y (Bland and Altman 1986).

    ``sd`` divides by n - 1; the unit is that of the data.

    Raises `MetricError` unless x and y are finite vectors of one length, 2 or more.

    >>> found = bland_altman([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    >>> found.bias, found.sd, round(found.lower, 2), found.upper
    (2.0, 1.0, 0.04, 3.96)
    """
    a, b = _pairs(x, y, minimum=2)
    bias, sd = float((a - b).mean()), float((a - b).std(ddof=1))
    return BlandAltman(bias, sd, bias - 1.96 * sd, bias + 1.96 * sd, a.size)


def paired_test(x: npt.ArrayLike, y: npt.ArrayLike) -> PairedTest:
    """Wilcoxon's signed-rank test of paired values, with effect sizes (Wilcoxon 1945).

    Pairs with a nan on either side are left out; pairs without a difference do not enter the
    ranks. Exact for few pairs without ties, else the normal approximation.

    Raises `MetricError` unless x and y are vectors of one length with a pair in common.

    >>> found = paired_test([0.9, 0.8, 0.7, 0.95], [0.85, 0.7, 0.72, 0.8])
    >>> found.n, found.w, found.p, round(found.rank_biserial, 2)
    (4, 1.0, 0.25, 0.8)
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise MetricError(f"expected two vectors of one length, got {a.shape} and {b.shape}")
    difference = (a - b)[np.isfinite(a - b)]
    if not difference.size:
        raise MetricError("no pair has a value on both sides")
    n, mean, median = difference.size, float(difference.mean()), float(np.median(difference))
    spread = math.nan if n < 2 or _constant(difference) else float(difference.std(ddof=1))
    dz = mean / spread if spread else math.nan
    moved = difference[difference != 0]
    if not moved.size:
        return PairedTest(n, mean, median, 0.0, 1.0, 0.0, dz)
    ranks = stats.rankdata(np.abs(moved))
    above, below = float(ranks[moved > 0].sum()), float(ranks[moved < 0].sum())
    p = float(stats.wilcoxon(moved).pvalue)
    effect = (above - below) / (above + below)
    return PairedTest(n, mean, median, min(above, below), p, effect, dz)


def kappa(x: npt.ArrayLike, y: npt.ArrayLike, *, levels: int) -> Kappa:
    """Cohen's kappa (Educ. Psychol. Meas. 20, 1960) of ratings from 0 to ``levels - 1``.

    >>> round(kappa([0, 0, 1, 2], [0, 1, 1, 2], levels=3).kappa, 3)
    0.636
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    a, b = _pairs(x, y, minimum=1)
    table = np.zeros((levels, levels))
    np.add.at(table, (a.astype(int), b.astype(int)), 1)
    if np.count_nonzero(table.sum(axis=0) + table.sum(axis=1)) < 2:
        return Kappa(math.nan, math.nan, math.nan, math.nan)
    with np.errstate(divide="ignore", invalid="ignore"):  # its tests, where no rating differs
        found = cohens_kappa(table)
        weighted = float(cohens_kappa(table, wt="linear").kappa)
    low, high = max(-1.0, float(found.kappa_low)), min(1.0, float(found.kappa_upp))
    return Kappa(float(found.kappa), low, high, weighted)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _constant(values: _Floats) -> bool:
    # A rounded mean can leave a constant vector a variance above 0, so compare the values.
    return bool(np.all(values == values[0]))


def _pairs(x: npt.ArrayLike, y: npt.ArrayLike, *, minimum: int) -> tuple[_Floats, _Floats]:
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise MetricError(f"x and y must be vectors of one length, got {a.shape} and {b.shape}")
    if a.size < minimum:
        raise MetricError(f"at least {counted(minimum, 'pair')} are needed, got {a.size}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise MetricError("x and y must be finite: remove pairs that are nan or infinite")
    return a, b
