"""What tells the place of a lesion: ventricles, cortex, and what lies below the tentorium.

A landmark comes from the best source that a session has. A label map with the structures that it
is made of is better than anything else; which labels these are is said by the tables of
``wholebrain``, whatever task the map is of. Without one, the deep structures tell how the head
lies, and with it on which side of the tentorium a point is most likely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Array, Grid, axes_of, resample
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.tasks.regions import Region, read_regions

__all__ = [
    "CORTEX",
    "INFRATENTORIAL",
    "VENTRICLES",
    "Anatomy",
    "Lobes",
    "Tentorium",
    "find_labels",
    "is_anatomy",
    "mask_of",
    "tentorium_of",
]

VENTRICLES = ("Right-Lateral-Ventricles", "Left-Lateral-Ventricles")
CORTEX = ("Cortex",)
INFRATENTORIAL = ("Cerebellum", "Brainstem")
"""Regions of the whole brain that a landmark consists of."""

_FOLDER = Path(__file__).parent
_WHITE_MATTER = "-White-Matter"
_BELOW = ("Brainstem", "Right-Cerebellum", "Left-Cerebellum")
_SURE = 0.9  # of the side of the tentorium, by position
# Seen from the middle of the deep structures, everything higher is above the tentorium, however
# the head lies: at the sides more than in the middle, where the brain stem is.
_ABOVE_MM, _MIDDLE_MM, _LATERAL_MM = -4.0, 12.0, 16.0
_FEWEST = 10  # deep structures that tell how a head lies
_STEP = 2  # every other voxel is enough to tell which cortex is the nearest

# Centres on the right, millimetres to the right, front and top of the middle of all, and the
# odds (logarithm) of being below the tentorium by the position in this frame: the fit to 66
# automatic segmentations (50 heads of all ages, 16 of older patients).
_CENTRES: Mapping[str, tuple[float, float, float]] = {
    "Accumbens-Area": (9.3, 14.0, 6.3),
    "Amygdala": (20.6, 6.8, -12.0),
    "Caudate": (13.4, 3.7, 16.9),
    "Hippocampus": (24.3, -9.6, -17.1),
    "Pallidum": (19.2, -0.7, 1.8),
    "Putamen": (24.2, 2.1, 5.4),
    "Thalamus-Proper": (11.4, -16.3, -1.4),
}
_UNIT_MM = 50.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A label map of another task, in the space in which lesions are looked at.

    Attributes:
        task: that made it.
    """

    task: str
    labels: LabelMap
    table: LabelTable

    def moved(self, matrix: NDArray[np.float64]) -> Anatomy:
        """The same in another space.

        Args:
            matrix: (4, 4) from points of the other space to points of its own.
        """
        grid = Grid(self.labels.grid.shape, np.linalg.inv(matrix) @ self.labels.grid.affine)
        return Anatomy(self.task, LabelMap(self.labels.data, grid), self.table)


@dataclass(frozen=True, eq=False)
class Tentorium:
    """What lies below the tentorium: brain stem and cerebellum.

    Attributes:
        below: (I, J, K) the probability of being below it; one half where it is not known.
        sure: a lesion is below it if its mean is above this, and above it if it is under one
            minus this.
        source: where that comes from.
    """

    below: NDArray[np.float32]
    sure: float
    source: str


@cache
def _regions() -> dict[str, Region]:
    return {region.name: region for region in read_regions(_FOLDER / "wholebrain_regions.tsv")}


@cache
def _names() -> dict[int, str]:
    table = LabelTable.read(_FOLDER / "wholebrain_labels.tsv")
    return dict(zip(table.indices, table.names, strict=True))


def _codes(table: LabelTable, regions: Sequence[str]) -> tuple[int, ...]:
    """The labels that regions are made of; empty if the table lacks one of them."""
    codes = {code for region in regions for code in _regions()[region].labels}
    known = {label.index for label in table if _names().get(label.index) == label.name}
    return tuple(sorted(codes)) if codes <= known else ()


def is_anatomy(table: LabelTable) -> bool:
    """Whether labels tell anything about the place of a lesion."""
    landmarks = any(_codes(table, regions) for regions in (VENTRICLES, CORTEX, INFRATENTORIAL))
    return landmarks or len(_deep(table)) >= _FEWEST


def find_labels(
    anatomies: Sequence[Anatomy], regions: Sequence[str]
) -> tuple[Anatomy, tuple[int, ...]] | None:
    """The first label map that has all structures of some regions, and their labels."""
    for anatomy in anatomies:
        codes = _codes(anatomy.table, regions)
        if codes and np.isin(anatomy.labels.data, codes).any():
            return anatomy, codes
    return None


def mask_of(anatomy: Anatomy, codes: Sequence[int], grid: Grid) -> NDArray[np.bool_]:
    """Where the labels are, (*grid.shape)."""
    there = resample(anatomy.labels.data, anatomy.labels.grid, grid, order=0)
    found: NDArray[np.bool_] = np.isin(there, codes)
    return found


def tentorium_of(
    anatomies: Sequence[Anatomy], grid: Grid, *, centre: tuple[float, float, float] | None
) -> Tentorium | None:
    """What lies below the tentorium, from the best source; None if there is none.

    Args:
        centre: the middle of the deep structures, RAS+ millimetres. It alone tells that what
            lies higher is above the tentorium, and nothing of the rest.
    """
    if labelled := find_labels(anatomies, INFRATENTORIAL):
        anatomy, codes = labelled
        below = mask_of(anatomy, codes, grid).astype(np.float32)
        return Tentorium(below, 0.5, f"label map of {anatomy.task}")
    points = grid.to_world(np.indices(grid.shape).reshape(3, -1).T)
    for anatomy in anatomies:
        if (frame := _frame(anatomy)) is not None:
            odds = _odds(points @ frame[:3, :3].T + frame[:3, 3])
            below = (1 / (1 + np.exp(-odds))).reshape(grid.shape).astype(np.float32)
            return Tentorium(below, _SURE, f"position relative to the structures of {anatomy.task}")
    if centre is None:
        return None
    x, _, z = ((points - np.array(centre)) @ axes_of(grid)).T
    lowest = _ABOVE_MM - np.clip(np.abs(x) - _MIDDLE_MM, 0, _LATERAL_MM)
    below = np.where(z >= lowest, 0.0, 0.5).reshape(grid.shape).astype(np.float32)
    return Tentorium(below, _SURE, "position above the centre of the deep structures")


def _odds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of the odds of being below the tentorium, for (N, 3) points of the frame."""
    x, y, z = np.abs(points[:, 0]) / _UNIT_MM, points[:, 1] / _UNIT_MM, points[:, 2] / _UNIT_MM
    odds = -3.97 - 16.14 * z - 11.11 * z**2 - 2.72 * y + 8.98 * y * z - 11.94 * y**2
    odds += -17.07 * x - 19.43 * x * z + 1.43 * x * y - 4.09 * x**2
    return np.clip(odds, -30, 30)


def _deep(table: LabelTable) -> dict[int, tuple[float, float, float]]:
    """The deep structures of a table, with their place in the frame."""
    found = {}
    for label in table:
        side, _, name = label.name.partition("-")
        if name in _CENTRES and side in ("Right", "Left"):
            x, y, z = _CENTRES[name]
            found[label.index] = (x if side == "Right" else -x, y, z)
    return found


def _frame(anatomy: Anatomy) -> NDArray[np.float64] | None:
    """(4, 4) from points of the space to those of the frame: turned, shifted and scaled alike."""
    places = _deep(anatomy.table)
    found = [code for code in places if (anatomy.labels.data == code).any()]
    if len(found) < _FEWEST:
        return None
    data = anatomy.labels.data
    middles = ndimage.center_of_mass(data > 0, data, found)
    here = anatomy.labels.grid.to_world(np.array(middles))
    there = np.array([places[code] for code in found])
    a, b = here - here.mean(axis=0), there - there.mean(axis=0)
    u, size, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    linear = (u * signs) @ vt * float((size * signs).sum() / (a**2).sum())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = there.mean(axis=0) - linear @ here.mean(axis=0)
    return matrix


class Lobes:
    """In which lobe, and on which side, a lesion lies: that of the cortex that it is nearest to.

    Lesions below the tentorium lie in the brain stem or one half of the cerebellum.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.source = f"label map of {anatomy.task}"
        lobes = {
            name.removesuffix(_WHITE_MATTER): region.near
            for name, region in _regions().items()
            if name.endswith(_WHITE_MATTER) and region.near
        }
        self._above = _Nearest(anatomy, lobes)
        self._below = _Nearest(anatomy, {name: _regions()[name].labels for name in _BELOW})

    @classmethod
    def of(cls, anatomies: Sequence[Anatomy]) -> Lobes | None:
        """From the first label map of the whole brain; None if there is none."""
        found = find_labels(anatomies, (*CORTEX, *INFRATENTORIAL))
        return None if found is None else cls(found[0])

    def name(self, points: Array, *, below: bool) -> str:
        """``Left-Frontal``, for instance.

        Args:
            points: (3, N) voxels of a lesion, RAS+ millimetres.
        """
        return (self._below if below else self._above).name(points)


class _Nearest:
    """Which of several regions most of some points are nearest to."""

    def __init__(self, anatomy: Anatomy, regions: Mapping[str, Sequence[int]]) -> None:
        from scipy.spatial import cKDTree  # takes a while to import

        thin = anatomy.labels.data[::_STEP, ::_STEP, ::_STEP]
        owner = np.full(max(int(thin.max()), max(map(max, regions.values()))) + 1, -1)
        for number, codes in enumerate(regions.values()):
            owner[list(codes)] = number
        voxels = np.argwhere(owner[thin] >= 0)
        self._names = list(regions)
        self._owners = owner[thin[tuple(voxels.T)]]
        self._tree = cKDTree(anatomy.labels.grid.to_world(voxels * _STEP))

    def name(self, points: Array) -> str:
        nearest = self._owners[self._tree.query(points.T)[1]]
        return self._names[int(np.bincount(nearest).argmax())]
