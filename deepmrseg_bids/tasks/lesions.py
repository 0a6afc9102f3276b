"""Single lesions of a lesion map: how large, where, and beside what.

The places follow the criteria for multiple sclerosis (MAGNIMS, Filippi et al. 2016):
**infratentorial** lesions lie in brain stem or cerebellum; of the others **periventricular** ones
touch a lateral ventricle, **juxtacortical** ones the cortex, **deep** ones neither. Ventricles and
cortex come from a label map of the whole brain, if there is one. Otherwise ventricles are found
as fluid, dark in a FLAIR, far inside the brain; the cortex follows the rim of the brain and the
fluid of the sulci.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array, Grid, axes_of, sample
from deepmrseg_bids.imaging.morphology import box_of, filled, widened
from deepmrseg_bids.tasks.lesion_landmarks import (
    CORTEX,
    VENTRICLES,
    Anatomy,
    Lobes,
    Tentorium,
    find_labels,
    mask_of,
    tentorium_of,
)
from deepmrseg_bids.tasks.results import Box

__all__ = [
    "CORTEX_LABEL_MM",
    "CORTEX_MM",
    "PLACES",
    "SMALLEST_MM3",
    "VENTRICLE_MM",
    "Lesion",
    "Place",
    "Surroundings",
    "check_lesions",
    "drop_specks",
    "find_lesions",
]

Place = Literal["periventricular", "juxtacortical", "deep", "infratentorial"]
PLACES: tuple[Place, ...] = get_args(Place)

SMALLEST_MM3 = 5.0
"""Smaller pieces are noise more often than lesions."""
VENTRICLE_MM, CORTEX_MM = 3.0, 5.0
"""How near counts as touching: 1 mm pixels and thick slices; a cortex 2 to 4 mm thick, with its
outer rim."""
CORTEX_LABEL_MM = 2.0
"""The same of the cortex in a label map, whose inner rim is known."""

_TOUCH = np.ones((3, 3, 3), dtype=bool)  # voxels that share a corner belong to one lesion
_FLUID_SOURCE = "fluid of the FLAIR"
_FLUID = 0.6  # of the brain's median intensity: darker is fluid
_OPEN_MM = 1.5  # thinner fluid is a sulcus
_INSIDE_MM = 16.0  # ventricles lie deeper in the brain than the sulci
# where the bodies of the lateral ventricles lie, from the middle of the deep structures
_BODIES_MM = ((-30.0, 30.0), (-60.0, 45.0), (6.0, 40.0))  # to the right, front and top
_BELOW_MM = 10.0  # as far as the horns reach below
_MIDLINE_MM = 2.0  # fluid of the fissure between the hemispheres
_LARGE_MM3, _THICK_MM = 5000.0, 8.0  # radius of the largest ball inside; up to 7.2 is usual
_PIECE_MM3 = 100.0
_NEAR_MM = 8.0  # further than all that counts as near
_FAR_MM = 1000.0  # what was not measured
_VENTRICLES_MM3 = 1000.0  # together, at least; the smallest of adults have about 4 ml


@dataclass(frozen=True)
class Lesion:
    """One lesion: a connected piece (26 neighbours) of a lesion map.

    Attributes:
        index: from 1, the largest first.
        centre: of mass, RAS+ millimetres of the scan.
        place: None where it cannot be told.
        confidence: mean posterior of its voxels.
        region: side and lobe, or part below the tentorium; empty where that is not known.
    """

    index: int
    volume_mm3: float
    centre: tuple[float, float, float]
    place: Place | None
    confidence: float
    region: str = ""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """How far each voxel of a brain lies from what tells lesions apart.

    Attributes:
        cortex: (I, J, K) millimetres to the cortex: that of a label map, or the rim of the brain
            and fluid of the sulci.
        ventricle: (I, J, K) millimetres to a lateral ventricle; None where none was found.
        grid: where both lie.
        cortex_mm: how near to ``cortex`` counts as touching it.
        tentorium: what lies below it; None where nothing is known of that.
        lobes: None without a label map of the whole brain.
        sources: where each landmark comes from, in words.
    """

    cortex: NDArray[np.float32]
    ventricle: NDArray[np.float32] | None
    grid: Grid
    cortex_mm: float = CORTEX_MM
    tentorium: Tentorium | None = None
    lobes: Lobes | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        flair: Array,
        brain: NDArray[np.bool_],
        lesions: NDArray[np.bool_],
        grid: Grid,
        *,
        centre: tuple[float, float, float] | None,
        anatomies: Sequence[Anatomy] = (),
        everywhere: bool = True,
    ) -> Surroundings:
        """Find the landmarks in label maps of the head, or in a FLAIR.

        Args:
            flair: (I, J, K) intensities; no signal is zero.
            brain, lesions: (I, J, K); what is dark in a lesion is no fluid.
            centre: the middle of the deep structures, RAS+ millimetres; without it ventricles
                cannot be told from sulci.
            anatomies: label maps of other tasks, in the space of the FLAIR.
            everywhere: measure the way from each voxel; otherwise only near the lesions, which is
                faster and tells the same of them.
        """
        whole = tuple(slice(0, edge) for edge in grid.shape)
        part = whole if everywhere else _room_around(lesions, grid)
        tentorium = _tentorium(anatomies, grid, part, centre)
        found = cls._in_flair(flair, brain, lesions, grid, part, centre, anatomies)
        sources = dict(found.sources)
        if tentorium is not None:
            sources["infratentorial"] = tentorium.source
        if (lobes := Lobes.of(anatomies)) is not None:
            sources["region"] = lobes.source
        return replace(found, tentorium=tentorium, lobes=lobes, sources=sources)

    @classmethod
    def _in_flair(
        cls,
        flair: Array,
        brain: NDArray[np.bool_],
        lesions: NDArray[np.bool_],
        grid: Grid,
        part: Box,
        centre: tuple[float, float, float] | None,
        anatomies: Sequence[Anatomy],
    ) -> Surroundings:
        """Ventricles and cortex of label maps; without, the fluid that is dark in a FLAIR."""
        sources, cortex_mm = {}, CORTEX_MM
        cortex = ventricle = None
        if labelled := find_labels(anatomies, VENTRICLES):
            ventricle = _away(_labels_in(part, *labelled, grid), grid, part)
            sources["ventricles"] = f"label map of {labelled[0].task}"
        if labelled := find_labels(anatomies, CORTEX):
            cortex = _away(_labels_in(part, *labelled, grid), grid, part)
            cortex_mm = CORTEX_LABEL_MM
            sources["cortex"] = f"label map of {labelled[0].task}"
        if cortex is not None and ventricle is not None:
            return cls(cortex, ventricle, grid, cortex_mm=cortex_mm, sources=sources)
        dark = brain & ~lesions & (flair < _FLUID * float(np.median(flair[brain])))
        fluid = None if centre is None else _ventricles(dark, brain, grid, centre)
        if ventricle is None and fluid is not None:
            ventricle = _away(fluid, grid, part)
            sources["ventricles"] = _FLUID_SOURCE
        if cortex is None:
            rim = ~brain if fluid is None else ~brain | (dark & ~fluid)
            cortex = _away(rim, grid, part, beyond=True)
            and_fluid = "" if fluid is None else " and fluid of the sulci"
            sources["cortex"] = f"brain surface{and_fluid}"
        return cls(cortex, ventricle, grid, cortex_mm=cortex_mm, sources=sources)

    def below(self, points: Array) -> bool | None:
        """Whether a lesion lies below the tentorium; None where that cannot be told.

        Args:
            points: (3, N) its voxels, RAS+ millimetres.
        """
        if self.tentorium is None:
            return None
        share = float(sample(self.tentorium.below, self.grid, points, fill=0.5).mean())
        if share > self.tentorium.sure:
            return True
        return False if share <= 1 - self.tentorium.sure else None

    def place(self, points: Array) -> Place | None:
        """Below the tentorium, or beside what: ventricles before cortex before neither.

        Args:
            points: (3, N) its voxels, RAS+ millimetres.
        """
        below = self.below(points)
        if below is None:
            return None
        if below:
            return "infratentorial"
        near = sample(self.cortex, self.grid, points, fill=0.0).min() <= self.cortex_mm
        if self.ventricle is None:
            return "juxtacortical" if near else None
        if sample(self.ventricle, self.grid, points, fill=np.inf).min() <= VENTRICLE_MM:
            return "periventricular"
        return "juxtacortical" if near else "deep"

    def region(self, points: Array) -> str:
        """Side and lobe; empty where that is not known."""
        below = self.below(points)
        return "" if self.lobes is None or below is None else self.lobes.name(points, below=below)


def _room_around(lesions: NDArray[np.bool_], grid: Grid) -> Box:
    """The box in which all lies that can be near to a lesion; a corner if there is none."""
    box = box_of(lesions) or (slice(0, 1),) * 3
    room = [int(np.ceil(_NEAR_MM / edge)) + 2 for edge in grid.spacing]
    return widened(box, room, grid.shape)


def _labels_in(part: Box, anatomy: Anatomy, codes: Sequence[int], grid: Grid) -> NDArray[np.bool_]:
    """(*grid.shape) where labels are, looked at in a box."""
    there = np.zeros(grid.shape, dtype=bool)
    there[part] = mask_of(anatomy, codes, grid.part(part))
    return there


def _tentorium(
    anatomies: Sequence[Anatomy],
    grid: Grid,
    part: Box,
    centre: tuple[float, float, float] | None,
) -> Tentorium | None:
    """What lies below the tentorium, looked at in a box; nothing is known of the rest."""
    found = tentorium_of(anatomies, grid.part(part), centre=centre)
    if found is None:
        return None
    below = np.full(grid.shape, 0.5, dtype=np.float32)
    below[part] = found.below
    return replace(found, below=below)


def _ventricles(
    dark: NDArray[np.bool_],
    brain: NDArray[np.bool_],
    grid: Grid,
    centre: tuple[float, float, float],
) -> NDArray[np.bool_] | None:
    """The lateral ventricles among dark voxels; None if too little of them is seen."""
    (left, right), (back, front), (low, high) = _BODIES_MM
    room_mm = ((1.4 * left, 1.4 * right), (back, front), (low - _BELOW_MM, high))
    part = _box_at(room_mm, grid, centre)
    if part is None:
        return None
    depth, dark = _away(~brain, grid, part, beyond=True)[part], dark[part]
    x, y, z = _places(grid.part(part), centre)
    # a pixel is 1 mm, a slice may be thick: thin fluid is thin within the slices
    reach = [max(0, int(_OPEN_MM / edge)) for edge in grid.spacing]
    wide = ndimage.binary_opening(dark, np.ones([2 * steps + 1 for steps in reach], dtype=bool))
    room = (depth > _INSIDE_MM / 2) & (y > back) & (y < front) & (z < high) & (z > low - _BELOW_MM)
    room &= (np.abs(x) > _MIDLINE_MM) & (x > 1.4 * left) & (x < 1.4 * right)
    bodies = wide & room & (depth > _INSIDE_MM) & (x > left) & (x < right) & (z > low)
    pieces, _ = ndimage.label(bodies, structure=_TOUCH)
    volumes = np.bincount(pieces.ravel()) * grid.voxel_volume
    large = volumes >= _PIECE_MM3
    large[0] = False
    if volumes[large].sum() < _VENTRICLES_MM3:
        return None
    found = np.zeros(grid.shape, dtype=bool)
    found[part] = ndimage.binary_propagation(
        large[pieces], structure=_TOUCH, mask=(wide | large[pieces]) & room
    )
    return found


def _box_at(
    reach_mm: Sequence[tuple[float, float]], grid: Grid, centre: tuple[float, float, float]
) -> Box | None:
    """The voxels that hold a box of the head, with room to tell how deep they lie."""
    ends = [(low - _INSIDE_MM, high + _INSIDE_MM) for low, high in reach_mm]
    corners = np.array(list(product(*ends))) @ axes_of(grid).T + np.array(centre)
    voxels = grid.to_voxel(corners)
    start = np.maximum(np.floor(voxels.min(axis=0)).astype(int) - 2, 0)
    stop = np.minimum(np.ceil(voxels.max(axis=0)).astype(int) + 3, grid.shape)
    if np.any(stop <= start):
        return None
    return tuple(slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))


def _places(grid: Grid, centre: tuple[float, float, float]) -> Array:
    """(3, *grid.shape) millimetres to the right, front and top of a point, along the head."""
    axes = axes_of(grid).T  # also where its header is tilted
    steps, start = axes @ grid.affine[:3, :3], axes @ (grid.affine[:3, 3] - np.array(centre))
    i, j, k = np.ogrid[tuple(slice(0, edge) for edge in grid.shape)]
    return np.stack(
        [at + a * i + b * j + c * k for (a, b, c), at in zip(steps, start, strict=True)]
    )


def drop_specks(
    chosen: NDArray[np.bool_], grid: Grid, *, smallest_mm3: float = SMALLEST_MM3
) -> NDArray[np.bool_]:
    """A lesion map (I, J, K) without the pieces that are smaller than a volume.

    >>> chosen = np.zeros((9, 9, 9), bool)
    >>> chosen[1, 1, 1] = chosen[4:7, 4:7, 4:7] = True
    >>> int(drop_specks(chosen, Grid((9, 9, 9), np.eye(4))).sum())
    27
    """
    pieces, _ = ndimage.label(chosen, structure=_TOUCH)
    large = np.bincount(pieces.ravel()) * grid.voxel_volume >= smallest_mm3 - 1e-6
    large[0] = False
    kept: NDArray[np.bool_] = large[pieces]
    return kept


def find_lesions(
    chosen: NDArray[np.bool_],
    grid: Grid,
    posterior: NDArray[np.float32],
    around: Surroundings,
) -> tuple[Lesion, ...]:
    """The single lesions of a lesion map, the largest first.

    Args:
        chosen: (*grid.shape) the lesions.
        grid: of the scan.
        posterior: (*around.grid.shape) of being lesion.
        around: what lies beside them.
    """
    pieces, _ = ndimage.label(chosen, structure=_TOUCH)
    voxels = np.argwhere(chosen)
    number = pieces[chosen]
    order = np.argsort(number, kind="stable")
    ends = np.flatnonzero(np.diff(number[order])) + 1
    found = []
    for own in np.split(voxels[order], ends) if len(voxels) else ():
        points = grid.to_world(own).T
        x, y, z = (float(mm) for mm in points.mean(axis=1))
        found.append(
            Lesion(
                index=0,
                volume_mm3=len(own) * grid.voxel_volume,
                centre=(x, y, z),
                place=around.place(points),
                confidence=float(sample(posterior, around.grid, points).mean()),
                region=around.region(points),
            )
        )
    found.sort(key=lambda lesion: (-lesion.volume_mm3, lesion.centre))
    return tuple(replace(one, index=index) for index, one in enumerate(found, start=1))


def check_lesions(chosen: NDArray[np.bool_], grid: Grid) -> tuple[Finding, ...]:
    """Whether a lesion is too thick to be one of the white matter, which are flat and ragged.

    Args:
        chosen: (*grid.shape) the lesions.
    """
    pieces, _ = ndimage.label(chosen, structure=_TOUCH)
    volumes = np.bincount(pieces.ravel()) * grid.voxel_volume
    volumes[0] = 0
    odd = []
    boxes = ndimage.find_objects(pieces)
    for number in np.flatnonzero(volumes >= _LARGE_MM3).tolist():
        box = boxes[number - 1]
        part = grid.part(box)
        whole = filled(pieces[box] == number)  # a rim around a cavity
        radius = float(_away(~whole, part, beyond=True).max())
        if radius >= _THICK_MM:
            odd.append(f"{volumes[number] / 1000:.0f} ml, {2 * radius:.0f} mm thick")
    if not odd:
        return ()
    text = (
        f"not typical of white-matter lesions: {'; '.join(odd)}: a tumour, an infarct, oedema or "
        "a cavity? Do not use the volume before you have inspected it"
    )
    return (Finding("lesion-untypical", "error", text),)


def _away(
    what: NDArray[np.bool_], grid: Grid, part: Box | None = None, *, beyond: bool = False
) -> NDArray[np.float32]:
    """The way from each voxel to the nearest of ``what``, in millimetres.

    Args:
        part: in which it is measured, from what lies in it; elsewhere it is far.
        beyond: what lies outside the grid counts too.
    """
    part = part or tuple(slice(0, edge) for edge in grid.shape)
    rim = np.pad(~what, 1, constant_values=not beyond)
    free = rim[tuple(slice(side.start, side.stop + 2) for side in part)]
    away = np.full(what.shape, _FAR_MM, dtype=np.float32)
    if not free.all():
        measured = ndimage.distance_transform_edt(free, sampling=grid.spacing)
        away[part] = measured[1:-1, 1:-1, 1:-1]
    return away
