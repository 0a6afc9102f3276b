"""Smooth random fields: few values on a coarse grid, interpolated to a whole crop."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from deepmrseg_bids.imaging.grid import Array

__all__ = ["shade", "smooth"]


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


def shade(
    shading: NDArray[np.float64], size: tuple[int, ...], spacing: float = 1.0
) -> NDArray[np.float32]:
    r"""The factor by which a change of brightness alters each place of a crop; 1 in its middle.

    Args:
        shading: (2, axes) logarithm of the brightness: its slope along each axis per 100 mm, and
            its curvature per 100 mm squared.
        spacing: edge of the pixels or voxels, mm.

    Returns:
        (\*size) float32.

    >>> shade(np.array([[np.log(4)], [0.0]]), (3,), 50.0).tolist()
    [0.5, 1.0, 2.0]
    """
    factor = np.ones((1,) * len(size), np.float32)
    for axis, (slope, curvature) in enumerate(shading.T):
        away = (np.arange(size[axis]) - (size[axis] - 1) / 2) * spacing / 100
        line = np.exp(slope * away + curvature * away**2).astype(np.float32)
        others = [other for other in range(len(size)) if other != axis]
        factor = factor * np.expand_dims(line, others)
    return factor


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
