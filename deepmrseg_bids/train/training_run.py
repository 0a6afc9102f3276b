"""What is trained, where and how; and the checks before anything is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import torch

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.files import refuse_foreign
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.predictor import resolve_precision
from deepmrseg_bids.train.config import TrainConfig, changed_settings, load_config
from deepmrseg_bids.train.samples import Sample, split_folds
from deepmrseg_bids.train.tensorboard import find_tensorboard

__all__ = ["Plan", "TrainingRun", "validated"]


@dataclass(frozen=True)
class TrainingRun:
    """One training.

    Attributes:
        samples: all of them; the fold of ``config`` is kept for validation.
        out: the run's folder.
        resume: go on from the checkpoint in ``out``, if there is one; nothing is left to do
            where the checkpoint of a run that went to its end was removed.
        cache: where prepared samples are kept between runs; None prepares them anew.
        stop_at: stop after this step (for tests and short sessions); the checkpoint stays.
        tensorboard: write events to ``out/tensorboard`` as well.
        init: a bundle whose weights the first step starts from; None starts from random ones.
        workers: processes that make the crops of the next steps while the network works (for
            a GPU); 0 makes them in between. The crops are the same.
    """

    samples: Sequence[Sample]
    config: TrainConfig
    out: Path
    _: KW_ONLY
    resume: bool = False
    device: str = "cpu"
    cache: Path | None = None
    stop_at: int | None = None
    tensorboard: bool = False
    init: Path | None = None
    workers: int = 0

    @property
    def bundle(self) -> Path:
        """The folder of the bundle; complete when the run is at its end."""
        return self.out / "bundle"

    @property
    def checkpoint(self) -> Path:
        """The file from which a run goes on."""
        return self.out / "checkpoint.pt"

    @property
    def last(self) -> int:
        """The step at which this call stops at the latest."""
        return min(self.config.loop.steps, self.stop_at or self.config.loop.steps)

    def split(self) -> tuple[list[Sample], list[Sample]]:
        """Who teaches and who judges; no person does both.

        Raises:
            TrainingError: nothing to train on; nobody to validate where the settings ask for
                the best weights or for early stopping.
        """
        if not self.samples:
            raise TrainingError("no samples to train on")
        loop = self.config.loop
        teaching, judging = list(self.samples), []
        if loop.folds:
            judging = split_folds(self.samples, loop.folds, seed=loop.seed)[loop.fold]
            people = {sample.participant_id for sample in judging}
            teaching = [s for s in self.samples if s.participant_id not in people]
        if not judging and (loop.keep == "best" or loop.patience):
            raise TrainingError(
                'keep = "best" and patience require samples for validation: set folds to at least '
                '2, or keep = "last" and patience = 0'
            )
        return teaching, judging


@dataclass(frozen=True)
class Plan:
    """A run whose settings were checked: what stays the same while training.

    Attributes:
        teaching, judging: samples to train on, and to validate.
        precision: of the network's forward pass.
        init: whose weights the first step starts from.
        board: the class that writes events for TensorBoard; None writes none.
    """

    run: TrainingRun
    teaching: Sequence[Sample]
    judging: Sequence[Sample]
    device: torch.device
    precision: torch.dtype
    init: ModelBundle | None = None
    board: Any = None

    @property
    def config(self) -> TrainConfig:
        """The settings."""
        return self.run.config

    @property
    def precision_name(self) -> str:
        """``float32`` or ``bfloat16``."""
        return str(self.precision).removeprefix("torch.")


def validated(run: TrainingRun) -> Plan | None:
    """Check a run without writing anything; None if it went to its end already.

    Raises:
        TrainingError: see :meth:`TrainingRun.split`; ``out`` holds a run and ``resume`` is
            off, or one that was begun with other settings; TensorBoard is not installed.
        BundleError: ``init`` is no bundle.
    """
    teaching, judging = run.split()
    board = find_tensorboard() if run.tensorboard else None
    begun = run.checkpoint.exists()
    ended = run.resume and not begun and _complete(run)
    if begun or ended:
        _check_resumable(run)
    if ended:
        return None
    if not begun:
        names = ("validation.tsv", "validation.csv", "log.csv", "bundle")
        refuse_foreign([run.out / name for name in names], run.out / "settings.toml")
    device = torch.device(run.device)
    precision = resolve_precision(run.config.loop.precision, device)
    init = None if run.init is None else ModelBundle.open(run.init)
    return Plan(run, teaching, judging, device, precision, init, board)


def _check_resumable(run: TrainingRun) -> None:
    """Refuse to write over a run, and to go on with one under other settings."""
    if not run.resume:
        raise TrainingError(
            f"{run.out} already contains a run: add --resume, or choose another folder"
        )
    kept = run.out / "settings.toml"
    if not kept.is_file():
        return  # begun by a version that did not write it
    changed = changed_settings(load_config(kept), run.config)
    if changed:
        raise TrainingError(
            f"{run.out} contains a run with other settings: {', '.join(changed)}; continue with "
            "those in its settings.toml, or choose another folder"
        )


def _complete(run: TrainingRun) -> bool:
    """Whether a run ended and left its bundle; its checkpoint may be gone."""
    if not (run.bundle / "bundle.json").is_file():
        return False
    facts = ModelBundle.open(run.bundle).facts
    return bool(facts.get("stopped_early")) or facts.get("steps", 0) >= run.config.loop.steps
