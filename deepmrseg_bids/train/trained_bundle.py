"""The bundle of a training run: the weights to keep, and what is said of them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from deepmrseg_bids import __version__
from deepmrseg_bids.inference.bundle import NewBundle, Preparation
from deepmrseg_bids.train import csv_log
from deepmrseg_bids.train.checkpoint import State
from deepmrseg_bids.train.config import TrainConfig
from deepmrseg_bids.train.training_run import Plan
from deepmrseg_bids.wording import counted

__all__ = ["write_bundle"]


def write_bundle(state: State, plan: Plan) -> None:
    """Write the weights to keep so far; facts and card say of which step they are."""
    config, out = plan.config, plan.run.out
    weights, step = state.kept()
    facts: dict[str, Any] = {
        "samples_trained_on": len(plan.teaching),
        "samples_held_out": len(plan.judging),
        "steps": state.step,
        "kept_step": step,
        "stopped_early": state.stopped,
        "precision": plan.precision_name,
        "network_share": round(csv_log.network_share(csv_log.read(out / "log.csv")), 3),
        "dice_held_out": _scores_at(out / "validation.csv", step),
    }
    facts |= config.about
    if plan.init is not None:
        facts["started_from"] = {"version": plan.init.version, "sha256": plan.init.sha256}
    NewBundle(
        task=config.task,
        network=config.network,
        preparation=_seen(config),
        labels=config.labels,
        state=weights,
        version=__version__,
        settings=config.text,
        card=_card(state, plan),
        facts=facts,
    ).write(plan.run.bundle)


def _seen(config: TrainConfig) -> Preparation:
    """How the bundle's network sees an image: in 3D as a rule in windows as large as the crops."""
    seen = dataclasses.replace(config.preparation, mirrors=config.augment.flip > 0)
    if len(config.loop.crop) == 2 or not config.loop.windows:
        return seen  # whole slices, whole images
    window = (config.loop.crop[0], config.loop.crop[1], config.loop.crop[2])
    return dataclasses.replace(seen, window=window)


def _scores_at(path: Path, step: int) -> dict[str, float | None]:
    """Dice at a validation: mean and labels; None for a label that nobody has."""
    for row in csv_log.read(path):
        if row.pop("step") == str(step):
            scores = {name: float(value) for name, value in row.items()}
            return {name: None if math.isnan(value) else value for name, value in scores.items()}
    return {}


def _card(state: State, plan: Plan) -> str:
    loop, samples = plan.config.loop, counted(len(plan.teaching), "sample")
    lines = [
        f"# {plan.config.task}",
        "",
        f"Trained for {state.step} of {counted(loop.steps, 'step')} on {samples}.",
    ]
    if state.stopped:
        lines.append(
            f"Training was stopped early: {counted(state.waited, 'validation')} "
            "without a higher mean Dice."
        )
    if state.best_average is not None:
        lines.append(
            f"The weights are those of step {state.best_step}, the best of its validations "
            f"(mean Dice {state.best:.4f})."
        )
    return "\n".join(lines) + "\n"
