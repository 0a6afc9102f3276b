"""How unevenly a scan is lit: a coil that is nearer to one side makes that side brighter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.imaging.grid import Array, Grid
from deepmrseg_bids.imaging.morphology import eroded

__all__ = ["Gradient", "brightness_gradient"]

_BLOCK_MM = 16.0  # blocks in each of which white matter is expected
_RIM_MM = 4.0  # of the brain that is left out: partial volumes, and what is not brain
_WHITE = 85.0  # percentile of a block's intensities
_FILLED = 0.5  # least part of a block that is brain
_BLOCKS = 12  # that are needed
_ROUNDS = 5  # of weighted least squares
_UNIT_MM = 100.0


@dataclass(frozen=True, eq=False)
class Gradient:
    """A change of brightness along one direction.

    Attributes:
        slope: (3,) logarithm of the brightness per 100 mm, along the axes of the world.
        middle: (3,) where the factor is 1, RAS+ millimetres.
        ratio: of the brightest to the darkest place of the brain.
    """

    slope: NDArray[np.float64]
    middle: NDArray[np.float64]
    ratio: float

    def evened(self, data: Array, grid: Grid) -> NDArray[np.float32]:
        """The same scan (*grid.shape) with the gradient taken out."""
        along = self.slope @ grid.affine[:3, :3] / _UNIT_MM
        start = float(self.slope @ (grid.affine[:3, 3] - self.middle)) / _UNIT_MM
        out = data.astype(np.float32, copy=False) * np.float32(np.exp(-start))
        for axis, (step, edge) in enumerate(zip(along, grid.shape, strict=True)):
            line = np.exp(-step * np.arange(edge)).astype(np.float32)
            out = out * np.expand_dims(line, [other for other in range(3) if other != axis])
        return out


def brightness_gradient(image: Array, inside: NDArray[np.bool_], grid: Grid) -> Gradient | None:
    """The gradient over a brain, from the bright tissue of blocks all over it.

    A plane is fitted to the logarithm of the brightness by least squares in which blocks that
    differ most count least (Huber's weights).

    Args:
        image: (*grid.shape), air at 0.
        inside: (*grid.shape) the brain.

    Returns:
        None if there is too little brain to say.
    """
    places, levels = _blocks(image, _core(inside, grid), grid)
    if len(levels) < _BLOCKS:
        return None
    middle = places.mean(axis=0)
    known = np.column_stack([np.ones(len(levels)), (places - middle) / _UNIT_MM])
    weights = np.ones(len(levels))
    for _ in range(_ROUNDS):
        solved = np.linalg.lstsq(known * weights[:, None], levels * weights, rcond=None)[0]
        found = np.asarray(solved, dtype=np.float64)
        away = np.abs(levels - known @ found)
        weights = np.sqrt(1 / np.maximum(1, away / (2 * np.median(away) + 1e-3)))
    fitted = known @ found
    return Gradient(found[1:], middle, float(np.exp(np.ptp(fitted))))


def _core(inside: NDArray[np.bool_], grid: Grid) -> NDArray[np.bool_]:
    steps = max(1, round(_RIM_MM / min(grid.spacing)))
    return eroded(inside, steps)


def _blocks(
    image: Array, core: NDArray[np.bool_], grid: Grid
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the blocks lie, (N, 3) millimetres, and the logarithm of their brightness, (N,)."""
    edges = [max(1, round(_BLOCK_MM / spacing)) for spacing in grid.spacing]
    starts = np.ndindex(*(-(-n // edge) for n, edge in zip(image.shape, edges, strict=True)))
    places, levels = [], []
    for block in starts:
        corner = np.array(block) * edges
        box = tuple(slice(a, a + edge) for a, edge in zip(corner, edges, strict=True))
        there = core[box]
        if there.sum() < _FILLED * np.prod(edges):
            continue
        level = float(np.percentile(image[box][there], _WHITE))
        if level > 0:
            places.append(corner + (np.array(edges) - 1) / 2)
            levels.append(np.log(level))
    return grid.to_world(np.array(places).reshape(-1, 3)), np.array(levels)
