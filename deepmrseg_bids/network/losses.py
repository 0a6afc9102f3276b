"""The loss of section 3.5 of the paper: cross-entropy + mean squared error + soft IoU.

``logits`` are (N, K, *space), ``target`` the class indices (N, *space), integer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
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
    """The three losses, equally weighted (section 3.5 of the paper): a scalar >= 0.

    The sum of the functions above, without a tensor of one-hot labels and with the gradient
    written out: with many classes it takes a fraction of their memory and time.
    """
    loss: Tensor = _Fused.apply(logits, target)  # type: ignore[no-untyped-call]
    return loss


class _Fused(torch.autograd.Function):
    """The loss of M voxels and K classes, and its gradient.

    With p the softmax of the logits z, y the one-hot labels, and g = dL/dp of the squared error
    and the soft IoU: dL/dz = p (g - sum(g p)) + (p - y) / M.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        classes, voxels = logits.shape[1], target.numel()
        p = logits.softmax(1)
        at = target.unsqueeze(1)
        true = p.gather(1, at).squeeze(1)  # probability of the true class
        flat = target.flatten()
        volumes = torch.bincount(flat, minlength=classes)
        overlap = torch.bincount(flat, weights=true.flatten().double(), minlength=classes)
        overlap = overlap.to(p.dtype)
        union = p.sum([0, *range(2, p.ndim)]) + volumes - overlap + _EPSILON
        overlap += _EPSILON
        squares = p.square().sum() - 2 * true.sum() + voxels
        ctx.save_for_backward(p, target, overlap, union)
        # -log of the true class's p, which may be 0: through that of the likeliest class
        odds = logits.amax(1) - logits.gather(1, at).squeeze(1)
        entropy = (odds - p.amax(1).log()).mean()
        return entropy + squares / (voxels * classes) + 1 - (overlap / union).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        p, target, overlap, union = ctx.saved_tensors
        classes, voxels = p.shape[1], target.numel()
        at = target.unsqueeze(1)
        missed = overlap / union.square() / classes  # of the soft IoU, where y is 0
        hit = -1 / union / classes  # where y is 1
        g = torch.addcmul(
            missed.reshape(1, -1, *[1] * (p.ndim - 2)), p, p.new_full((1,), 2 / (voxels * classes))
        )
        g.scatter_add_(1, at, (hit - missed - 2 / (voxels * classes))[target].unsqueeze(1))
        g -= (g * p).sum(1, keepdim=True) - 1 / voxels
        g *= p
        g.scatter_add_(1, at, g.new_full((), -1 / voxels).expand_as(at))
        g *= outer
        return g, None
