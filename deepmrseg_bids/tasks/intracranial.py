"""All that lies inside the skull: brain, fluid and membranes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Grid, covered, resample
from deepmrseg_bids.imaging.intensity import normalise
from deepmrseg_bids.imaging.morphology import dilated, filled
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks.results import Beside, Measure, expected_dice
from deepmrseg_bids.tasks.spec import Output

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor

__all__ = ["INDEX", "MASK", "Intracranial", "find_inside", "mask_beside", "row_of"]

INDEX = 2
"""Of its row in the table of the brain, whose own index is 1."""
MASK = Output({"desc": "icv"}, suffix="mask", kind="ROI")


@dataclass(frozen=True, eq=False)
class Intracranial:
    """The inside of a skull, at the resolution of its network.

    Attributes:
        probability: (I, J, K) of being inside.
        confidence: see :class:`deepmrseg_bids.tasks.results.Measure`.
    """

    probability: NDArray[np.float32]
    grid: Grid
    confidence: float | None

    @property
    def volume_mm3(self) -> float:
        """Its volume, by whole voxels of its network."""
        return float((self.probability > 0.5).sum()) * self.grid.voxel_volume


def find_inside(
    volume: Volume, grid: Grid, brain: NDArray[np.float32], predictor: Predictor
) -> Intracranial:
    """The inside of the skull of a raw head whose brain was found.

    Args:
        grid: around the brain, at the spacing of the network.
        brain: (*grid.shape) the probability of being brain, which lies inside.
    """
    scanned = covered(volume.grid, grid)
    image = normalise(resample(volume.data, volume.grid, grid), mode="head", scanned=scanned)
    likely = predictor(image)[1]
    pieces, count = ndimage.label((likely > 0.5) & scanned)
    kept = brain > 0.5
    if count:
        overlap = np.bincount(pieces[kept], minlength=count + 1)
        overlap[0] = 0
        kept |= (pieces == overlap.argmax()) & (overlap.max() > 0)
    inside = filled(kept)
    near = dilated(inside)
    # never less than the brain, so that its mask lies inside on every grid
    probability = np.where(near, np.maximum(likely, brain), 0)
    probability = np.where(inside & (probability <= 0.5), 1, probability)
    probability = np.where(inside, probability, np.minimum(probability, 0.499))
    sure = expected_dice(likely * near, inside)
    return Intracranial(probability.astype(np.float32), grid, sure)


def mask_beside(inside: Intracranial, brain: LabelMap) -> Beside:
    """The mask on the grid of the brain's, which lies inside."""
    likely = resample(inside.probability, inside.grid, brain.grid)
    labels = LabelMap(((likely > 0.5) | (brain.data > 0)).astype(np.uint8), brain.grid)
    return Beside(MASK, labels, "Intracranial mask")


def row_of(mask: Beside, inside: Intracranial) -> Measure:
    """Its row in the table of volumes."""
    volume = float(mask.labels.data.sum(dtype=np.int64)) * mask.labels.grid.voxel_volume
    return Measure(INDEX, "Intracranial", volume, confidence=inside.confidence)
