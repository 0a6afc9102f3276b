"""``deepbrain``: 14 deep structures, in a crop around them at 1 mm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import SegmentationError, SignalError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array, Grid, centred_grid, resample
from deepmrseg_bids.imaging.intensity import normalise
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks.brain import Brain
from deepmrseg_bids.tasks.qc import check_structures
from deepmrseg_bids.tasks.results import (
    Posteriors,
    Segmentation,
    confidences,
    label_map,
    largest_parts,
    measure,
)

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor

__all__ = ["segment", "segment_prepared"]

_MaskOn = Callable[[Grid], NDArray[np.bool_]]
_RECENTRE_MM = 4.0  # a crop further off its structures than this is cut again


def segment(volume: Volume, brain: Brain, predictor: Predictor) -> Segmentation:
    """The deep structures of a raw head whose brain was found.

    Raises:
        SegmentationError: the deep structures are not in the image.
    """
    if brain.centre is None:
        raise SegmentationError(
            f"{volume.source or 'the image'}: no deep structures were found in the brain"
        )
    result = _segment(volume, np.array(brain.centre), brain.mask_on, predictor)
    doubts = check_structures(result, brain.mask_on(result.posteriors[0].grid))
    return replace(result, findings=(*result.findings, *doubts))


def segment_prepared(volume: Volume, predictor: Predictor) -> Segmentation:
    """The deep structures of a brain-extracted scan (zero outside the brain)."""
    extracted = (volume.data > 0).astype(np.float32)
    voxels = np.argwhere(extracted[::2, ::2, ::2] > 0) * 2
    if not len(voxels):
        raise SignalError(f"{volume.source or 'the image'}: no voxel above 0: no brain in it")
    middle = volume.grid.to_world([voxels.mean(axis=0)])[0]

    def mask_on(grid: Grid) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = resample(extracted, volume.grid, grid) > 0.5
        return inside

    return _segment(volume, middle, mask_on, predictor)


def _segment(volume: Volume, centre: Array, mask_on: _MaskOn, predictor: Predictor) -> Segmentation:
    preparation = predictor.bundle.preparation
    table = predictor.bundle.labels
    for _ in range(3):
        grid = centred_grid(centre, preparation.shape, preparation.spacing)
        image = resample(volume.data, volume.grid, grid)
        answer = predictor(normalise(image, mode="brain", mask=mask_on(grid)))
        posteriors = Posteriors(answer, grid, (0, *table.indices))
        voxels = np.argwhere(posteriors.labels())
        if not len(voxels):
            raise SegmentationError(f"{volume.source or 'the image'}: no deep structure found")
        low, high = np.percentile(voxels, (0.5, 99.5), axis=0)
        found = grid.to_world([(low + high) / 2])[0]
        if np.abs(found - centre).max() <= _RECENTRE_MM:
            break
        centre = found
    posteriors = largest_parts(posteriors)
    labels = label_map(posteriors, volume.grid)
    rows = measure(labels, table, confidences(posteriors), predictor.bundle)
    missing = [row.name for row in rows if row.volume_mm3 == 0]
    lost = tuple(Finding("structure-missing", "error", f"{name} was not found") for name in missing)
    return Segmentation("deepbrain", labels, table, rows, (posteriors,), lost)
