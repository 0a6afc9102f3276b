"""The training loop: resumable at any step, and the same to the last bit when it is.

A folder holds ``log.csv`` (a row a step), ``validation.csv`` (a row a validation),
``curves.png``, ``checkpoint.pt``, ``validation.tsv`` (the samples never trained on) and at
the end ``bundle/``.
"""

from __future__ import annotations

import csv
import dataclasses
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepmrseg_bids import __version__
from deepmrseg_bids.bundle import ModelBundle
from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.inference import with_position
from deepmrseg_bids.metrics import confusion, f1
from deepmrseg_bids.network import build_network, deepmrseg_loss
from deepmrseg_bids.train.augment import apply, draw
from deepmrseg_bids.train.config import AugmentConfig, TrainConfig
from deepmrseg_bids.train.samples import Prepared, Sample, prepare_sample, split_folds

__all__ = ["train"]

_log = logging.getLogger(__name__)
_STEP_COLUMNS = ("step", "loss", "learning_rate", "seconds", "data_seconds")


@dataclass
class _State:
    """What changes while training, and what a checkpoint keeps."""

    network: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    best: float = -1.0


def train(
    samples: Sequence[Sample],
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    cache: Path | None = None,
    stop_at: int | None = None,
) -> Path:
    """Train one network and write its bundle.

    Args:
        samples: all of them; the fold of ``config`` is kept for validation.
        out: the run's folder.
        resume: go on from the checkpoint in ``out``, if there is one.
        cache: where prepared samples are kept between runs; None prepares them anew.
        stop_at: stop after this step (for tests and short sessions); the checkpoint stays.

    Returns:
        The folder of the bundle; without ``stop_at`` it is complete.

    Raises:
        TrainingError: nothing to train on, or ``out`` holds a run and ``resume`` is off.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise TrainingError(f"{out} holds a run already: add --resume, or choose another folder")
    teaching, judging = _split(samples, config)
    _write_samples(out / "validation.tsv", judging)
    torch.manual_seed(config.loop.seed)
    state = _start(config, device)
    if resume and checkpoint.exists():
        _restore(state, checkpoint)
    prepared = [prepare_sample(sample, config, cache) for sample in teaching]
    unseen = [prepare_sample(sample, config, cache) for sample in judging]
    _log.info("%d samples to train on, %d to validate, from step %d of %d",
              len(prepared), len(unseen), state.step, config.loop.steps)  # fmt: skip
    _trim_log(out, state.step)
    last = min(config.loop.steps, stop_at or config.loop.steps)
    while state.step < last:
        row = _one_step(state, prepared, config, device)
        _append(out / "log.csv", _STEP_COLUMNS, row)
        done = state.step == config.loop.steps
        if unseen and (done or state.step % config.loop.validate_every == 0):
            _validate(state, unseen, config, out, device)
            _write_bundle(state, config, out, teaching, judging)
        if done or state.step == last or state.step % config.loop.checkpoint_every == 0:
            _save(state, checkpoint)
    if state.step == config.loop.steps and not unseen:
        _write_bundle(state, config, out, teaching, judging)
    return out / "bundle"


def _split(samples: Sequence[Sample], config: TrainConfig) -> tuple[list[Sample], list[Sample]]:
    if not samples:
        raise TrainingError("no samples to train on")
    if not config.loop.folds:
        return list(samples), []
    folds = split_folds(samples, config.loop.folds, seed=config.loop.seed)
    held_out = folds[config.loop.fold]
    names = {sample.sample_id for sample in held_out}
    people = {sample.participant_id for sample in held_out}
    teaching = [s for s in samples if s.sample_id not in names and s.participant_id not in people]
    return teaching, held_out


def _start(config: TrainConfig, device: str) -> _State:
    network: nn.Module = build_network(config.network)
    layout = torch.channels_last if config.network.spatial_dims == 2 else torch.channels_last_3d
    network = network.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    kind = torch.optim.AdamW if config.loop.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(
        network.parameters(), lr=config.loop.learning_rate, weight_decay=config.loop.weight_decay
    )
    average = {name: value.clone() for name, value in network.state_dict().items()}
    return _State(network, average, optimiser)


def _rate(step: int, config: TrainConfig, samples: int) -> float:
    """The learning rate of a step."""
    loop = config.loop
    if loop.schedule == "exponential":
        epoch = step * loop.batch // max(samples, 1)
        return float(loop.learning_rate * loop.decay**epoch)
    warm = max(1, loop.steps // 20)
    if step < warm:
        return loop.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, loop.steps - warm)
    return loop.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _batch(prepared: Sequence[Prepared], config: TrainConfig, step: int) -> tuple[Tensor, Tensor]:
    """The crops of a step, fixed by the seed and the step alone: (N, 1, *crop), (N, *crop)."""
    rng = np.random.default_rng([config.loop.seed, step])
    weights = np.array([sample.weight for sample in prepared], dtype=np.float64)
    chosen = rng.choice(len(prepared), size=config.loop.batch, p=weights / weights.sum())
    pairs = [
        apply(prepared[k], draw(rng, config.augment, spacing=config.preparation.spacing), config)
        for k in chosen
    ]
    images = torch.from_numpy(np.stack([image for image, _ in pairs]))[:, None]
    targets = torch.from_numpy(np.stack([target for _, target in pairs])).long()
    return images, targets


def _one_step(
    state: _State, prepared: Sequence[Prepared], config: TrainConfig, device: str
) -> tuple[Any, ...]:
    start = time.perf_counter()
    images, targets = _batch(prepared, config, state.step)
    loaded = time.perf_counter()
    rate = _rate(state.step, config, len(prepared))
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.network.train()
    images = images.to(device)
    if config.preparation.position:
        images = with_position(images, config.preparation.spacing)
    images = images.contiguous(memory_format=torch.channels_last_3d)
    loss = deepmrseg_loss(state.network(images), targets.to(device))
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), 5.0)
    state.optimiser.step()
    state.step += 1
    _average(state, config.loop.ema)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(f"the loss is {value} at step {state.step}: lower the learning rate")
    seconds = time.perf_counter() - start
    return state.step, f"{value:.5f}", f"{rate:.6f}", f"{seconds:.3f}", f"{loaded - start:.3f}"


def _average(state: _State, decay: float) -> None:
    """Move the running average towards the weights; early steps move it further."""
    keep = min(decay, state.step / (state.step + 10)) if decay else 0.0
    for name, value in state.network.state_dict().items():
        if value.is_floating_point():
            state.average[name].lerp_(value, 1 - keep)
        else:
            state.average[name].copy_(value)


def _validate(
    state: _State, unseen: Sequence[Prepared], config: TrainConfig, out: Path, device: str
) -> None:
    """Dice of every label on the samples kept back, with the averaged weights."""
    network = build_network(config.network).to(device)
    network.load_state_dict(state.average)
    network.eval()
    plain = draw(np.random.default_rng(0), AugmentConfig(), spacing=1.0)
    scores = np.array([_dice(network, sample, plain, config, device) for sample in unseen])
    means = np.nanmean(scores, axis=0)
    columns = ("step", "mean", *config.labels.names)
    row = (state.step, *(f"{value:.4f}" for value in (means.mean(), *means)))
    _append(out / "validation.csv", columns, row)
    _log.info("step %d: Dice %s", state.step, " ".join(map(str, row[1:])))
    state.best = max(state.best, float(means.mean()))
    _plot(out, config)


def _dice(
    network: nn.Module, sample: Prepared, plain: Any, config: TrainConfig, device: str
) -> NDArray[np.float64]:
    image, target = apply(sample, plain, config)
    with torch.inference_mode():
        x = torch.from_numpy(image)[None, None].to(device)
        if config.preparation.position:
            x = with_position(x, config.preparation.spacing)
        found = network(x).argmax(1)[0].cpu().numpy()
    return np.array(
        [f1(confusion(found == k, target == k)) for k in range(1, len(config.labels) + 1)]
    )


def _save(state: _State, path: Path) -> None:
    """Write the checkpoint beside its final name, then move it there."""
    part = path.with_suffix(".part")
    torch.save(
        {
            "network": state.network.state_dict(),
            "average": state.average,
            "optimiser": state.optimiser.state_dict(),
            "step": state.step,
            "best": state.best,
        },
        part,
    )
    os.replace(part, path)


def _restore(state: _State, path: Path) -> None:
    kept = torch.load(path, weights_only=True)
    state.network.load_state_dict(kept["network"])
    state.average = kept["average"]
    state.optimiser.load_state_dict(kept["optimiser"])
    state.step, state.best = kept["step"], kept["best"]


def _append(path: Path, columns: Sequence[str], row: Sequence[Any]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if fresh:
            writer.writerow(columns)
        writer.writerow(row)


def _trim_log(out: Path, step: int) -> None:
    """Drop the rows of steps after the checkpoint: they are about to be done again."""
    for name in ("log.csv", "validation.csv"):
        path = out / name
        if path.exists():
            header, *rows = path.read_text(encoding="utf-8").splitlines()
            kept = [row for row in rows if int(row.split(",")[0]) <= step]
            path.write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")


def _plot(out: Path, config: TrainConfig) -> None:
    """Learning curves: the loss, and Dice of every label."""
    from matplotlib.figure import Figure

    steps = np.genfromtxt(out / "log.csv", delimiter=",", names=True, ndmin=1)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(steps["step"], steps["loss"], lw=0.5)
    left.set(xlabel="step", ylabel="loss", yscale="log")
    with (out / "validation.csv").open(encoding="utf-8") as stream:
        header, *rows = csv.reader(stream)
    table = np.array(rows, dtype=float)
    for column in range(2, table.shape[1]):
        right.plot(table[:, 0], table[:, column], lw=0.8, label=header[column])
    right.plot(table[:, 0], table[:, 1], "k", lw=2, label="mean")
    right.set(xlabel="step", ylabel="Dice on samples never trained on", ylim=(0, 1))
    right.legend(fontsize=6)
    figure.suptitle(config.task)
    figure.savefig(out / "curves.png", dpi=100)


def _write_samples(path: Path, samples: Sequence[Sample]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerow(("sample_id", "participant_id", "T1w", "FLAIR", "dseg", "mask", "protocol"))
        for s in samples:
            files = [str(p) if p else "" for p in (s.t1w, s.flair, s.dseg, s.mask)]
            writer.writerow((s.sample_id, s.participant_id, *files, s.protocol))


def _write_bundle(
    state: _State,
    config: TrainConfig,
    out: Path,
    teaching: Sequence[Sample],
    judging: Sequence[Sample],
) -> None:
    """The averaged weights so far; the card says how far that is."""
    rows = []
    if judging:
        with (out / "validation.csv").open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    facts: dict[str, Any] = {
        "samples_trained_on": len(teaching),
        "samples_held_out": len(judging),
        "steps": state.step,
        "dice_held_out": {k: float(v) for k, v in rows[-1].items() if k != "step"} if rows else {},
    }
    lines = [
        f"# {config.task}",
        "",
        f"Trained for {state.step} of {config.loop.steps} steps on {len(teaching)} samples.",
    ]
    ModelBundle.write(
        out / "bundle",
        task=config.task,
        network=config.network,
        preparation=dataclasses.replace(config.preparation, window=config.loop.crop),
        labels=config.labels,
        state=state.average,
        version=__version__,
        settings=config.text,
        card="\n".join(lines) + "\n",
        facts=facts,
    )
