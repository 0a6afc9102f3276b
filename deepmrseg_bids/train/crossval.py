"""The paper's protocol: networks compared by repeated k-fold cross-validation.

A folder holds ``folds.tsv`` (who is judged in which fold), ``settings.toml``, a training run
for every repeat, fold and network in ``repeat-R/fold-I/NETWORK/`` (see
:mod:`deepmrseg_bids.train.loop`) with its ``per_sample.tsv`` and ``labels/`` once judged, and
at the end the tables of all: ``per_sample.tsv``, ``summary.tsv``, ``summary.json``,
``comparison.tsv`` and ``calibration.tsv``. Whatever is there is not done again.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.files import refuse_foreign, write_text
from deepmrseg_bids.imaging.nifti import write_labels
from deepmrseg_bids.inference.predictor import PredictorPool, resolve_device, set_threads
from deepmrseg_bids.tasks.registry import task_of_model
from deepmrseg_bids.train.comparison import Judged
from deepmrseg_bids.train.config import TrainConfig, changed_settings, load_config
from deepmrseg_bids.train.crossval_tables import write_tables
from deepmrseg_bids.train.evaluation import evaluate, read_rows, write_rows
from deepmrseg_bids.train.loop import TrainingRun, train
from deepmrseg_bids.train.samples import Sample, split_folds
from deepmrseg_bids.tsv import read_tsv, tsv_text
from deepmrseg_bids.wording import counted

__all__ = ["NETWORKS", "CrossValidation", "crossval", "results"]

_log = logging.getLogger(__name__)

NetworkKind = Literal["deepmrseg", "unet"]
NETWORKS: tuple[NetworkKind, ...] = ("deepmrseg", "unet")
"""The paper's network and its benchmark."""

_TABLES = (
    "per_sample.tsv", "summary.tsv", "summary.json", "comparison.tsv", "calibration.tsv",
    "table.md",
)  # fmt: skip
_FOLDS = ("repeat", "sample_id", "participant_id", "fold")
_Dealt: TypeAlias = set[tuple[str, ...]]  # rows of folds.tsv


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
            raise TrainingError(f"cross-validation requires at least 2 folds, got {self.folds}")
        if self.repeats < 1:
            raise TrainingError(f"cross-validation requires at least 1 repeat, got {self.repeats}")
        if not self.networks or set(self.networks) - set(NETWORKS):
            raise TrainingError(f"networks are {', '.join(NETWORKS)}, got {self.networks}")


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
class _Job:
    """All that one run needs, in whatever process it is done.

    Attributes:
        config: the settings of this run.
        teaching, judging: no person is in both.
    """

    run: _Run
    config: TrainConfig
    teaching: Sequence[Sample]
    judging: Sequence[Sample]
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
    _log.info("%d of %s remaining", len(mine), counted(len(runs), "run"))
    jobs = []
    for run in mine:
        judging = splits[run.repeat][run.fold]
        people = {sample.participant_id for sample in judging}
        teaching = [sample for sample in samples if sample.participant_id not in people]
        config, share = _settings(protocol.config, run), max(1, threads // max(1, processes))
        jobs.append(_Job(run, config, teaching, judging, device, share, cache))
    _work_off(jobs, processes)
    missing = [run for run in runs if not run.done]
    if missing:
        _log.info("%s missing: %s", counted(len(missing), "run"),
                  ", ".join(str(run.folder.relative_to(run.out)) for run in missing))  # fmt: skip
        return None
    judged = results(protocol)
    told = {"folds": protocol.folds, "repeats": protocol.repeats, "task": protocol.config.task}
    write_tables(judged, protocol.out, protocol.networks, told)
    return judged


def _work_off(jobs: Sequence[_Job], processes: int) -> None:
    if processes > 1 and len(jobs) > 1:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
            for finished in as_completed([pool.submit(_train_and_judge, job) for job in jobs]):
                finished.result()
    else:
        for job in jobs:
            _train_and_judge(job)


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
    dealt: _Dealt = {
        (str(repeat), s.sample_id, s.participant_id, str(fold))
        for repeat, split in enumerate(splits)
        for fold, people in enumerate(split)
        for s in people
    }
    folds, settings = out / "folds.tsv", out / "settings.toml"
    refuse_foreign([settings, *(out / name for name in _TABLES)], folds)
    before = _dealt_before(folds)
    shared = {row[0] for row in dealt} & {row[0] for row in before}  # repeats of both
    if folds.is_file() and _of_repeats(dealt, shared) != _of_repeats(before, shared):
        raise TrainingError(f"{out} contains a cross-validation of other samples or folds")
    changed = changed_settings(load_config(settings), protocol.config) if settings.is_file() else []
    if changed:
        raise TrainingError(
            f"{out} contains a cross-validation with other settings: {', '.join(changed)}"
        )
    rows = sorted(dealt | before, key=lambda row: (int(row[0]), int(row[3]), row[1]))
    write_text(folds, tsv_text(_FOLDS, rows, quote=True))
    write_text(settings, protocol.config.text)


def _dealt_before(folds: Path) -> _Dealt:
    """What an earlier call wrote down."""
    if not folds.is_file():
        return set()
    return {tuple(row[column] for column in _FOLDS) for row in read_tsv(folds).rows}


def _of_repeats(dealt: _Dealt, repeats: set[str]) -> _Dealt:
    return {row for row in dealt if row[0] in repeats}


def _train_and_judge(job: _Job) -> None:
    """Train one network on all people but those of its fold, and judge it on them."""
    set_threads(job.threads)
    run, task = job.run, job.config.task
    name = run.folder.relative_to(run.out)
    _log.info("%s: %s for training, %d for evaluation", name,
              counted(len(job.teaching), "sample"), len(job.judging))  # fmt: skip
    bundle = train(
        TrainingRun(
            job.teaching, job.config, run.folder, resume=True, device=job.device, cache=job.cache
        )
    )
    spec = task_of_model(task, bundle)
    labels = run.folder / "labels"
    labels.mkdir(exist_ok=True)
    rows = evaluate(
        job.judging,
        spec,
        PredictorPool({task: bundle}, resolve_device(job.device)),
        job.config,
        prepared=not spec.judged_raw,
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
