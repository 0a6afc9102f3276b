"""What a network in 3D is shown of a scan: its crop, its channels, and a second look."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import SegmentationError, SignalError
from deepmrseg_bids.imaging.grid import Array, Grid, axes_of, centred_grid, covered, resample
from deepmrseg_bids.imaging.intensity import brain_coordinates, normalise
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks.results import Posteriors

if TYPE_CHECKING:
    from deepmrseg_bids.inference.bundle import Preparation
    from deepmrseg_bids.inference.predictor import Predictor

__all__ = ["MaskOn", "around_brain", "extracted_brain", "look", "settle", "shown"]

MaskOn = Callable[[Grid], NDArray[np.bool_]]
"""The brain mask on any grid, (*grid.shape)."""
_RECENTRE_MM = 4.0  # a crop further off its structures than this is cut again
_LOOKS = 3
_DECIMALS = 3  # of a millimetre: where a crop lies does not depend on how sums are rounded


def look(
    volume: Volume, grid: Grid, mask_on: MaskOn, predictor: Predictor, *, packed: bool = False
) -> Posteriors:
    """What a network says of one part of a scan.

    Args:
        grid: where it looks, at the spacing of its preparation.
        mask_on: the brain; the intensity mode ``brain`` scales by it.
        packed: probabilities as whole numbers, in half of the memory.
    """
    bundle = predictor.bundle
    image = resample(volume.data, volume.grid, grid)
    mode = bundle.preparation.intensity
    mask = mask_on(grid) if mode == "brain" else covered(volume.grid, grid)
    seen = shown(image, mask, bundle.preparation)
    answer = predictor.packed(seen) if packed else predictor(seen)
    return Posteriors(answer, grid, (0, *bundle.labels.indices))


def shown(image: Array, mask: NDArray[np.bool_], preparation: Preparation) -> NDArray[np.float32]:
    """The channels of an image as a network is shown them; it adds the position itself.

    Args:
        image: (I, J, K) RAS, at the spacing of the preparation.
        mask: (I, J, K) the voxels that count.

    Returns:
        (I, J, K), or (channels, I, J, K) where there are more than one.

    Raises:
        SignalError: no voxel counts, or all that count are equal.
    """
    scaled = normalise(image, mode=preparation.intensity, mask=mask)
    if not preparation.coordinates:
        return scaled
    centre = [float(line @ np.arange(len(line)) / line.sum()) for line in _profiles(mask)]
    places = brain_coordinates(mask.shape, centre, preparation.spacing)
    return np.concatenate([scaled[None], places])


def _profiles(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """How many voxels of a mask lie in each plane, axis by axis."""
    return [mask.sum(axis=tuple(k for k in range(3) if k != axis)) for axis in range(3)]


def around_brain(probability: Array, grid: Grid, spacing: float, *, room_mm: float = 8.0) -> Grid:
    """The box around a brain, with some room.

    Args:
        probability: (*grid.shape) of being brain.
    """
    inside = np.argwhere(probability > 0.5)
    axes = axes_of(grid)
    corners = grid.to_world([inside.min(axis=0), inside.max(axis=0)]) @ axes
    low, high = corners.min(axis=0) - room_mm, corners.max(axis=0) + room_mm
    edges = np.ceil((high - low) / spacing).astype(int)
    shape = (int(edges[0]), int(edges[1]), int(edges[2]))
    return centred_grid(axes @ (low + high) / 2, shape, spacing, axes=axes)


def settle(
    volume: Volume,
    centre: Array,
    mask_on: MaskOn,
    predictor: Predictor,
    *,
    what: str = "structure",
    axes: NDArray[np.float64] | None = None,
) -> Posteriors:
    """What a network says of a crop around its structures, cut again where it was off.

    Args:
        centre: (3,) where to look first, RAS+ millimetres.
        what: is looked for, for the message.
        axes: (3, 3) along which the crop is cut; those of the world if not given.

    Raises:
        SegmentationError: none of the structures is in the crop.
    """
    preparation = predictor.bundle.preparation
    for _ in range(_LOOKS):
        grid = centred_grid(centre, preparation.shape, preparation.spacing, axes=axes)
        posteriors = look(volume, grid, mask_on, predictor)
        voxels = np.argwhere(posteriors.labels())
        if not len(voxels):
            raise SegmentationError(f"{volume.source or 'the image'}: no {what} was segmented")
        low, high = np.percentile(voxels, (0.5, 99.5), axis=0)
        found = np.round(grid.to_world([(low + high) / 2])[0], _DECIMALS)
        if np.abs(found - centre).max() <= _RECENTRE_MM:
            break
        centre = found
    return posteriors


def extracted_brain(volume: Volume) -> tuple[Array, MaskOn]:
    """The middle (3,) of a brain-extracted scan (zero outside), RAS+ mm, and its mask.

    Raises:
        SignalError: no voxel is above zero.
    """
    extracted = (volume.data > 0).astype(np.float32)
    voxels = np.argwhere(extracted[::2, ::2, ::2] > 0) * 2
    if not len(voxels):
        raise SignalError(
            f"{volume.source or 'the image'}: no voxel above 0: the image contains no brain"
        )
    middle = volume.grid.to_world([voxels.mean(axis=0)])[0]

    def mask_on(grid: Grid) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = resample(extracted, volume.grid, grid) > 0.5
        return inside

    return middle, mask_on
