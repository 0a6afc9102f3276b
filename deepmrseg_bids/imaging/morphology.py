"""Masks grown, closed and filled: as SciPy's binary operations, several times as fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["closed", "filled", "grown", "largest"]


def grown(mask: NDArray[np.bool_], voxels: int) -> NDArray[np.bool_]:
    """A mask and all that lies within so many voxels of it, along every axis (a cube).

    Args:
        voxels: below 0, what is outside grows.
    """
    if voxels < 0:
        return ~grown(~mask, -voxels)
    return _in_cubes(ndimage.maximum_filter, mask, [voxels] * mask.ndim)


def closed(mask: NDArray[np.bool_], voxels: Sequence[int]) -> NDArray[np.bool_]:
    """A mask without gaps narrower than twice so many voxels, for each axis."""
    room = np.pad(mask, [(n, n) for n in voxels])
    wide = _in_cubes(ndimage.maximum_filter, room, voxels)
    every = _in_cubes(ndimage.minimum_filter, wide, voxels)
    return every[tuple(slice(n, n + edge) for n, edge in zip(voxels, mask.shape, strict=True))]


def filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask with its holes: what is outside of it but is not connected with the border."""
    around, _ = ndimage.label(~np.pad(mask, 1))
    whole: NDArray[np.bool_] = around != around[(0,) * mask.ndim]
    return whole[(slice(1, -1),) * mask.ndim]


def largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of a mask."""
    pieces, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    part: NDArray[np.bool_] = pieces == sizes.argmax()
    return part


def _in_cubes(
    extreme: Callable[..., NDArray[np.uint8]], mask: NDArray[np.bool_], voxels: Sequence[int]
) -> NDArray[np.bool_]:
    edges = [2 * n + 1 for n in voxels]
    return extreme(mask.view(np.uint8), edges, mode="constant").view(np.bool_)
