"""Masks grown, closed and filled: as SciPy's binary operations, several times as fast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["closed", "filled", "grown", "largest"]


def grown(mask: NDArray[np.bool_], voxels: int) -> NDArray[np.bool_]:
    """A mask and all that lies within so many voxels of it, along every axis (a cube)."""
    return _cube(mask, [voxels] * mask.ndim, ndimage.maximum_filter)


def closed(mask: NDArray[np.bool_], voxels: Sequence[int]) -> NDArray[np.bool_]:
    """A mask without gaps narrower than twice so many voxels, for each axis."""
    room = np.pad(mask, [(n, n) for n in voxels])
    every = _cube(_cube(room, voxels, ndimage.maximum_filter), voxels, ndimage.minimum_filter)
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


def _cube(mask: NDArray[np.bool_], voxels: Sequence[int], of: object) -> NDArray[np.bool_]:
    edges = [2 * n + 1 for n in voxels]
    found: NDArray[np.uint8] = of(mask.view(np.uint8), edges, mode="constant")  # type: ignore[operator]
    return found.view(np.bool_)
