"""What happens to heads on their way to us: one raw head in, the same head worse.

Each variant keeps what it changes about space: references move with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Grid, canonical_grid, resample
from deepmrseg_bids.imaging.nifti import Volume

__all__ = ["ALL", "MILD", "ORIENTATIONS", "Head", "orientations", "variant"]


@dataclass(frozen=True, eq=False)
class Head:
    """A scan and the labels that belong to it.

    Attributes:
        labels: (I, J, K) codes; above 0 is brain.
        grid: of the labels; moves with the scan.
    """

    volume: Volume
    labels: NDArray[np.uint16]
    grid: Grid

    @property
    def brain(self) -> NDArray[np.bool_]:
        """The brain with its holes filled, on ``grid``."""
        filled: NDArray[np.bool_] = ndimage.binary_fill_holes(self.labels > 0)
        return filled

    def brain_on(self, grid: Grid) -> NDArray[np.bool_]:
        """The brain on another grid."""
        inside: NDArray[np.bool_] = resample(self.brain.astype(np.float32), self.grid, grid) > 0.5
        return inside

    def top(self) -> float:
        """A bright intensity: the 98th percentile of what is not air."""
        data = self.volume.data
        return float(np.percentile(data[data > 0.1 * data.max()], 98))

    def ends(self, axis: int) -> tuple[float, float]:
        """Where the brain begins and ends along a world axis, mm."""
        points = self.grid.to_world(np.argwhere(self.brain))[:, axis]
        return float(points.min()), float(points.max())


def _as(head: Head, data: NDArray[np.floating]) -> Head:
    volume = replace(head.volume, data=np.ascontiguousarray(data, dtype=np.float32))
    return replace(head, volume=volume)


def _onto(head: Head, grid: Grid) -> Head:
    data = resample(head.volume.data, head.volume.grid, grid)
    return replace(head, volume=replace(head.volume, data=data, grid=grid))


def tilted(head: Head, degrees: float, axis: int) -> Head:
    """The person lies turned in the scanner."""
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.eye(4)
    a, b = [k for k in range(3) if k != axis]
    turn[[a, a, b, b], [a, b, a, b]] = c, -s, s, c
    moved = Grid(head.volume.grid.shape, turn @ head.volume.grid.affine)
    labels = Grid(head.grid.shape, turn @ head.grid.affine)
    upright = canonical_grid(moved, min(moved.spacing))  # the scanner's axes stay where they are
    turned = replace(head, volume=replace(head.volume, grid=moved), grid=labels)
    return _onto(turned, upright)


def slices(head: Head, millimetres: float) -> Head:
    """Axial slices of this thickness."""
    fine = canonical_grid(head.volume.grid, min(head.volume.grid.spacing))
    affine = fine.affine @ np.diag([1, 1, millimetres / fine.spacing[2], 1])
    affine[2, 3] += (millimetres - fine.spacing[2]) / 2
    count = max(1, int(fine.shape[2] * fine.spacing[2] / millimetres))
    return _onto(head, Grid((*fine.shape[:2], count), affine))


def noisy(head: Head, share: float) -> Head:
    """Noise of a magnitude image: ``share`` of a bright intensity in each channel."""
    rng = np.random.default_rng(0)
    real, imaginary = rng.normal(0, share * head.top(), (2, *head.volume.data.shape))
    return _as(head, np.hypot(head.volume.data + real, imaginary))


def biased(head: Head, strength: float) -> Head:
    """A smooth field: from ``exp(-strength)`` on one corner to ``exp(strength)``."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in head.volume.data.shape), indexing="ij")
    return _as(head, head.volume.data * np.exp(strength * (axes[0] + axes[1] + axes[2]) / 3))


def curved(head: Head, values: list[float]) -> Head:
    """Another contrast: air stays dark, tissue from dark to bright gets these values."""
    knots = [0, 0.04, *np.linspace(0.12, 1, len(values))]
    return _as(head, np.interp(head.volume.data / head.top(), knots, [0, 0, *values]))


def without(head: Head, axis: int, *, below: float = -np.inf, above: float = np.inf) -> Head:
    """A field of view that ends at these world coordinates, mm."""
    upright = canonical_grid(head.volume.grid, min(head.volume.grid.spacing))
    places = upright.to_world(np.arange(upright.shape[axis])[:, None] * np.eye(3)[axis])[:, axis]
    kept = np.flatnonzero((places >= below) & (places <= above))
    start, stop = [0, 0, 0], list(upright.shape)
    start[axis], stop[axis] = int(kept[0]), int(kept[-1]) + 1
    return _onto(head, upright.crop(start, stop))


def stripped(head: Head) -> Head:
    """Brain alone."""
    return _as(head, np.where(head.brain_on(head.volume.grid), head.volume.data, 0))


def defaced(head: Head) -> Head:
    """All that lies beyond a tilted plane 5 mm before the brain is cut away."""
    grid = head.volume.grid
    ahead = np.array([0.0, np.cos(np.radians(40)), -np.sin(np.radians(40))])
    reach = float((head.grid.to_world(np.argwhere(head.brain)) @ ahead).max())
    way = ahead @ grid.affine[:3, :3]
    places = np.indices(grid.shape, sparse=True)
    along = sum(w * p for w, p in zip(way, places, strict=True)) + ahead @ grid.affine[:3, 3]
    return _as(head, np.where(along > reach + 5, 0, head.volume.data))


def stored(head: Head, order: tuple[int, ...], flips: tuple[int, ...]) -> Head:
    """The same scan with its axes permuted and turned round."""
    grid = head.volume.grid
    affine = grid.affine[:, [*order, 3]].copy()
    data = head.volume.data.transpose(order)
    for axis in range(3):
        if flips[axis]:
            data = np.flip(data, axis)
            affine[:, 3] += affine[:, axis] * (data.shape[axis] - 1)
            affine[:, axis] *= -1
    volume = replace(head.volume, data=np.ascontiguousarray(data), grid=Grid(data.shape, affine))
    return replace(head, volume=volume)


ORIENTATIONS = "each of 48 orientations"

MILD: dict[str, Callable[[Head], Head]] = {
    "as it is": lambda head: head,
    "head turned 10 degrees to the side": lambda head: tilted(head, 10, 1),
    "head nodded 10 degrees": lambda head: tilted(head, 10, 0),
    "neck cut off": lambda head: without(head, 2, below=head.ends(2)[0] - 5),
    "slices of 3 mm": lambda head: slices(head, 3),
    "noise, 3 % of bright tissue": lambda head: noisy(head, 0.03),
    "bias field, times 0.74 to 1.35": lambda head: biased(head, 0.3),
}
"""What any study has some of."""

ALL: dict[str, Callable[[Head], Head]] = {
    **MILD,
    "slices of 5 mm": lambda head: slices(head, 5),
    "vertex cut off, 10 mm of the brain with it": lambda head: without(
        head, 2, above=head.ends(2)[1] - 10
    ),
    "defaced": defaced,
    "brain-extracted": stripped,
    "bias field, times 0.37 to 2.7": lambda head: biased(head, 1.0),
    "noise, 10 % of bright tissue": lambda head: noisy(head, 0.10),
    "contrast like T2w": lambda head: curved(head, [1.0, 0.8, 0.55, 0.4, 0.3]),
    "contrast inverted": lambda head: curved(head, [1.0, 0.8, 0.6, 0.4, 0.2]),
}
"""The mild ones and those that only `brain` has to survive."""


def variant(head: Head, name: str) -> Head:
    """One variant by its name."""
    return ALL[name](head)


def orientations(head: Head) -> Iterator[Head]:
    """The head stored in each of the 48 ways (24 of them right-handed)."""
    for order in permutations(range(3)):
        for flips in product((0, 1), repeat=3):
            yield stored(head, order, flips)
