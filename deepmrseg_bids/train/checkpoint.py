"""What changes while training, and the file from which a killed run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.files import replacing

__all__ = ["State", "restore", "save"]


@dataclass
class State:
    """What changes while training, and what a checkpoint keeps.

    Attributes:
        average: the running average of the weights.
        best: the best mean Dice of a validation so far; -1 before the first.
        best_step: where that was.
        best_average: the averaged weights there, if they are the ones to be kept.
        waited: validations since.
        stopped: training ended there, before the end of its schedule.
    """

    network: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    best: float = -1.0
    best_step: int = 0
    best_average: dict[str, Tensor] | None = None
    waited: int = 0
    stopped: bool = False

    def judge(self, mean: float, *, keep: bool, patience: int) -> None:
        """Take note of a validation's mean Dice; one that is nan is no new best."""
        if mean > self.best:
            self.best, self.best_step, self.waited = mean, self.step, 0
            if keep:
                self.best_average = {name: value.clone() for name, value in self.average.items()}
        else:
            self.waited += 1
        self.stopped = 0 < patience <= self.waited

    def kept(self) -> tuple[dict[str, Tensor], int]:
        """The averaged weights that the bundle holds, and the step they are from."""
        if self.best_average is None:
            return self.average, self.step
        return self.best_average, self.best_step


def save(state: State, path: Path) -> None:
    """Write the checkpoint beside its final name, then move it there.

    Raises:
        DatasetError: the disk is full, or the folder cannot be written.
    """
    with replacing(path) as part:
        try:
            torch.save(_content(state), part)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch has its own words for a full disk
                raise error.__context__ from None
            raise


def _content(state: State) -> dict[str, Any]:
    return {
        "network": state.network.state_dict(),
        "average": state.average,
        "optimiser": state.optimiser.state_dict(),
        "step": state.step,
        "best": state.best,
        "best_step": state.best_step,
        "best_average": state.best_average,
        "waited": state.waited,
        "stopped": state.stopped,
    }


def restore(state: State, path: Path, *, keep: bool) -> None:
    """Go back to a checkpoint, whichever device it was made on.

    Args:
        keep: the best weights are wanted. Checkpoints of older versions know the best Dice
            but do not have its weights: the search for the best then begins anew.

    Raises:
        TrainingError: unreadable, or of another network.
    """
    device = next(state.network.parameters()).device
    try:
        kept = torch.load(path, weights_only=True, map_location="cpu")
        state.network.load_state_dict(kept["network"])
        state.optimiser.load_state_dict(kept["optimiser"])  # moves to the weights' device
        state.average = _on(kept["average"], device)
        state.step, state.best = kept["step"], kept["best"]
    except Exception as error:  # a file that is no checkpoint fails in many ways
        raise TrainingError(
            f"{path}: not a checkpoint of this network ({error}); choose another folder"
        ) from error
    best = kept.get("best_average")
    state.best_average = None if best is None else _on(best, device)
    state.best_step, state.waited = kept.get("best_step", 0), kept.get("waited", 0)
    state.stopped = kept.get("stopped", False)
    if keep and best is None:
        state.best = -1.0


def _on(weights: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in weights.items()}
