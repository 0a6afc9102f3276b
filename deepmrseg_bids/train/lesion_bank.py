"""Lesions at real places and sizes, brought into the heads of label maps.

A file of lesions (``.npz``) holds ``ijk`` (N, 3) voxels, ``start`` (lesions + 1,) where each
begins, and the ``affine`` and ``shape`` of their grid in MNI152 space. A label map is laid on
MNI152 by its own structures: the middles of the deep ones, and how far the cortex reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.errors import TrainingError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.morphology import box_of, widened
from deepmrseg_bids.wording import counted

__all__ = ["VENTRICLES", "LesionBank", "from_mni", "load_lesions", "ventricle_distance"]

VENTRICLES = (4, 43, 5, 44)
"""FreeSurfer codes of the lateral ventricles."""

_MIDDLES = {
    10: (-11, -18, 8), 11: (-13, 10, 10), 12: (-25, 2, 0), 13: (-20, -5, -1),
    17: (-26, -22, -14), 18: (-23, -5, -18), 8: (-25, -63, -36),
    49: (11, -18, 8), 50: (13, 10, 10), 51: (25, 2, 0), 52: (20, -5, -1),
    53: (26, -22, -14), 54: (23, -5, -18), 47: (25, -63, -36), 16: (0, -30, -32),
}  # fmt: skip  # of deep structures in MNI152, millimetres
_CORTEX = (3, 42)
_REACH = ((0, 0, -70.0), (0, 1, 70.0), (1, 0, -105.0), (1, 1, 72.0), (2, 1, 80.0))
_LARGEST_SINGLE = 6000  # voxels: larger "single" lesions of the files are whole patients
_FAR_MM = 60.0


@dataclass(frozen=True, eq=False)
class LesionBank:
    """Lesions of one MNI152 grid.

    Attributes:
        grid: of the voxels.
        singles: single lesions, flat voxel numbers each.
        patients: all lesions of one person together, flat voxel numbers each.
    """

    grid: Grid
    singles: tuple[NDArray[np.int64], ...]
    patients: tuple[NDArray[np.int64], ...]

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The lesions of a made-up person: those of a real one, or single ones together."""
        if self.patients and (not self.singles or rng.random() < 0.6):
            return self.patients[int(rng.integers(len(self.patients)))]
        count = int(np.exp(rng.uniform(0, np.log(80))))
        chosen = rng.integers(len(self.singles), size=count)
        return np.concatenate([self.singles[k] for k in chosen])


@lru_cache(maxsize=4)
def load_lesions(place: Path) -> LesionBank:
    """Read a file of lesions, or all those of a folder; one whose ``patient`` is known is a
    file of whole people.

    Raises:
        TrainingError: no file, not such a file, or files of several grids.
    """
    files = sorted(place.glob("*.npz")) if place.is_dir() else [place]
    singles: list[NDArray[np.int64]] = []
    patients: list[NDArray[np.int64]] = []
    grids = set()
    for file in files:
        try:
            with np.load(file) as arrays:
                shape = tuple(int(n) for n in arrays["shape"])
                grid = Grid((shape[0], shape[1], shape[2]), arrays["affine"])
                flat = np.ravel_multi_index(tuple(arrays["ijk"].T.astype(np.int64)), shape)
                parts = np.split(flat, arrays["start"][1:-1])
                whole = "patient" in arrays
        except (OSError, KeyError, ValueError) as error:
            raise TrainingError(f"{file}: not a file of lesions ({error})") from error
        grids.add(grid)
        for part in parts:
            (patients if whole or len(part) > _LARGEST_SINGLE else singles).append(part)
    if len(grids) != 1:
        raise TrainingError(
            f"{place}: all lesions must be on the same grid, found {counted(len(grids), 'grid')}"
        )
    return LesionBank(grids.pop(), tuple(singles), tuple(patients))


def from_mni(codes: NDArray[np.int16], grid: Grid) -> NDArray[np.float64]:
    """(4, 4): voxels of a label map to millimetres in MNI152, an affine map.

    Raises:
        TrainingError: the map lacks the structures that it is laid on MNI152 by.
    """
    found = ndimage.find_objects(np.maximum(codes, 0))
    points: list[NDArray[np.float64]] = []
    targets: list[tuple[int, int, int]] = []
    for code, place in _MIDDLES.items():
        box = found[code - 1] if code <= len(found) else None
        if box is not None:
            points.append(np.argwhere(codes[box] == code).mean(0) + [s.start for s in box])
            targets.append(place)
    cortex = np.argwhere(np.isin(codes, _CORTEX))
    if len(points) < 6 or not len(cortex):
        raise TrainingError(
            f"a label map with lesions needs FreeSurfer codes of the deep structures and the "
            f"cortex (at least 6 of {sorted(_MIDDLES)}), found {len(points)} of them"
        )
    affine = np.eye(4)
    for axis in range(3):
        rows = [*points]
        wanted = [float(target[axis]) for target in targets]
        towards = grid.affine[axis, :3] @ cortex.T  # along the world's axis
        for which, end, value in _REACH:
            if which == axis:
                level = np.percentile(towards, 99.9 if end else 0.1)
                rows.append(cortex[np.abs(towards - level) < 1.5].mean(0))
                wanted.append(value)
        weights = np.array([1.0] * len(points) + [3.0] * (len(rows) - len(points)))
        matrix = np.column_stack([np.array(rows), np.ones(len(rows))])
        affine[axis] = np.linalg.lstsq(
            matrix * weights[:, None], np.array(wanted) * weights, rcond=None
        )[0]
    return affine


def ventricle_distance(codes: NDArray[np.int16]) -> NDArray[np.uint8]:
    """How far each voxel (of 1 mm) lies from the lateral ventricles, half millimetres."""
    inside = np.isin(codes, VENTRICLES)
    out = np.full(codes.shape, int(2 * _FAR_MM), dtype=np.uint8)
    box = box_of(inside)
    if box is None:
        return out
    room = widened(box, 30, inside.shape)
    away = ndimage.distance_transform_edt(~inside[room])
    out[room] = np.clip(2 * away, 0, 2 * _FAR_MM).astype(np.uint8)
    return out
