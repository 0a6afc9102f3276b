"""Smooth random fields: few values on a coarse grid, interpolated to a whole crop."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from deepmrseg_bids.imaging.grid import Array

__all__ = ["smooth"]


def smooth(knots: NDArray[np.float32], size: tuple[int, ...]) -> Array:
    r"""Fields on a crop from their values at evenly spaced points, the first and last on its rim.

    Bicubic in a plane, trilinear in a volume: ``torch.nn.functional.interpolate`` with
    ``align_corners``, taken apart into a small matrix product an axis.

    Args:
        knots: (fields, \*points) float32, points in 2D or 3D.

    Returns:
        (fields, \*size) float32.

    >>> smooth(np.array([[[0, 2], [0, 2]]], np.float32), (2, 3))[0].tolist()
    [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
    """
    field = torch.from_numpy(knots)
    for axis, edge in enumerate(size, start=1):
        weights = _weights(field.shape[axis], edge, cubic=len(size) == 2)
        field = torch.movedim(torch.tensordot(weights, field, dims=([1], [axis])), 0, axis)
    smoothed: Array = field.contiguous().numpy()
    return smoothed


@lru_cache(maxsize=128)
def _weights(points: int, edge: int, *, cubic: bool) -> Tensor:
    """(edge, points): how much each point counts at each place of an axis."""
    each = torch.eye(points)
    if cubic:
        line = functional.interpolate(
            each[None, :, None], size=(1, edge), mode="bicubic", align_corners=True
        )[0, :, 0]
    else:
        line = functional.interpolate(each[None], size=edge, mode="linear", align_corners=True)[0]
    return line.T.contiguous()
