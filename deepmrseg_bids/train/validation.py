"""Dice of the averaged weights on samples that were kept back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from deepmrseg_bids.metrics.overlap import confusion, f1
from deepmrseg_bids.network import build_network
from deepmrseg_bids.train.checkpoint import State
from deepmrseg_bids.train.crops import Ready, whole
from deepmrseg_bids.train.optimisation import forward
from deepmrseg_bids.train.training_run import Plan

__all__ = ["dice", "validate"]

_AT_ONCE = 8  # slices that a network in 2D sees at once


def validate(state: State, unseen: Sequence[Ready], plan: Plan) -> dict[str, float]:
    """Dice of each label by its name, and before them their ``mean``; nan where nobody has one."""
    network = build_network(plan.config.network).to(plan.device)
    network.load_state_dict(state.average)
    network.eval()
    scores = np.array([dice(network, sample, plan) for sample in unseen])
    labels = [_mean(column) for column in scores.T]
    names = plan.config.labels.names
    return {"mean": _mean(np.array(labels)), **dict(zip(names, labels, strict=True))}


def dice(network: nn.Module, sample: Ready, plan: Plan) -> NDArray[np.float64]:
    """(labels,) Dice on one sample; nan for a label that is on neither side.

    In 2D over all slices of a pair together.
    """
    images, target = whole(sample, plan.config)
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(images), _AT_ONCE)
        classes = [forward(network, part, plan).argmax(1).cpu().numpy() for part in parts]
    predicted = np.concatenate(classes).reshape(target.shape)
    labels = range(1, len(plan.config.labels) + 1)
    return np.array([f1(confusion(predicted == k, target == k)) for k in labels])


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of those that are known; nan if none is.

    >>> _mean(np.array([0.5, np.nan, 1.0]))
    0.75
    """
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
