"""The paper's protocol: networks compared by repeated k-fold cross-validation.

A folder holds ``folds.tsv`` (who is judged in which fold), ``settings.toml``, a training run
for every repeat, fold and network in ``repeat-R/fold-I/NETWORK/`` (see
:mod:`deepmrseg_bids.train.loop`) with its ``per_sample.tsv`` and ``labels/`` once judged, and
at the end the tables of all: ``per_sample.tsv``, ``summary.tsv``, ``summary.json``,
``comparison.tsv`` and ``calibration.tsv``. Whatever is there is not done again.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy import stats

from deepmrseg_bids.errors import MetricError, TrainingError
from deepmrseg_bids.imaging.nifti import write_labels
from deepmrseg_bids.inference.predictor import PredictorPool, resolve_device, set_threads
from deepmrseg_bids.metrics.reliability import PairedTest, paired_test
from deepmrseg_bids.train.config import TrainConfig, changed_settings, load_config
from deepmrseg_bids.train.csv_log import write_text
from deepmrseg_bids.train.evaluation import (
    Evaluated,
    evaluate,
    plain,
    read_rows,
    structure_summaries,
    summary_columns,
    tsv,
    volume_intervals,
    write_rows,
)
from deepmrseg_bids.train.loop import train
from deepmrseg_bids.train.samples import Sample, split_folds
from deepmrseg_bids.tsv import read_tsv, tsv_text

__all__ = ["NETWORKS", "CrossValidation", "Judged", "calibration", "compare", "crossval",
           "results", "summaries"]  # fmt: skip

_log = logging.getLogger(__name__)

NetworkKind = Literal["deepmrseg", "unet"]
NETWORKS: tuple[NetworkKind, ...] = ("deepmrseg", "unet")
"""The paper's network and its benchmark."""

_MEASURES: dict[str, Callable[[Evaluated], float]] = {
    "f1": lambda row: row.agreement.f1,
    "f2": lambda row: row.agreement.f2,
    "bacc": lambda row: row.agreement.bacc,
    "volume_error_mm3": lambda row: row.volume_difference_mm3,
}
_COMPARISON = ("index", "name", "measure", "first", "second", "n", "first_mean", "second_mean",
               "difference_mean", "difference_median", "w", "p", "p_holm", "rank_biserial",
               "cohens_dz")  # fmt: skip

_CALIBRATION = ("index", "name", "network", "n", "coverage", "rho")


@dataclass(frozen=True)
class CrossValidation:
    """A protocol: what is trained how often, and where it is kept.

    Attributes:
        config: the settings of every run; its ``folds``, ``fold``, network kind and seed are
            replaced. If it validates (``folds`` above 0 there), the people it validates on
            are taken from those it trains on: the fold that judges has no say in training.
        networks: kinds of network, all with the same settings otherwise.
    """

    config: TrainConfig
    out: Path
    folds: int = 4
    repeats: int = 1
    networks: tuple[NetworkKind, ...] = NETWORKS

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise TrainingError(f"cross-validation takes at least 2 folds, got {self.folds}")
        if self.repeats < 1:
            raise TrainingError(f"cross-validation takes at least 1 repeat, got {self.repeats}")
        if not self.networks or set(self.networks) - set(NETWORKS):
            raise TrainingError(f"networks are {', '.join(NETWORKS)}, got {self.networks}")


@dataclass(frozen=True)
class Judged:
    """One structure of one sample, segmented by a network that never saw that person."""

    network: str
    repeat: int
    fold: int
    row: Evaluated


@dataclass(frozen=True)
class _Run:
    """One network trained and judged: one fold of one repeat."""

    network: NetworkKind
    repeat: int
    fold: int
    out: Path

    @property
    def folder(self) -> Path:
        return self.out / f"repeat-{self.repeat}" / f"fold-{self.fold}" / self.network

    @property
    def table(self) -> Path:
        return self.folder / "per_sample.tsv"

    @property
    def done(self) -> bool:
        return self.table.is_file()


@dataclass(frozen=True)
class _Means:
    """What a run needs beside its settings."""

    device: str
    threads: int
    cache: Path | None


def crossval(
    samples: Sequence[Sample],
    protocol: CrossValidation,
    *,
    fold: int | None = None,
    processes: int = 1,
    threads: int = 1,
    device: str = "cpu",
    cache: Path | None = None,
) -> list[Judged] | None:
    """Train and judge every network in every fold, or go on where an earlier call stopped.

    Args:
        fold: only this fold, in all repeats (one job of an array).
        processes: runs at the same time; each gets its share of ``threads``.
        cache: where prepared samples are kept.

    Returns:
        All rows, with the tables written; None as long as runs of other jobs are missing.

    Raises:
        TrainingError: too few people, no such fold, or ``protocol.out`` holds another
            cross-validation.
        DeepMRSegError: a sample cannot be used; the message names it.
    """
    if fold is not None and not 0 <= fold < protocol.folds:
        raise TrainingError(f"--fold is 0 to {protocol.folds - 1}, got {fold}")
    splits = [
        split_folds(samples, protocol.folds, seed=protocol.config.loop.seed + repeat)
        for repeat in range(protocol.repeats)
    ]
    _claim(protocol, splits)
    runs = _runs(protocol)
    mine = [run for run in runs if fold in (None, run.fold) and not run.done]
    _log.info("%d of %d runs to go", len(mine), len(runs))
    share = _Means(device, max(1, threads // max(1, processes)), cache)
    jobs = [(run, list(samples), splits[run.repeat][run.fold], protocol.config, share)
            for run in mine]  # fmt: skip
    if processes > 1 and len(jobs) > 1:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
            for finished in as_completed([pool.submit(_train_and_judge, *job) for job in jobs]):
                finished.result()
    else:
        for job in jobs:
            _train_and_judge(*job)
    missing = [run for run in runs if not run.done]
    if missing:
        _log.info("%d runs are missing still: %s", len(missing),
                  ", ".join(str(run.folder.relative_to(run.out)) for run in missing))  # fmt: skip
        return None
    judged = results(protocol)
    _write_tables(judged, protocol)
    return judged


def results(protocol: CrossValidation) -> list[Judged]:
    """The rows of all runs that were judged so far."""
    return [
        Judged(run.network, run.repeat, run.fold, row)
        for run in _runs(protocol)
        if run.done
        for row in read_rows(run.table)
    ]


def _runs(protocol: CrossValidation) -> list[_Run]:
    return [
        _Run(network, repeat, fold, protocol.out)
        for repeat in range(protocol.repeats)
        for fold in range(protocol.folds)
        for network in protocol.networks
    ]


def _claim(protocol: CrossValidation, splits: Sequence[Sequence[Sequence[Sample]]]) -> None:
    """Write down the settings and the folds, or see that they are those of before."""
    out = protocol.out
    out.mkdir(parents=True, exist_ok=True)
    dealt = {
        (str(repeat), s.sample_id, s.participant_id, str(fold))
        for repeat, split in enumerate(splits)
        for fold, people in enumerate(split)
        for s in people
    }
    columns = ("repeat", "sample_id", "participant_id", "fold")
    folds, settings = out / "folds.tsv", out / "settings.toml"
    if folds.is_file():
        before = {tuple(row[column] for column in columns) for row in read_tsv(folds).rows}
        shared = min(max(int(r[0]) for r in dealt), max((int(r[0]) for r in before), default=-1))
        if {r for r in dealt if int(r[0]) <= shared} != {r for r in before if int(r[0]) <= shared}:
            raise TrainingError(f"{out} holds a cross-validation of other samples or folds")
        dealt |= before  # type: ignore[arg-type]
    changed = changed_settings(load_config(settings), protocol.config) if settings.is_file() else []
    if changed:
        raise TrainingError(
            f"{out} holds a cross-validation with other settings: {', '.join(changed)}"
        )
    rows = sorted(dealt, key=lambda r: (int(r[0]), int(r[3]), r[1]))
    write_text(folds, tsv_text(columns, rows, quote=True))
    write_text(settings, protocol.config.text)


def _train_and_judge(
    run: _Run, samples: Sequence[Sample], judging: Sequence[Sample], config: TrainConfig,
    means: _Means,
) -> None:  # fmt: skip
    """Train one network on all people but those of its fold, and judge it on them."""
    set_threads(means.threads)
    people = {sample.participant_id for sample in judging}
    teaching = [sample for sample in samples if sample.participant_id not in people]
    own = _settings(config, run)
    name = run.folder.relative_to(run.out)
    _log.info("%s: %d samples teach, %d judge", name, len(teaching), len(judging))
    bundle = train(
        teaching, own, run.folder, resume=True, device=means.device, cache=means.cache
    )  # fmt: skip
    pool = PredictorPool({config.task: bundle}, resolve_device(means.device))
    labels = run.folder / "labels"
    labels.mkdir(exist_ok=True)
    rows = evaluate(
        judging,
        config.task,
        pool,
        own,
        prepared=config.task not in ("brain", "wml"),  # those are judged on raw heads
        keep=lambda sample, found: write_labels(labels / f"{sample.sample_id}.nii.gz", found),
    )
    write_rows(rows, run.table)
    scores = [row.agreement.f1 for row in rows if math.isfinite(row.agreement.f1)]
    _log.info("%s: mean Dice %.4f", name, np.mean(scores) if scores else math.nan)


def _settings(config: TrainConfig, run: _Run) -> TrainConfig:
    """The settings of one run: nobody validates, unless validation decides something."""
    loop = config.loop
    chooses = loop.keep == "best" or loop.patience > 0
    return dataclasses.replace(
        config,
        network=dataclasses.replace(config.network, kind=run.network),
        loop=dataclasses.replace(
            loop,
            seed=loop.seed + run.repeat,
            folds=loop.folds if chooses else 0,
            fold=loop.fold if chooses else 0,
        ),
    )


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
            a = one.row.agreement
            if (one.repeat, one.fold) == (repeat, fold) and one.row.name in factors:
                low, high = (a.volume_mm3 * factor for factor in factors[one.row.name])
                holds = low <= a.reference_volume_mm3 <= high
                inside.setdefault((a.index, one.row.name), []).append(holds)
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


def _write_tables(judged: Sequence[Judged], protocol: CrossValidation) -> None:
    """The tables of all runs together; every file is moved into place when it is complete."""
    out = protocol.out
    write_rows(
        [one.row for one in judged],
        out / "per_sample.tsv",
        more={
            "network": [one.network for one in judged],
            "repeat": [one.repeat for one in judged],
            "fold": [one.fold for one in judged],
        },
    )
    found = summaries(judged)
    entries = [{**entry, "network": network} for network, rows in found.items() for entry in rows]
    write_text(out / "summary.tsv", tsv((*summary_columns(entries), "network"), entries))
    tests = compare(judged, *protocol.networks) if len(protocol.networks) == 2 else []
    write_text(out / "comparison.tsv", tsv(_COMPARISON, tests))
    sure = [entry for network in found for entry in calibration(judged, network)]
    write_text(out / "calibration.tsv", tsv(_CALIBRATION, sure))
    means = {
        network: _finite_mean([entry["f1_mean"] for entry in rows])
        for network, rows in found.items()
    }
    tree = {
        "samples": len({one.row.sample_id for one in judged}),
        "folds": protocol.folds,
        "repeats": protocol.repeats,
        "task": protocol.config.task,
        "f1_mean": means,
        "structures": [plain(entry) for entry in entries],
        "comparison": [plain(entry) for entry in tests],
        "calibration": [plain(entry) for entry in sure],
        "volume_interval": {
            network: volume_intervals([one.row for one in judged if one.network == network])
            for network in found
        },
    }
    write_text(out / "summary.json", json.dumps(tree, indent=2) + "\n")


def _finite_mean(values: Iterable[float]) -> float | None:
    kept = [value for value in values if math.isfinite(value)]
    return float(np.mean(kept)) if kept else None
