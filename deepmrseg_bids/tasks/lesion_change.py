"""Lesions of two visits of one person: which are new, larger, the same, smaller or gone.

The two maps stay on their own grids, where lesions were seen. Lesions that meet once the scans lie
on each other belong together: one may have grown into several, or several into one, so that what
is compared is a group of lesions, and most groups are one lesion before and one after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import LabelMap

__all__ = [
    "BORDER_MM",
    "STATUSES",
    "Change",
    "Status",
    "changes_between",
    "interval",
    "interval_of",
]

Status = Literal["new", "enlarged", "unchanged", "shrunken", "gone"]
STATUSES: tuple[Status, ...] = get_args(Status)

BORDER_MM = 0.6
"""By how much the border of a lesion moves from scan to scan, as a standard deviation: 92 % of 152
groups of lesions in eight heads that were scanned again on the computer are then unchanged
(``benchmarks/lesion_rescans.py``)."""

_TOUCH = np.ones((3, 3, 3))
_SPHERE = (36 * math.pi) ** (1 / 3)  # surface of a ball over its volume to the power of 2/3
_Z90 = 1.6449
_REACH_MM = 1.0  # lesions meet within half a voxel and this: the scans lie on each other so well
_SEEN = 0.5  # share of a lesion in the field of view of the other scan


@dataclass(frozen=True)
class Change:
    """A group of lesions that belong together.

    Attributes:
        status: None where the other scan does not show this part of the brain.
        before, after: numbers of the lesions, from 1, the largest of its visit first.
        before_mm3, after_mm3: volumes, each on the grid of its own scan.
        low_mm3, high_mm3: 90 % interval of the change.
        centre: of mass, of the lesions after, or else of those before; RAS+ millimetres in the
            space of the later scan.
    """

    status: Status | None
    before: tuple[int, ...]
    after: tuple[int, ...]
    before_mm3: float
    after_mm3: float
    low_mm3: float
    high_mm3: float
    centre: tuple[float, float, float]

    @property
    def change_mm3(self) -> float:
        """After minus before."""
        return self.after_mm3 - self.before_mm3


@dataclass(frozen=True, eq=False)
class _Lesions:
    """Lesions of one visit, the largest first.

    Attributes:
        points: (N, 3) of each, RAS+ millimetres in the space of the later scan.
        volumes: mm3.
        seen: the share of each in the field of view of the other scan.
    """

    points: list[NDArray[np.float64]]
    volumes: NDArray[np.float64]
    seen: NDArray[np.float64]


def changes_between(
    before: LabelMap, after: LabelMap, matrix: NDArray[np.float64]
) -> tuple[Change, ...]:
    """Compare the lesions of two visits, the largest first.

    Args:
        matrix: (4, 4), points of the later scan's space to points of the earlier one's.
    """
    there = np.linalg.inv(matrix) @ before.grid.affine
    old = _lesions(before, Grid(before.grid.shape, there), after.grid)
    new = _lesions(after, after.grid, Grid(before.grid.shape, there))
    groups = _groups(old, new, after.grid)
    found = [_change(old, new, *group) for group in groups]
    found.sort(key=lambda one: (-max(one.before_mm3, one.after_mm3), one.centre))
    return tuple(found)


def interval(
    before: Sequence[float], after: Sequence[float], *, border_mm: float = BORDER_MM
) -> tuple[float, float]:
    """The 90 % interval of the change of volume, mm3.

    The border of each lesion moves as a whole, by a normal error of ``border_mm``; a lesion is
    taken for a ball, and errors of different lesions are independent.

    Args:
        before, after: volumes of the lesions, mm3.

    >>> [round(mm3) for mm3 in interval([100.0], [100.0])]
    [-145, 145]
    """
    change = sum(after) - sum(before)
    errors = (border_mm * _SPHERE * volume ** (2 / 3) for volume in (*before, *after))
    half = _Z90 * math.sqrt(sum(error**2 for error in errors))
    return change - half, change + half


def interval_of(changes: Sequence[Change]) -> tuple[float, float]:
    """The 90 % interval of the change of several groups together, mm3: errors are independent."""
    half = math.sqrt(sum(((one.high_mm3 - one.low_mm3) / 2) ** 2 for one in changes))
    change = sum(one.change_mm3 for one in changes)
    return change - half, change + half


def _lesions(labels: LabelMap, here: Grid, other: Grid) -> _Lesions:
    """The lesions of a map, in the order of its table.

    Args:
        here: where its voxels lie in the space of the later scan.
        other: the field of view of the other scan, in the same space.
    """
    pieces, _ = ndimage.label(labels.data > 0, structure=_TOUCH)
    found = []
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        inside = np.argwhere(pieces[box] == number) + [s.start for s in box]
        middle = labels.grid.to_world(inside).mean(axis=0)
        found.append((-len(inside), tuple(middle.tolist()), here.to_world(inside)))
    found.sort(key=lambda one: one[:2])
    points = [one[2] for one in found]
    volumes = np.array([-one[0] for one in found], dtype=float) * labels.grid.voxel_volume
    return _Lesions(points, volumes, np.array([_share_in(part, other) for part in points]))


def _share_in(points: NDArray[np.float64], grid: Grid) -> float:
    voxels = grid.to_voxel(points)
    inside = ((voxels > -0.5) & (voxels < np.array(grid.shape) - 0.5)).all(axis=1)
    return float(inside.mean())


def _groups(
    old: _Lesions, new: _Lesions, grid: Grid
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Which lesions before and after belong together, as numbers from 0."""
    from scipy.sparse import coo_matrix  # these take a while to import
    from scipy.sparse.csgraph import connected_components

    count = len(old.points) + len(new.points)
    if not count:
        return []
    pairs = _meeting(old, new, grid)
    rows, columns = pairs[:, 0], pairs[:, 1] + len(old.points)
    ones = np.ones(len(pairs))
    _, group = connected_components(coo_matrix((ones, (rows, columns)), (count, count)), False)
    members = [np.flatnonzero(group == number) for number in range(group.max() + 1)]
    first = len(old.points)
    return [(one[one < first], one[one >= first] - first) for one in members]


def _meeting(old: _Lesions, new: _Lesions, grid: Grid) -> NDArray[np.intp]:
    """(N, 2) pairs of a lesion before and one after that meet."""
    from scipy.spatial import cKDTree  # takes a while to import

    if not (old.points and new.points):
        return np.zeros((0, 2), dtype=np.intp)
    reach = np.array(grid.spacing) / 2 + _REACH_MM

    def scaled(points: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        every: NDArray[np.float64] = grid.to_voxel(np.concatenate(points)) * grid.spacing / reach
        return every

    owners = [
        np.repeat(np.arange(len(one.points)), [len(part) for part in one.points])
        for one in (old, new)
    ]
    near = cKDTree(scaled(old.points)).query_ball_tree(cKDTree(scaled(new.points)), 1.0)
    found = {
        (int(owners[0][i]), int(owners[1][j])) for i, others in enumerate(near) for j in others
    }
    return np.array(sorted(found), dtype=np.intp).reshape(-1, 2)


def _change(
    old: _Lesions, new: _Lesions, before: NDArray[np.intp], after: NDArray[np.intp]
) -> Change:
    volumes = old.volumes[before].tolist(), new.volumes[after].tolist()
    low, high = interval(*volumes)
    points = [new.points[k] for k in after] or [old.points[k] for k in before]
    x, y, z = np.concatenate(points).mean(axis=0).tolist()
    seen = np.concatenate([old.seen[before], new.seen[after]]).min() >= _SEEN
    return Change(
        _status(*volumes, low, high) if seen else None,
        tuple((before + 1).tolist()),
        tuple((after + 1).tolist()),
        sum(volumes[0]),
        sum(volumes[1]),
        low,
        high,
        (x, y, z),
    )


def _status(before: list[float], after: list[float], low: float, high: float) -> Status:
    """What became of a group; what may be an error of its borders is unchanged."""
    if low > 0:
        return "enlarged" if before else "new"
    if high < 0:
        return "shrunken" if after else "gone"
    return "unchanged"
