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
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array, Grid, axes_of, sample
from deepmrseg_bids.imaging.morphology import filled
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
    ) -> Surroundings:
        """Find the landmarks in label maps of the head, or in a FLAIR.

        Args:
            flair: (I, J, K) intensities; no signal is zero.
            brain, lesions: (I, J, K); what is dark in a lesion is no fluid.
            centre: the middle of the deep structures, RAS+ millimetres; without it ventricles
                cannot be told from sulci.
            anatomies: label maps of other tasks, in the space of the FLAIR.
        """
        seen = cls._in_flair(flair, brain, lesions, grid, centre)
        return seen._labelled(anatomies, centre)

    @classmethod
    def _in_flair(
        cls,
        flair: Array,
        brain: NDArray[np.bool_],
        lesions: NDArray[np.bool_],
        grid: Grid,
        centre: tuple[float, float, float] | None,
    ) -> Surroundings:
        """Ventricles and sulci as the fluid that is dark in a FLAIR."""
        dark = brain & ~lesions & (flair < _FLUID * float(np.median(flair[brain])))
        depth = _away(~brain, grid, beyond=True)
        ventricles = None if centre is None else _ventricles(dark, depth, grid, centre)
        cortex = {"cortex": "brain surface"}
        if ventricles is None:
            return cls(depth, None, grid, sources=cortex)
        rim = ~brain | (dark & ~ventricles)
        sources = {"ventricles": _FLUID_SOURCE, "cortex": "brain surface and fluid of the sulci"}
        away = _away(rim, grid, beyond=True), _away(ventricles, grid)
        return cls(*away, grid, sources=sources)

    def _labelled(
        self, anatomies: Sequence[Anatomy], centre: tuple[float, float, float] | None
    ) -> Surroundings:
        """The same with the landmarks that label maps know better, and the tentorium."""
        found = replace(
            self,
            tentorium=tentorium_of(anatomies, self.grid, centre=centre),
            lobes=Lobes.of(anatomies),
        )
        sources = dict(self.sources)
        if labelled := find_labels(anatomies, VENTRICLES):
            away = _away(mask_of(*labelled, self.grid), self.grid)
            found = replace(found, ventricle=away)
            sources["ventricles"] = f"label map of {labelled[0].task}"
        if labelled := find_labels(anatomies, CORTEX):
            away = _away(mask_of(*labelled, self.grid), self.grid)
            found = replace(found, cortex=away, cortex_mm=CORTEX_LABEL_MM)
            sources["cortex"] = f"label map of {labelled[0].task}"
        if found.tentorium is not None:
            sources["infratentorial"] = found.tentorium.source
        if found.lobes is not None:
            sources["region"] = found.lobes.source
        return replace(found, sources=sources)

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


def _ventricles(
    dark: NDArray[np.bool_],
    depth: NDArray[np.float32],
    grid: Grid,
    centre: tuple[float, float, float],
) -> NDArray[np.bool_] | None:
    """The lateral ventricles among dark voxels; None if too little of them is seen."""
    at = grid.to_world(np.indices(grid.shape).reshape(3, -1).T) - np.array(centre)
    at = at @ axes_of(grid)  # along the head, also where its header is tilted
    x, y, z = (at[:, axis].reshape(grid.shape) for axis in range(3))
    (left, right), (back, front), (low, high) = _BODIES_MM
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
    found: NDArray[np.bool_] = ndimage.binary_propagation(
        large[pieces], structure=_TOUCH, mask=(wide | large[pieces]) & room
    )
    return found


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
        part = grid.crop([s.start for s in box], [s.stop for s in box])
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


def _away(what: NDArray[np.bool_], grid: Grid, *, beyond: bool = False) -> NDArray[np.float32]:
    """The way from each voxel to the nearest of ``what``, in millimetres.

    Args:
        beyond: what lies outside the grid counts too.
    """
    free = np.pad(~what, 1, constant_values=not beyond)
    away: NDArray[np.float64] = ndimage.distance_transform_edt(free, sampling=grid.spacing)
    return away[1:-1, 1:-1, 1:-1].astype(np.float32)
