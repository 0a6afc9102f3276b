"""``hippocampus``: its anterior and posterior part on both sides, in a crop around each.

The network knows one hippocampus, a left one in RAS. The crop around the right one is laid
on a grid whose first axis runs to the left, so that the network sees a left one again, and
the way back undoes it like any other orientation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.errors import SegmentationError
from deepmrseg_bids.geometry import Array, Grid, centred_grid, resample
from deepmrseg_bids.image import LabelMap, Volume
from deepmrseg_bids.inference import Predictor
from deepmrseg_bids.intensity import normalise
from deepmrseg_bids.labels import Label, LabelTable
from deepmrseg_bids.segmentation import (
    Posteriors,
    Segmentation,
    confidences,
    label_map,
    largest_parts,
    measure,
)

__all__ = ["TABLE", "segment", "segment_prepared"]

TABLE = LabelTable(
    (
        Label(1, "Left-Hippocampus-Anterior", "L-HA", "#f58231"),
        Label(2, "Left-Hippocampus-Posterior", "L-HP", "#42d4f4"),
        Label(3, "Right-Hippocampus-Anterior", "R-HA", "#e6194b"),
        Label(4, "Right-Hippocampus-Posterior", "R-HP", "#4363d8"),
    )
)
_WHOLE = {"left": "Left-Hippocampus", "right": "Right-Hippocampus"}
_SMALLEST = 50  # voxels of 1 mm that make a hippocampus worth looking at
_CLASSES = {"left": (1, 2), "right": (3, 4)}


def segment(volume: Volume, deepbrain: Segmentation, predictor: Predictor) -> Segmentation:
    """Both hippocampi of a raw head, found through its deep structures.

    A side that ``deepbrain`` did not find is left empty, with a warning.
    """
    deep = deepbrain.posteriors[0]
    likely = deep.labels()
    number = {label.name: k for k, label in enumerate(deepbrain.table, start=1)}
    unknown = [name for name in _WHOLE.values() if name not in number]
    if unknown:
        raise SegmentationError(f"the model of deepbrain knows no {' and no '.join(unknown)}")
    crops, warnings = {}, []
    for side, name in _WHOLE.items():
        voxels = np.argwhere(likely == number[name])
        if len(voxels) < _SMALLEST:
            warnings.append(f"{name} was not found, so its parts are missing")
        else:
            crops[side] = _cut(volume, deep.grid.to_world(voxels), side, predictor)
    answers = predictor.many([image for image, _ in crops.values()])
    labels = np.zeros(volume.grid.shape, dtype=np.uint8)
    sureness: dict[int, float | None] = {}
    parts = []
    for (side, (_, grid)), answer in zip(crops.items(), answers, strict=True):
        posteriors = largest_parts(Posteriors(answer, grid, (0, *_CLASSES[side])))
        parts.append(posteriors)
        found = label_map(posteriors, volume.grid).data
        labels = np.where(found > 0, found, labels).astype(np.uint8)
        sureness |= confidences(posteriors)
    whole = LabelMap(labels, volume.grid)
    own = predictor.bundle.labels.names
    known_as = {index: own[k] for pair in _CLASSES.values() for k, index in enumerate(pair)}
    rows = measure(whole, TABLE, sureness, predictor.bundle, calibrated_as=known_as)
    missing = [row.name for row in rows if row.index in sureness and not row.volume_mm3]
    if missing:
        warnings.append(f"not found: {', '.join(missing)}")
    return Segmentation("hippocampus", whole, TABLE, rows, tuple(parts), tuple(warnings))


def _cut(
    volume: Volume, points: Array, side: str, predictor: Predictor
) -> tuple[NDArray[np.float32], Grid]:
    """Cut one hippocampus out as the training crops were: what the network sees, and where."""
    preparation = predictor.bundle.preparation
    low, high = np.percentile(points, (0.5, 99.5), axis=0)
    grid = centred_grid((low + high) / 2, preparation.shape, preparation.spacing)
    if side == "right":
        mirror = grid.affine.copy()
        mirror[:3, 3] = grid.to_world([(grid.shape[0] - 1, 0, 0)])[0]
        mirror[:3, 0] *= -1
        grid = Grid(grid.shape, mirror)
    image = resample(volume.data, volume.grid, grid)
    edges = np.ceil((high - low) / preparation.spacing).astype(int) + 2 * preparation.margin
    room = np.maximum((np.array(grid.shape) - edges) // 2, 0)
    box = np.zeros(grid.shape, dtype=bool)
    box[tuple(slice(int(r), int(n - r)) for r, n in zip(room, grid.shape, strict=True))] = True
    return normalise(image, mode="crop", mask=box), grid


def segment_prepared(volume: Volume, predictor: Predictor) -> Segmentation:
    """A crop around one hippocampus, in RAS with the shape of a left one: 1 and 2."""
    preparation = predictor.bundle.preparation
    corners = volume.grid.corners()
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    edges = np.ceil(np.ptp(corners, axis=0) / preparation.spacing).astype(int)
    shape = np.maximum(edges, preparation.shape)
    # the middle of an odd edge lies in a voxel, that of an even one between two
    shape += (shape - edges) % 2
    grid = centred_grid(middle, (int(shape[0]), int(shape[1]), int(shape[2])), preparation.spacing)
    image = resample(volume.data, volume.grid, grid)
    inside = resample(np.ones(volume.grid.shape, np.uint8), volume.grid, grid, order=0) > 0
    if not inside.any():
        raise SegmentationError(f"{volume.source or 'the image'}: an empty crop")
    table = predictor.bundle.labels
    answer = predictor(normalise(image, mode="crop", mask=inside))
    posteriors = Posteriors(answer, grid, (0, *table.indices))
    labels = label_map(posteriors, volume.grid)
    rows = measure(labels, table, confidences(posteriors), predictor.bundle)
    return Segmentation("hippocampus", labels, table, rows, (posteriors,))
