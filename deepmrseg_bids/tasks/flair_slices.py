"""What a network of FLAIR slices sees: the slices of the scan itself, the T1w brought onto them.

Slices keep the positions and the thickness that the FLAIR was scanned with; within a slice
its pixels are brought to the network's spacing. Training and inference call the same lines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import SignalError
from deepmrseg_bids.imaging.grid import Grid, covered, resample
from deepmrseg_bids.imaging.intensity import OUTSIDE, normalise
from deepmrseg_bids.imaging.nifti import Volume

__all__ = ["MARGIN_MM", "MULTIPLE", "across", "prepare_pair", "slice_axis", "slice_grid"]

MARGIN_MM = 8.0  # kept around the brain
MULTIPLE = 16  # the edges of a slice, so that no network has to pad them
_SAME_SPACING = 1.05  # axes whose spacings differ by less are equally coarse


def slice_axis(grid: Grid) -> int:
    """The axis of a scan along which its slices are stacked: the coarsest one.

    Among axes of one spacing (within 5 %), as of a 3D FLAIR, the one nearest to the vertical.

    >>> slice_axis(Grid((256, 256, 40), np.diag([1.0, 1.0, 4.0, 1.0])))
    2
    """
    spacing = np.array(grid.spacing)
    upright = np.abs(grid.affine[2, :3]) / spacing
    coarse = spacing * _SAME_SPACING >= spacing.max()
    return int(np.argmax(np.where(coarse, upright, -1.0)))


def slice_grid(flair: Grid, mask: NDArray[np.bool_], *, spacing: float) -> Grid:
    """Where the network looks: (slices, first in-plane axis, second in-plane axis).

    All three axes are parallel to those of the scan and run towards right, front and top;
    the in-plane ones come in this order: axial slices have (right, front), coronal ones
    (right, top), sagittal ones (front, top). The grid holds the brain with a margin: no slice
    beyond the scan's own, in-plane edges that are multiples of ``MULTIPLE``.

    Args:
        flair: the scan's own grid.
        mask: (*flair.shape) the brain.
        spacing: of the pixels, in millimetres.

    Raises:
        SignalError: the mask is empty.
    """
    if not mask.any():
        raise SignalError("the slices of the FLAIR contain no brain")
    order = _order(flair)
    steps = np.array(flair.spacing)[order]
    signs = np.array([_ascends(flair, axis) for axis in order])
    edges = np.array(flair.shape)[order]
    new = np.array([steps[0], spacing, spacing])
    whole = np.maximum(np.round(edges * steps / new - 1e-6), 1)  # as many as fill the view
    unit = flair.affine[:3, order] / steps * signs
    middle = flair.corners().mean(axis=0)
    affine = np.eye(4)
    affine[:3, :3] = unit * new
    affine[:3, 3] = middle - affine[:3, :3] @ ((whole - 1) / 2)
    full = Grid((int(whole[0]), int(whole[1]), int(whole[2])), affine)

    places = full.to_voxel(flair.to_world(_ends(mask)))
    margin = MARGIN_MM / new
    start = np.floor(places.min(axis=0) - margin + 0.5 + 1e-6).astype(int)
    stop = np.floor(places.max(axis=0) + margin + 0.5 + 1e-6).astype(int) + 1
    start[0], stop[0] = max(start[0], 0), min(stop[0], full.shape[0])
    for axis in (1, 2):
        more = -(stop[axis] - start[axis]) % MULTIPLE
        start[axis] -= more // 2
        stop[axis] += more - more // 2
    return full.crop(start.tolist(), stop.tolist())


def across(grid: Grid) -> bool:
    """Whether left and right lie within the slices of a prepared grid, as its first axis.

    So it is for axial and coronal slices: they may be mirrored, sagittal ones may not.
    """
    return int(np.argmax(np.abs(grid.affine[:3, 1]))) == 0


def prepare_pair(
    flair: Volume,
    t1w: Volume | None,
    mask: NDArray[np.bool_],
    grid: Grid,
    *,
    rigid: NDArray[np.float64] | None = None,
) -> NDArray[np.float32]:
    """FLAIR and T1w as the network sees them.

    Args:
        flair, t1w: the scans, each on its own grid; without a T1w its channel holds what the
            outside of the brain has.
        mask: (*grid.shape) the brain.
        grid: of :func:`slice_grid`.
        rigid: (4, 4), points of the FLAIR's space to points of the T1w's (RAS+ millimetres);
            None where both lie in one space.

    Returns:
        (2, slices, H, W): FLAIR, then T1w, each scaled by its voxels of the brain, the rest
        dark (:func:`deepmrseg_bids.imaging.intensity.normalise`, mode ``brain``).

    Raises:
        SignalError: one of the scans shows nothing of the brain.
    """
    out = np.full((2, *grid.shape), OUTSIDE, dtype=np.float32)
    for channel, volume in enumerate((flair, t1w)):
        if volume is None:
            continue
        place = volume.grid
        if channel == 1 and rigid is not None:
            place = Grid(place.shape, np.linalg.inv(rigid) @ place.affine)
        image = resample(volume.data, place, grid)
        out[channel] = normalise(image, mode="brain", mask=mask & covered(place, grid))
    return out


def _order(flair: Grid) -> list[int]:
    """The scan's axes: slices, then the in-plane ones by the world axis they run along."""
    first = slice_axis(flair)
    world = np.abs(flair.affine[:3, :3] / np.array(flair.spacing)).argmax(axis=0)
    rest = sorted((axis for axis in range(3) if axis != first), key=lambda axis: world[axis])
    return [first, *rest]


def _ascends(grid: Grid, axis: int) -> float:
    """1 if an axis runs towards right, front or top, else -1."""
    column = grid.affine[:3, axis]
    return float(np.sign(column[np.argmax(np.abs(column))]))


def _ends(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(2, 3): the first and the last voxel of a mask along each axis."""
    lines = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([[line[0] for line in lines], [line[-1] for line in lines]], dtype=float)
