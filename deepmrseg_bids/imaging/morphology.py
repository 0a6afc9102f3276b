"""Masks grown, closed and filled: as SciPy's binary operations, several times as fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = [
    "box_above",
    "box_of",
    "closed",
    "dilated",
    "eroded",
    "filled",
    "grown",
    "largest",
    "widened",
]


def box_of(data: NDArray[np.generic]) -> tuple[slice, ...] | None:
    """The smallest box that holds a mask, or all that is not 0; None if there is nothing.

    >>> box_of(np.array([[False, False, False], [False, True, True]]))
    (slice(1, 2, None), slice(1, 3, None))
    """
    return _box(data, lambda part, axes: part.any(axis=axes))


def box_above(data: NDArray[np.generic], least: float) -> tuple[slice, ...] | None:
    """The smallest box that holds all values above a number; None if there is none.

    As ``box_of(data > least)``, without that mask: a large new array costs more than to look.

    >>> box_above(np.array([[0, 0, 0], [0, 7, 3]]), 2)
    (slice(1, 2, None), slice(1, 3, None))
    """
    return _box(data, lambda part, axes: part.max(axis=axes) > least)


def _box(
    data: NDArray[np.generic], seen: Callable[[NDArray[Any], tuple[int, ...]], Any]
) -> tuple[slice, ...] | None:
    """The box of what is seen; ``seen`` tells it of each place of an axis, from all others."""
    box: list[slice] = []
    for axis in range(data.ndim):
        # what lies before is cut already
        part = data[tuple(box)]
        here = np.flatnonzero(seen(part, tuple({*range(data.ndim)} - {axis})))
        if not len(here):
            return None
        box.append(slice(int(here[0]), int(here[-1]) + 1))
    return tuple(box)


def widened(
    box: Sequence[slice], voxels: int | Sequence[int], shape: Sequence[int]
) -> tuple[slice, ...]:
    """A box with some voxels around it, as far as an array of a shape has them.

    >>> widened((slice(1, 2), slice(4, 6)), 3, (9, 8))
    (slice(0, 5, None), slice(1, 8, None))
    """
    room = [voxels] * len(box) if isinstance(voxels, int) else voxels
    return tuple(
        slice(max(0, side.start - more), min(edge, side.stop + more))
        for side, more, edge in zip(box, room, shape, strict=True)
    )


def grown(mask: NDArray[np.bool_], voxels: int) -> NDArray[np.bool_]:
    """A mask and all that lies within so many voxels of it, along every axis (a cube).

    Args:
        voxels: below 0, what is outside grows.
    """
    if voxels < 0:
        return ~grown(~mask, -voxels)
    return _spread(mask, [voxels] * mask.ndim)


def dilated(mask: NDArray[np.bool_], steps: int = 1) -> NDArray[np.bool_]:
    """A mask and what so many steps from voxel to voxel lead to, through faces (a diamond).

    >>> dilated(np.array([[False, False, False], [True, False, False]])).astype(int)
    array([[1, 0, 0],
           [1, 1, 0]])
    """
    for _ in range(steps):
        before, mask = mask, mask.copy(order="K")  # as it lies in memory
        for axis in range(mask.ndim):
            to, of = mask.swapaxes(0, axis), before.swapaxes(0, axis)
            to[1:] |= of[:-1]
            to[:-1] |= of[1:]
    return mask


def eroded(mask: NDArray[np.bool_], steps: int = 1) -> NDArray[np.bool_]:
    """A mask without what so many steps lead to from outside; beyond the array is outside.

    >>> eroded(np.array([True, True, True, False])).astype(int)
    array([0, 1, 0, 0])
    """
    return ~dilated(~np.pad(mask, 1), steps)[(slice(1, -1),) * mask.ndim]


def closed(mask: NDArray[np.bool_], voxels: Sequence[int]) -> NDArray[np.bool_]:
    """A mask without gaps narrower than twice so many voxels, for each axis."""
    if _lies_reversed(mask):
        return closed(mask.T, voxels[::-1]).T
    out = np.zeros_like(mask)
    box = box_of(mask)
    if box is not None:
        part = mask[box]
        wide = _spread(np.pad(part, [(n, n) for n in voxels]), voxels)
        left = ~_spread(~wide, voxels)
        inner = zip(voxels, left.shape, strict=True)
        out[box] = left[tuple(slice(n, edge - n or None) for n, edge in inner)]
    return out


def filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask with its holes: what is outside of it but is not connected with the border."""
    if _lies_reversed(mask):
        return filled(mask.T).T
    out = np.zeros_like(mask)
    box = box_of(mask)
    if box is not None:
        around, _ = ndimage.label(~np.pad(mask[box], 1))
        out[box] = (around != around[(0,) * mask.ndim])[(slice(1, -1),) * mask.ndim]
    return out


def largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest connected part of a mask."""
    if _lies_reversed(mask):
        return largest(mask.T).T
    out = np.zeros_like(mask)
    box = box_of(mask)
    if box is not None:
        pieces, _ = ndimage.label(mask[box])
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        out[box] = pieces == sizes.argmax()
    return out


def _lies_reversed(mask: NDArray[np.bool_]) -> bool:
    """Whether the first axis is the fastest, as in files: SciPy is slow along the others."""
    return mask.flags.f_contiguous and not mask.flags.c_contiguous


def _spread(mask: NDArray[np.bool_], voxels: Sequence[int]) -> NDArray[np.bool_]:
    """A mask and all that lies within so many voxels of it along each axis, in turn."""
    for axis, reach in enumerate(voxels):
        room = [(reach, reach) if k == axis else (0, 0) for k in range(mask.ndim)]
        lines, seen = np.pad(mask, room).swapaxes(0, axis), 1
        while seen < 2 * reach + 1:  # voxels of which each knows by now
            step = min(seen, 2 * reach + 1 - seen)
            lines, seen = lines[:-step] | lines[step:], seen + step
        mask = lines.swapaxes(0, axis)
    return mask
