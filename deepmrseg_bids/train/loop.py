"""The training loop: resumable at any step, and the same to the last bit when it is.

A folder holds ``settings.toml``, ``log.csv`` (a row a step), ``validation.csv`` (a row a
validation), ``curves.png``, ``checkpoint.pt``, ``validation.tsv`` (the samples never trained
on), at the end ``bundle/`` and, if wanted, ``tensorboard/``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

import torch

from deepmrseg_bids.files import write_text
from deepmrseg_bids.train import csv_log
from deepmrseg_bids.train.checkpoint import State, restore, save
from deepmrseg_bids.train.crops import Ready, batches, prepared
from deepmrseg_bids.train.optimisation import Step, initial, take_step
from deepmrseg_bids.train.samples import write_samples
from deepmrseg_bids.train.tensorboard import Scalar, event_writer
from deepmrseg_bids.train.trained_bundle import write_bundle
from deepmrseg_bids.train.training_run import Plan, TrainingRun, validated
from deepmrseg_bids.train.validation import validate
from deepmrseg_bids.wording import counted

__all__ = ["TrainingRun", "train"]

_log = logging.getLogger(__name__)


def train(run: TrainingRun) -> Path:
    """Train one network and write its bundle.

    Returns:
        The folder of the bundle; without ``stop_at`` it is complete.

    Raises:
        TrainingError: the run cannot be begun or gone on with (see
            :func:`~deepmrseg_bids.train.training_run.validated`), ``init`` or the checkpoint is
            of another network, or the loss is no number any more.
        BundleError: ``init`` is no bundle.
        DeepMRSegError: a sample cannot be used; the message names it.
    """
    plan = validated(run)
    if plan is None:
        return run.bundle
    state = _begin(plan)
    if _finished(state, plan) and (run.bundle / "bundle.json").is_file():
        return run.bundle
    teaching = prepared(plan.teaching, plan.config, run.cache)
    unseen = prepared(plan.judging, plan.config, run.cache)
    _log.info("%s for training, %d for validation, from step %d of %d, in %s on %s",
              counted(len(teaching), "sample"), len(unseen), state.step, plan.config.loop.steps,
              plan.precision_name, plan.device)  # fmt: skip
    _take_steps(state, teaching, unseen, plan)
    if _finished(state, plan) and not unseen:
        write_bundle(state, plan)
    return run.bundle


def _begin(plan: Plan) -> State:
    """The state to go on from, and the folder with what is known before the first step."""
    run, config = plan.run, plan.config
    torch.manual_seed(config.loop.seed)
    state = initial(config, plan.device, plan.init)
    if run.checkpoint.exists():
        restore(state, run.checkpoint, keep=config.loop.keep == "best")
    run.out.mkdir(parents=True, exist_ok=True)
    write_text(run.out / "settings.toml", config.text)
    write_samples(run.out / "validation.tsv", plan.judging)
    return state


def _finished(state: State, plan: Plan) -> bool:
    return state.stopped or state.step >= plan.config.loop.steps


def _take_steps(
    state: State, teaching: Sequence[Ready], unseen: Sequence[Ready], plan: Plan
) -> None:
    run, loop = plan.run, plan.config.loop
    for name in ("log.csv", "validation.csv"):
        csv_log.trim(run.out / name, state.step)
    with event_writer(plan.board, run.out / "tensorboard", state.step) as scalar:
        crops = batches(teaching, plan.config, range(state.step, run.last), run.workers)
        while state.step < run.last and not state.stopped:
            _log_step(take_step(state, crops, plan), run, scalar)
            done = state.step == loop.steps
            if done or state.step % loop.validate_every == 0:
                _take_stock(state, unseen, plan, scalar)
            pause = done or state.stopped or state.step == run.last
            if pause or state.step % loop.checkpoint_every == 0:
                save(state, run.checkpoint)


def _log_step(step: Step, run: TrainingRun, scalar: Scalar) -> None:
    csv_log.append(run.out / "log.csv", [field.name for field in fields(step)], astuple(step))
    scalar("loss", float(step.loss), step.step)
    scalar("learning_rate", float(step.learning_rate), step.step)


def _take_stock(state: State, unseen: Sequence[Ready], plan: Plan, scalar: Scalar) -> None:
    """Validate, tell, draw the curves and write the bundle so far."""
    if unseen:
        scores = validate(state, unseen, plan)
        _log_scores(state.step, scores, plan.run, scalar)
        _judge(state, scores["mean"], plan)
    _draw_curves(state, plan)
    if unseen:
        write_bundle(state, plan)


def _log_scores(step: int, scores: dict[str, float], run: TrainingRun, scalar: Scalar) -> None:
    texts = [f"{value:.4f}" for value in scores.values()]
    csv_log.append(run.out / "validation.csv", ("step", *scores), (step, *texts))
    _log.info("step %d: Dice %s", step, " ".join(texts))
    for name, value in scores.items():
        scalar(f"dice/{name}", value, step)


def _judge(state: State, mean: float, plan: Plan) -> None:
    """Take note of a validation: it may end the training."""
    loop = plan.config.loop
    state.judge(mean, keep=loop.keep == "best", patience=loop.patience)
    if state.step >= loop.steps:
        state.stopped = False  # it went to its end
    if state.stopped:
        waited = counted(state.waited, "validation")
        _log.info("step %d: no higher Dice than %.4f (step %d) in %s: stopped",
                  state.step, state.best, state.best_step, waited)  # fmt: skip


def _draw_curves(state: State, plan: Plan) -> None:
    from deepmrseg_bids.train.curves import draw_curves, write_curves

    out, config = plan.run.out, plan.config
    steps, scores = (csv_log.read(out / name) for name in ("log.csv", "validation.csv"))
    _log.info("step %d: networks %.0f %% of the time", state.step,
              100 * csv_log.network_share(steps))  # fmt: skip
    kept = state.kept()[1] if config.loop.keep == "best" else None
    write_curves(draw_curves(steps, scores, title=config.task, kept=kept), out / "curves.png")
