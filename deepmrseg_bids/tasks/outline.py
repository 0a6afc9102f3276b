"""The outline of a brain at 1 mm, along its sulci, from the mask that was found at 2 mm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.morphology import dilated, filled, grown, largest
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks.crops import MaskOn, around_brain, look
from deepmrseg_bids.tasks.results import expected_dice

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor

__all__ = ["Outline", "find_outline", "is_fine"]

_COARSEST_MM = 1.5  # edge of a voxel: a coarser scan shows no sulcus that 2 mm do not show
_SHOWN_MM = 3.0  # around the mask; 28 manual outlines: 2 mm show too little, 4 mm too much
_LEAST, _MOST = 0.8, 1.1  # of the volume of the mask: else the network does not know the contrast


@dataclass(frozen=True, eq=False)
class Outline:
    """A brain at the resolution of the network that draws its outline.

    Attributes:
        probability: (I, J, K) of being brain, zero outside the largest connected part.
        confidence: see :class:`deepmrseg_bids.tasks.results.Measure`.
    """

    probability: NDArray[np.float32]
    grid: Grid
    confidence: float | None


def is_fine(grid: Grid) -> bool:
    """Whether the voxels of a scan are small enough for an outline of its own."""
    return max(grid.spacing) <= _COARSEST_MM


def find_outline(
    volume: Volume, probability: NDArray[np.float32], grid: Grid, mask_on: MaskOn,
    predictor: Predictor,
) -> Outline | None:  # fmt: skip
    """The outline of a brain whose mask is known roughly; None where the network fails.

    Args:
        probability: (*grid.shape) of being brain.
        mask_on: the brain where that is more than half.
    """
    spacing = predictor.bundle.preparation.spacing
    box = around_brain(probability, grid, spacing, room_mm=_SHOWN_MM + spacing)

    def shown_on(target: Grid) -> NDArray[np.bool_]:
        return grown(mask_on(target), round(_SHOWN_MM / spacing))

    likely = look(volume, box, shown_on, predictor).data[1]
    inside = largest(likely > 0.5)
    whole = filled(inside)
    share = float(whole.sum()) * box.voxel_volume
    share /= max(float((probability > 0.5).sum()) * grid.voxel_volume, 1.0)
    if not _LEAST <= share <= _MOST:
        return None
    sure = expected_dice(likely, whole)
    near = dilated(whole)
    likely = np.where(whole & ~inside, 1, np.where(near, likely, 0)).astype(np.float32)
    likely[near & ~whole] = np.minimum(likely[near & ~whole], 0.499)
    return Outline(likely, box, sure)
