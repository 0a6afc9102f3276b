"""The picture of two scans on each other."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.reports.subject.alignment import alignment_figure


def test_a_checkerboard_is_one_picture_after_the_alignment_and_two_before() -> None:
    grid = Grid((60, 60, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
    x, y, z = np.indices(grid.shape)
    data = (100.0 * ((x - 30) ** 2 + (y - 30) ** 2 + (z - 30) ** 2 < 20**2)).astype(np.float32)
    away = np.eye(4)
    away[0, 3] = 30.0  # mm
    moved = Grid(grid.shape, away @ grid.affine)
    picture = alignment_figure(Volume(data, grid), Volume(data, moved), away)
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
    before, after = np.array_split(pixels, 2)
    columns = slice(int(0.4 * pixels.shape[1]), int(0.6 * pixels.shape[1]))  # coronal
    bright = [(half[:, columns] > 128).mean() for half in (before, after)]
    assert bright[1] > 1.2 * bright[0] > 0
