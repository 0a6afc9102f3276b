"""Networks compared on people that none of them saw: scores, paired tests, calibration."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from deepmrseg_bids.errors import MetricError
from deepmrseg_bids.metrics.reliability import PairedTest, paired_test
from deepmrseg_bids.train.evaluation import (
    Evaluated,
    interval_holds,
    structure_summaries,
    volume_intervals,
)

__all__ = ["Judged", "calibration", "compare", "summaries"]

_MEASURES: dict[str, Callable[[Evaluated], float]] = {
    "f1": lambda row: row.agreement.f1,
    "f2": lambda row: row.agreement.f2,
    "bacc": lambda row: row.agreement.bacc,
    "volume_error_mm3": lambda row: row.volume_difference_mm3,
}


@dataclass(frozen=True)
class Judged:
    """One structure of one sample, segmented by a network that never saw that person."""

    network: str
    repeat: int
    fold: int
    row: Evaluated


def summaries(judged: Sequence[Judged]) -> dict[str, list[dict[str, Any]]]:
    """For each network, one entry a structure: means and deviations over samples and repeats.

    The concordance of volumes is that of each repeat (a sample occurs once), averaged.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for network in dict.fromkeys(one.network for one in judged):
        mine = [one for one in judged if one.network == network]
        entries = structure_summaries([one.row for one in mine])
        repeats = [
            {entry["index"]: entry["ccc"] for entry in structure_summaries(rows)}
            for repeat in sorted({one.repeat for one in mine})
            if (rows := [one.row for one in mine if one.repeat == repeat])
        ]
        for entry in entries:
            cccs = [ccc[entry["index"]] for ccc in repeats if entry["index"] in ccc]
            entry["ccc"] = float(np.mean(cccs))
        found[network] = entries
    return found


def compare(judged: Sequence[Judged], first: str, second: str) -> list[dict[str, Any]]:
    """Test two networks against each other, structure by structure and measure by measure.

    Each sample counts once: its scores are averaged over repeats first. ``p_holm`` is
    corrected over the structures of a measure (Holm 1979). For ``volume_error_mm3`` the
    smaller is the better; for the others the larger.
    """
    names = dict.fromkeys((one.row.agreement.index, one.row.name) for one in judged)
    rows: list[dict[str, Any]] = []
    for measure in _MEASURES:
        found: list[tuple[int, str, float, float, PairedTest]] = []
        for index, name in names:
            a, b = (_by_sample(judged, network, index, measure) for network in (first, second))
            shared = [sample for sample in a if sample in b]
            x, y = np.array([a[s] for s in shared]), np.array([b[s] for s in shared])
            try:
                test = paired_test(x, y)
            except MetricError:
                continue  # nobody has this structure
            both = np.isfinite(x) & np.isfinite(y)
            found.append((index, name, float(x[both].mean()), float(y[both].mean()), test))
        adjusted = _holm([test.p for *_, test in found])
        rows += [
            {
                "index": index, "name": name, "measure": measure, "first": first,
                "second": second, "n": test.n, "first_mean": mean_x, "second_mean": mean_y,
                "difference_mean": test.mean, "difference_median": test.median, "w": test.w,
                "p": test.p, "p_holm": p_holm, "rank_biserial": test.rank_biserial,
                "cohens_dz": test.dz,
            }
            for (index, name, mean_x, mean_y, test), p_holm in zip(found, adjusted, strict=True)
        ]  # fmt: skip
    return rows


def calibration(judged: Sequence[Judged], network: str) -> list[dict[str, Any]]:
    """Whether the intervals hold and the confidence ranks, on samples that made neither.

    The interval of a fold comes from the other folds of its repeat. One entry a structure and
    one for all (index 0): the ``coverage`` of the 90 % intervals, and Spearman's ``rho`` of
    confidence and F1.
    """
    mine = [one for one in judged if one.network == network]
    inside: dict[tuple[int, str], list[bool]] = {}
    for repeat, fold in dict.fromkeys((one.repeat, one.fold) for one in mine):
        others = [one.row for one in mine if one.repeat == repeat and one.fold != fold]
        factors = volume_intervals(others)
        for one in mine:
            if (one.repeat, one.fold) == (repeat, fold) and one.row.name in factors:
                holds = interval_holds(one.row, factors)
                inside.setdefault((one.row.agreement.index, one.row.name), []).append(holds)
    pooled = [holds for values in inside.values() for holds in values]
    entries = []
    for (index, name), values in [*sorted(inside.items()), ((0, "all"), pooled)]:
        rows = [one.row for one in mine if index in (0, one.row.agreement.index)]
        entries.append(
            {
                "index": index, "name": name, "network": network, "n": len(values),
                "coverage": float(np.mean(values)) if values else math.nan,
                "rho": _rho(rows),
            }
        )  # fmt: skip
    return entries


def _rho(rows: Sequence[Evaluated]) -> float:
    """Spearman's correlation of confidence and F1; nan where one of them does not vary."""
    pairs = np.array(
        [(row.confidence, row.agreement.f1) for row in rows
         if row.confidence is not None and math.isfinite(row.agreement.f1)]
    )  # fmt: skip
    if len(pairs) < 3 or (pairs == pairs[0]).all(axis=0).any():
        return math.nan
    return float(stats.spearmanr(pairs[:, 0], pairs[:, 1]).statistic)


def _by_sample(
    judged: Iterable[Judged], network: str, index: int, measure: str
) -> dict[str, float]:
    """Each sample's value, averaged over the repeats in which it has one."""
    values: dict[str, list[float]] = {}
    for one in judged:
        if one.network == network and one.row.agreement.index == index:
            values.setdefault(one.row.sample_id, []).append(_MEASURES[measure](one.row))
    there = {sample: [v for v in list_ if math.isfinite(v)] for sample, list_ in values.items()}
    return {sample: float(np.mean(v)) if v else math.nan for sample, v in there.items()}


def _holm(p: Sequence[float]) -> list[float]:
    """Step-down correction for several tests (Holm 1979).

    >>> [round(value, 3) for value in _holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p)
    worst = 0.0
    for place, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        worst = max(worst, min(1.0, (len(p) - place) * p[k]))
        adjusted[k] = worst
    return adjusted
