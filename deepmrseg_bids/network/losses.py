"""The loss of section 3.5 of the paper: cross-entropy + mean squared error + soft IoU.

``logits`` are (N, K, *space), ``target`` the class indices (N, *space), integer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["cross_entropy", "deepmrseg_loss", "mean_squared_error", "soft_iou_loss"]

_EPSILON = 1e-6


def one_hot(target: Tensor, classes: int) -> Tensor:
    """Class indices (N, *space) as float (N, K, *space)."""
    hot = torch.zeros(
        (target.shape[0], classes, *target.shape[1:]), dtype=torch.float32, device=target.device
    )
    return hot.scatter_(1, target.unsqueeze(1), 1.0)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over voxels of ``-log p(true class)``: a scalar >= 0."""
    return functional.cross_entropy(logits, target)


def mean_squared_error(probabilities: Tensor, hot: Tensor) -> Tensor:
    """Mean over voxels and classes of ``(p - y)^2``: a scalar in [0, 1]."""
    return functional.mse_loss(probabilities, hot)


def soft_iou_loss(probabilities: Tensor, hot: Tensor) -> Tensor:
    """One minus the mean over classes of ``sum p y / sum (p + y - p y)``: in [0, 1].

    The sums run over the batch and space (Rahman & Wang 2016). A class absent from both
    counts as agreement only as far as the network gives it no probability.
    """
    axes = [0, *range(2, probabilities.ndim)]
    overlap = (probabilities * hot).sum(axes)
    union = probabilities.sum(axes) + hot.sum(axes) - overlap
    return 1 - ((overlap + _EPSILON) / (union + _EPSILON)).mean()


def deepmrseg_loss(logits: Tensor, target: Tensor) -> Tensor:
    """The three losses, equally weighted (section 3.5 of the paper): a scalar >= 0."""
    hot = one_hot(target, logits.shape[1])
    probabilities = logits.softmax(1)
    return (
        cross_entropy(logits, target)
        + mean_squared_error(probabilities, hot)
        + soft_iou_loss(probabilities, hot)
    )
