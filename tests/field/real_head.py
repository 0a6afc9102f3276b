"""One real head, the MNI152 average at 2 mm, changed in a line or two."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from deepmrseg_bids.imaging.air import find_air, with_air_at_zero
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.predictor import PredictorPool
from deepmrseg_bids.tasks.brain import Brain, find_brain
from tests.integration.conftest import coarse


@cache
def pool(*, flips: bool = False) -> PredictorPool:
    """The shipped models."""
    return PredictorPool(precision="float32", flips=flips)


@cache
def head() -> Volume:
    image = coarse()
    data = np.asarray(image.dataobj, dtype=np.float32)
    return Volume(data, Grid(data.shape, image.affine))


@cache
def usual_brain() -> Brain:
    return find_brain(head(), pool()("brain"))


def as_read(data: np.ndarray, grid: Grid | None = None) -> Volume:
    """The volume that the reader makes of these voxels."""
    data = np.ascontiguousarray(data, dtype=np.float32)
    air = find_air(data)
    found = tuple(air.findings(data))
    return Volume(with_air_at_zero(data, air), grid or Grid(data.shape, head().grid.affine), found)


def padded(volume: Volume, voxels: int, value: float = 0.0) -> Volume:
    data = np.pad(volume.data, voxels, constant_values=value)
    grid = volume.grid.crop([-voxels] * 3, [edge + voxels for edge in volume.grid.shape])
    return as_read(data, grid)


def tilted(volume: Volume, degrees: float, axis: int) -> Volume:
    """The same voxels under a header that is turned about a world axis."""
    angle = np.radians(degrees)
    turn = np.eye(4)
    a, b = (k for k in range(3) if k != axis)
    turn[[a, a, b, b], [a, b, a, b]] = (
        np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    )  # fmt: skip
    return replace(volume, grid=Grid(volume.grid.shape, turn @ volume.grid.affine))
