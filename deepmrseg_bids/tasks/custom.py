"""Any model on an image that is already what its network sees: for tasks of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.imaging.grid import Grid, centred_grid, resample
from deepmrseg_bids.imaging.intensity import normalise
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks.results import (
    Posteriors,
    Segmentation,
    confidences,
    label_map,
    measure,
)

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor

__all__ = ["segment"]


def segment(volume: Volume, predictor: Predictor) -> Segmentation:
    """The labels of the model's own table, on the image's grid.

    The image is turned to RAS and brought to the model's voxel size around its middle. Its
    intensities are scaled by what counts in it: by the whole field of view (mode ``crop``),
    by the voxels above zero (``brain``), or by the head (``head``).

    Raises:
        SignalError: nothing in the image counts, or all that counts is equal.
    """
    bundle = predictor.bundle
    grid = _around(volume.grid, bundle.preparation.shape, bundle.preparation.spacing)
    image = resample(volume.data, volume.grid, grid)
    mode = bundle.preparation.intensity
    if mode == "brain":
        counted = resample((volume.data > 0).astype(np.float32), volume.grid, grid) > 0.5
    else:
        counted = resample(np.ones(volume.grid.shape, np.uint8), volume.grid, grid, order=0) > 0
    answer = predictor(normalise(image, mode=mode, mask=counted))
    posteriors = Posteriors(answer, grid, (0, *bundle.labels.indices))
    labels = label_map(posteriors, volume.grid)
    rows = measure(labels, bundle.labels, confidences(posteriors), bundle)
    return Segmentation(bundle.task, labels, bundle.labels, rows, (posteriors,))


def _around(grid: Grid, shape: tuple[int, int, int], spacing: float) -> Grid:
    """The whole field of view, and at least ``shape`` voxels, around its middle."""
    corners = grid.corners()
    edges: NDArray[np.int_] = np.ceil(np.ptp(corners, axis=0) / spacing).astype(int)
    wide = np.maximum(edges, shape)
    # the middle of an odd edge lies in a voxel, that of an even one between two
    wide += (wide - edges) % 2
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    return centred_grid(middle, (int(wide[0]), int(wide[1]), int(wide[2])), spacing)
