"""The training loop: resumable at any step, and the same to the last bit when it is.

A folder holds ``settings.toml``, ``log.csv`` (a row a step), ``validation.csv`` (a row a
validation), ``curves.png``, ``checkpoint.pt``, ``validation.tsv`` (the samples never trained
on), at the end ``bundle/`` and, if wanted, ``tensorboard/``.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from deepmrseg_bids import __version__
from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.inference.bundle import ModelBundle, Preparation
from deepmrseg_bids.inference.predictor import resolve_precision, with_position
from deepmrseg_bids.metrics.overlap import confusion, f1
from deepmrseg_bids.network import build_network, deepmrseg_loss
from deepmrseg_bids.train import csv_log, slice_pairs
from deepmrseg_bids.train.augment import Augmentation, apply, draw
from deepmrseg_bids.train.checkpoint import State, restore, save
from deepmrseg_bids.train.config import AugmentConfig, TrainConfig, changed_settings, load_config
from deepmrseg_bids.train.samples import Prepared, Sample, prepare_sample, split_folds
from deepmrseg_bids.train.scene import Anatomy
from deepmrseg_bids.train.tensorboard import Scalar, event_writer, find_tensorboard
from deepmrseg_bids.tsv import tsv_text

__all__ = ["train"]

_log = logging.getLogger(__name__)
_Ready: TypeAlias = Prepared | slice_pairs.Pair | Anatomy
_SLICES = 8  # of a validation in 2D that are seen at once
_STEP_COLUMNS = ("step", "loss", "learning_rate", "seconds", "data_seconds")


@dataclass(frozen=True)
class _Run:
    """What stays the same while training.

    Attributes:
        precision: of the network's forward pass.
        taught, held_out: samples to train on, and to validate.
        init: whose weights the first step started from.
    """

    config: TrainConfig
    out: Path
    device: torch.device
    precision: torch.dtype
    taught: int
    held_out: int
    init: ModelBundle | None = None


def train(
    samples: Sequence[Sample],
    config: TrainConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    cache: Path | None = None,
    stop_at: int | None = None,
    tensorboard: bool = False,
    init: Path | None = None,
    workers: int = 0,
) -> Path:
    """Train one network and write its bundle.

    Args:
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

    Returns:
        The folder of the bundle; without ``stop_at`` it is complete.

    Raises:
        TrainingError: nothing to train on; nobody to validate where the settings ask for
            the best weights or for early stopping; ``out`` holds a run and ``resume`` is
            off, or one that was begun with other settings; TensorBoard is not installed;
            ``init`` is of another network.
        BundleError: ``init`` is no bundle.
    """
    teaching, judging = _split(samples, config)
    writer = find_tensorboard() if tensorboard else None
    checkpoint = out / "checkpoint.pt"
    resuming = checkpoint.exists()
    complete = resume and not resuming and _complete(out / "bundle", config)
    if resuming or complete:
        _check_resumable(out, config, resume)
    if complete:
        return out / "bundle"
    place = torch.device(device)
    precision = resolve_precision(config.loop.precision, place)
    first = None if init is None else ModelBundle.open(init)
    run = _Run(config, out, place, precision, len(teaching), len(judging), first)
    torch.manual_seed(config.loop.seed)
    state = _start(config, place, first)
    if resuming:
        restore(state, checkpoint, keep=config.loop.keep == "best")
    out.mkdir(parents=True, exist_ok=True)
    csv_log.write_text(out / "settings.toml", config.text)
    _write_samples(out / "validation.tsv", judging)
    if _finished(state, run) and (out / "bundle" / "bundle.json").is_file():
        return out / "bundle"
    prepare = slice_pairs.prepare if config.network.spatial_dims == 2 else prepare_sample
    prepared = [prepare(sample, config, cache) for sample in teaching]
    unseen = [prepare(sample, config, cache) for sample in judging]
    _log.info("%d samples to train on, %d to validate, from step %d of %d, in %s on %s",
              len(prepared), len(unseen), state.step, config.loop.steps,
              _name(precision), place)  # fmt: skip
    for name in ("log.csv", "validation.csv"):
        csv_log.trim(out / name, state.step)
    with event_writer(writer, out / "tensorboard", state.step) as scalar:
        last = min(config.loop.steps, stop_at or config.loop.steps)
        batches = _batches(prepared, config, range(state.step, last), workers)
        while state.step < last and not state.stopped:
            _log_step(_one_step(state, batches, run), run, scalar)
            done = state.step == config.loop.steps
            if done or state.step % config.loop.validate_every == 0:
                _take_stock(state, unseen, run, scalar)
            pause = done or state.stopped or state.step == last
            if pause or state.step % config.loop.checkpoint_every == 0:
                save(state, checkpoint)
    if _finished(state, run) and not unseen:
        _write_bundle(state, run)
    return out / "bundle"


def _split(samples: Sequence[Sample], config: TrainConfig) -> tuple[list[Sample], list[Sample]]:
    """Who teaches and who judges."""
    if not samples:
        raise TrainingError("no samples to train on")
    teaching, held_out = list(samples), []
    if config.loop.folds:
        held_out = split_folds(samples, config.loop.folds, seed=config.loop.seed)[config.loop.fold]
        people = {sample.participant_id for sample in held_out}
        teaching = [sample for sample in samples if sample.participant_id not in people]
    if not held_out and (config.loop.keep == "best" or config.loop.patience):
        raise TrainingError(
            'keep = "best" and patience need samples to validate: set folds to at least 2, or '
            'keep = "last" and patience = 0'
        )
    return teaching, held_out


def _check_resumable(out: Path, config: TrainConfig, resume: bool) -> None:
    """Refuse to write over a run, and to go on with one under other settings."""
    if not resume:
        raise TrainingError(f"{out} holds a run already: add --resume, or choose another folder")
    kept = out / "settings.toml"
    if not kept.is_file():
        return  # begun by a version that did not write it
    changed = changed_settings(load_config(kept), config)
    if changed:
        raise TrainingError(
            f"{out} holds a run with other settings: {', '.join(changed)}; go on with those in "
            "its settings.toml, or choose another folder"
        )


def _finished(state: State, run: _Run) -> bool:
    return state.stopped or state.step >= run.config.loop.steps


def _complete(bundle: Path, config: TrainConfig) -> bool:
    """Whether a run ended and left this bundle; its checkpoint may be gone."""
    if not (bundle / "bundle.json").is_file():
        return False
    facts = ModelBundle.open(bundle).facts
    return bool(facts.get("stopped_early")) or facts.get("steps", 0) >= config.loop.steps


def _name(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def _start(config: TrainConfig, device: torch.device, init: ModelBundle | None) -> State:
    network: nn.Module = build_network(config.network)
    if init is not None:
        if init.network != config.network:
            raise TrainingError(
                f"{init.path} is a bundle of another network: {init.network}; the settings ask "
                f"for {config.network}"
            )
        network.load_state_dict(init.load().state_dict())
    network = network.to(device=device, memory_format=_layout(config))  # type: ignore[call-overload]
    kind = torch.optim.AdamW if config.loop.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(
        network.parameters(), lr=config.loop.learning_rate, weight_decay=config.loop.weight_decay
    )
    average = {name: value.clone() for name, value in network.state_dict().items()}
    return State(network, average, optimiser)


def _layout(config: TrainConfig) -> torch.memory_format:
    """How the network's tensors lie in memory."""
    return torch.channels_last if config.network.spatial_dims == 2 else torch.channels_last_3d


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


def _batch(prepared: Sequence[_Ready], config: TrainConfig, step: int) -> tuple[Tensor, Tensor]:
    """The crops of a step, fixed by the seed and the step alone: (N, C, *crop), (N, *crop)."""
    rng = np.random.default_rng([config.loop.seed, step])
    weights = np.array([sample.weight for sample in prepared], dtype=np.float64)
    chosen = rng.choice(len(prepared), size=config.loop.batch, p=weights / weights.sum())
    crops = [_crop(prepared[k], rng, config) for k in chosen]
    images = torch.from_numpy(np.stack([image for image, _ in crops]))
    targets = torch.from_numpy(np.stack([target for _, target in crops])).long()
    return images, targets


class _Steps(Dataset[tuple[Tensor, Tensor]]):
    """The crops of every step."""

    def __init__(self, prepared: Sequence[_Ready], config: TrainConfig) -> None:
        self._prepared, self._config = prepared, config

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        return _batch(self._prepared, self._config, step)


def _batches(
    prepared: Sequence[_Ready], config: TrainConfig, steps: range, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The crops of ``steps``, in their order."""
    loader = DataLoader(
        _Steps(prepared, config), batch_size=None, sampler=steps, num_workers=workers,
        prefetch_factor=4 if workers else None,
    )  # fmt: skip
    return iter(loader)


def _crop(
    prepared: _Ready, rng: np.random.Generator, config: TrainConfig
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A random crop (C, *crop) and its classes (*crop)."""
    if not isinstance(prepared, Prepared):
        return slice_pairs.crop(prepared, rng, config)
    chosen = draw(rng, config.augment, spacing=config.preparation.spacing)
    image, target = apply(prepared, chosen, config)
    return image[None], target


def _forward(network: nn.Module, images: Tensor, run: _Run) -> Tensor:
    """Logits (N, classes, *crop), float32, of images (N, C, *crop) from the CPU."""
    images = images.to(run.device)
    if run.config.preparation.position:
        images = with_position(images, run.config.preparation.spacing)
    mixed = run.precision != torch.float32
    with torch.autocast(run.device.type, dtype=run.precision, enabled=mixed):
        logits: Tensor = network(images.contiguous(memory_format=_layout(run.config)))
    return logits.float()


def _one_step(state: State, batches: Iterator[tuple[Tensor, Tensor]], run: _Run) -> tuple[Any, ...]:
    """One step of the optimiser: its row of the log."""
    start = time.perf_counter()
    config = run.config
    images, targets = next(batches)
    loaded = time.perf_counter()
    rate = _rate(state.step, config, run.taught)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.network.train()
    loss = deepmrseg_loss(_forward(state.network, images, run), targets.to(run.device))
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


def _average(state: State, decay: float) -> None:
    """Move the running average towards the weights; early steps move it further."""
    keep = min(decay, state.step / (state.step + 10)) if decay else 0.0
    for name, value in state.network.state_dict().items():
        if value.is_floating_point():
            state.average[name].lerp_(value, 1 - keep)
        else:
            state.average[name].copy_(value)


def _log_step(row: Sequence[Any], run: _Run, scalar: Scalar) -> None:
    csv_log.append(run.out / "log.csv", _STEP_COLUMNS, row)
    step, loss, rate = row[:3]
    scalar("loss", float(loss), step)
    scalar("learning_rate", float(rate), step)


def _take_stock(state: State, unseen: Sequence[_Ready], run: _Run, scalar: Scalar) -> None:
    """Validate, tell, draw the curves and write the bundle so far."""
    from deepmrseg_bids.train.curves import draw_curves, write_curves

    loop = run.config.loop
    if unseen:
        mean = _validate(state, unseen, run, scalar)
        state.judge(mean, keep=loop.keep == "best", patience=loop.patience)
        if state.step >= loop.steps:
            state.stopped = False  # it went to its end
        if state.stopped:
            _log.info("step %d: no better Dice than %.4f (step %d) in %d validations: stopped",
                      state.step, state.best, state.best_step, state.waited)  # fmt: skip
    steps, scores = (csv_log.read(run.out / name) for name in ("log.csv", "validation.csv"))
    _log.info("step %d: networks %.0f %% of the time", state.step,
              100 * csv_log.network_share(steps))  # fmt: skip
    kept = state.kept()[1] if loop.keep == "best" else None
    figure = draw_curves(steps, scores, title=run.config.task, kept=kept)
    write_curves(figure, run.out / "curves.png")
    if unseen:
        _write_bundle(state, run)


def _validate(state: State, unseen: Sequence[_Ready], run: _Run, scalar: Scalar) -> float:
    """Dice of every label on the samples kept back, with the averaged weights: their mean."""
    config = run.config
    network = build_network(config.network).to(run.device)
    network.load_state_dict(state.average)
    network.eval()
    plain = draw(np.random.default_rng(0), AugmentConfig(), spacing=1.0)
    scores = np.array([_dice(network, sample, plain, run) for sample in unseen])
    labels = [_mean(column) for column in scores.T]
    mean = _mean(np.array(labels))
    columns = ("step", "mean", *config.labels.names)
    row = (state.step, *(f"{value:.4f}" for value in (mean, *labels)))
    csv_log.append(run.out / "validation.csv", columns, row)
    _log.info("step %d: Dice %s", state.step, " ".join(map(str, row[1:])))
    for name, value in zip(columns[1:], (mean, *labels), strict=True):
        scalar(f"dice/{name}", value, state.step)
    return mean


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of those that are known; nan if none is.

    >>> _mean(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan


def _dice(
    network: nn.Module, sample: _Ready, plain: Augmentation, run: _Run
) -> NDArray[np.float64]:
    """(labels,) Dice on one sample; nan for a label that is on neither side.

    In 2D over all slices of a pair together.
    """
    if isinstance(sample, Prepared):
        image, target = apply(sample, plain, run.config)
        images = image[None, None]
    else:
        assert isinstance(sample, slice_pairs.Pair)  # label maps never judge
        target, images = sample.target, sample.image.swapaxes(0, 1).astype(np.float32)
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(images), _SLICES)
        found = np.concatenate([_forward(network, x, run).argmax(1).cpu().numpy() for x in parts])
    found = found.reshape(target.shape)
    labels = range(1, len(run.config.labels) + 1)
    return np.array([f1(confusion(found == k, target == k)) for k in labels])


def _write_samples(path: Path, samples: Sequence[Sample]) -> None:
    columns = ("sample_id", "participant_id", "T1w", "FLAIR", "dseg", "mask", "protocol")
    rows = [
        (s.sample_id, s.participant_id, s.t1w, s.flair, s.dseg, s.mask, s.protocol) for s in samples
    ]
    path.write_text(tsv_text(columns, rows, quote=True), encoding="utf-8", newline="")


def _write_bundle(state: State, run: _Run) -> None:
    """The weights to keep so far; facts and card say of which step they are."""
    config = run.config
    weights, step = state.kept()
    facts: dict[str, Any] = {
        "samples_trained_on": run.taught,
        "samples_held_out": run.held_out,
        "steps": state.step,
        "kept_step": step,
        "stopped_early": state.stopped,
        "precision": _name(run.precision),
        "network_share": round(csv_log.network_share(csv_log.read(run.out / "log.csv")), 3),
        "dice_held_out": _scores_at(run.out / "validation.csv", step),
    }
    if run.init is not None:
        facts["started_from"] = {"version": run.init.version, "sha256": run.init.sha256}
    ModelBundle.write(
        run.out / "bundle",
        task=config.task,
        network=config.network,
        preparation=_seen(config),
        labels=config.labels,
        state=weights,
        version=__version__,
        settings=config.text,
        card=_card(state, run),
        facts=facts,
    )


def _seen(config: TrainConfig) -> Preparation:
    """How the bundle's network sees an image: in 3D in windows as large as the crops."""
    if len(config.loop.crop) == 2:
        return config.preparation  # whole slices
    window = (config.loop.crop[0], config.loop.crop[1], config.loop.crop[2])
    return dataclasses.replace(config.preparation, window=window)


def _scores_at(path: Path, step: int) -> dict[str, float | None]:
    """Dice at a validation: mean and labels; None for a label that nobody has."""
    for row in csv_log.read(path):
        if row.pop("step") == str(step):
            scores = {name: float(value) for name, value in row.items()}
            return {name: None if math.isnan(value) else value for name, value in scores.items()}
    return {}


def _card(state: State, run: _Run) -> str:
    loop = run.config.loop
    lines = [
        f"# {run.config.task}",
        "",
        f"Trained for {state.step} of {loop.steps} steps on {run.taught} samples.",
    ]
    if state.stopped:
        lines.append(
            f"It was stopped early: {state.waited} validations brought no better mean Dice."
        )
    if state.best_average is not None:
        lines.append(
            f"The weights are those of step {state.best_step}, the best of its validations "
            f"(mean Dice {state.best:.4f})."
        )
    return "\n".join(lines) + "\n"
