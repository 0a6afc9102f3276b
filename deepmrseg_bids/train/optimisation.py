"""One step of the optimiser, and what the first one starts from."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.predictor import with_position
from deepmrseg_bids.network import build_network, deepmrseg_loss
from deepmrseg_bids.train.checkpoint import State
from deepmrseg_bids.train.config import TrainConfig
from deepmrseg_bids.train.training_run import Plan

__all__ = ["Step", "forward", "initial", "learning_rate", "take_step"]

_STEEPEST = 5.0  # norm to which longer gradients are cut


@dataclass(frozen=True)
class Step:
    """What the log says of a step; ``data_seconds`` of its ``seconds`` made the crops."""

    step: int
    loss: str
    learning_rate: str
    seconds: str
    data_seconds: str


def initial(config: TrainConfig, device: torch.device, init: ModelBundle | None = None) -> State:
    """Random weights, or those of ``init``, and an optimiser that has done no step.

    Raises:
        TrainingError: ``init`` is of another network.
    """
    network: nn.Module = build_network(config.network)
    if init is not None:
        if init.network != config.network:
            raise TrainingError(
                f"{init.path} is a bundle with a different network: {init.network}; the settings "
                f"require {config.network}"
            )
        network.load_state_dict(init.load().state_dict())
    network = network.to(device=device, memory_format=_layout(config))  # type: ignore[call-overload]
    kind = torch.optim.AdamW if config.loop.optimiser == "adamw" else torch.optim.Adam
    optimiser = kind(
        network.parameters(), lr=config.loop.learning_rate, weight_decay=config.loop.weight_decay
    )
    average = {name: value.clone() for name, value in network.state_dict().items()}
    return State(network, average, optimiser)


def take_step(state: State, batches: Iterator[tuple[Tensor, Tensor]], plan: Plan) -> Step:
    """Do one step of the optimiser.

    Raises:
        TrainingError: the loss is no number any more.
    """
    start = time.perf_counter()
    config = plan.config
    images, targets = next(batches)
    loaded = time.perf_counter()
    rate = learning_rate(state.step, config, samples=len(plan.teaching))
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.network.train()
    loss = deepmrseg_loss(forward(state.network, images, plan), targets.to(plan.device))
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), _STEEPEST)
    state.optimiser.step()
    state.step += 1
    _average(state, config.loop.ema)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingError(f"the loss is {value} at step {state.step}: lower the learning rate")
    seconds = time.perf_counter() - start
    return Step(
        state.step, f"{value:.5f}", f"{rate:.6f}", f"{seconds:.3f}", f"{loaded - start:.3f}"
    )


def forward(network: nn.Module, images: Tensor, plan: Plan) -> Tensor:
    """Logits (N, classes, *crop), float32, of images (N, C, *crop) from the CPU."""
    config = plan.config
    images = images.to(plan.device)
    if config.preparation.position:
        images = with_position(images, config.preparation.spacing)
    mixed = plan.precision != torch.float32
    with torch.autocast(plan.device.type, dtype=plan.precision, enabled=mixed):
        logits: Tensor = network(images.contiguous(memory_format=_layout(config)))
    return logits.float()


def learning_rate(step: int, config: TrainConfig, *, samples: int) -> float:
    """The learning rate of a step, from 0; an epoch has ``samples`` crops."""
    loop = config.loop
    if loop.schedule == "exponential":
        epoch = step * loop.batch // max(samples, 1)
        return float(loop.learning_rate * loop.decay**epoch)
    warm = max(1, loop.steps // 20)
    if step < warm:
        return loop.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, loop.steps - warm)
    return loop.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def _layout(config: TrainConfig) -> torch.memory_format:
    """How the network's tensors lie in memory."""
    return torch.channels_last if config.network.spatial_dims == 2 else torch.channels_last_3d


def _average(state: State, decay: float) -> None:
    """Move the running average towards the weights; early steps move it further."""
    keep = min(decay, state.step / (state.step + 10)) if decay else 0.0
    for name, value in state.network.state_dict().items():
        if value.is_floating_point():
            state.average[name].lerp_(value, 1 - keep)
        else:
            state.average[name].copy_(value)
