"""Made-up heads, and a predictor that tells their parts by intensity."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from deepmrseg_bids.imaging.grid import Grid, centred_grid
from deepmrseg_bids.imaging.intensity import OUTSIDE
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.bundle import Preparation
from tests.support import stored_as

Part = tuple[Sequence[float], Sequence[float], float]  # centre and half-axes in mm, level


def paint(grid: Grid, parts: Sequence[Part], background: float = 0.0) -> np.ndarray:
    """Ellipsoids on any grid, later ones over earlier ones."""
    points = grid.to_world(np.indices(grid.shape).reshape(3, -1).T)
    data = np.full(len(points), background, np.float32)
    for centre, radii, level in parts:
        data[(((points - np.array(centre)) / np.array(radii)) ** 2).sum(axis=1) <= 1] = level
    return data.reshape(grid.shape)


def tilted(grid: Grid, degrees: float = 12) -> Grid:
    """The same box turned about its middle, first about z and then about x."""
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array(
        [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    )
    middle = grid.corners().mean(axis=0)
    affine = np.eye(4)
    affine[:3, :3] = turn @ grid.affine[:3, :3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2)
    return Grid(grid.shape, affine)


def scan(parts: Sequence[Part], grid: Grid, background: float = 0.0, codes: str = "RAS") -> Volume:
    """The phantom as a scan whose axes grow towards ``codes``; ``oblique`` tilts it."""
    if codes == "oblique":
        grid = tilted(grid)
    data = paint(grid, parts, background)
    return Volume(*(stored_as(data, grid, codes) if codes != "oblique" else (data, grid)))


class ByLevel:
    """A predictor, as far as a task can tell: a class for each window of raw intensity.

    ``normalise`` only shifts and scales, so the darkest and the brightest level of the phantom
    are enough to undo it.
    """

    def __init__(
        self,
        labels: LabelTable,
        preparation: Preparation,
        windows: Sequence[tuple[float, float]],
        span: tuple[float, float],
    ) -> None:
        self.bundle = SimpleNamespace(
            task="phantom",
            labels=labels,
            preparation=preparation,
            facts={},
            network=SimpleNamespace(classes=3),
        )
        self.windows, self.span = windows, span
        self.seen: list[np.ndarray] = []

    def __call__(self, image: np.ndarray, *, overlap: float = 0.5) -> np.ndarray:
        assert np.abs(image).max() < 5, "the phantom's levels must not be clipped"
        self.seen.append(image.copy())
        counted = image != OUTSIDE
        dark, bright = image[counted].min(), image[counted].max()
        low, high = self.span
        raw = low + (image - dark) * (high - low) / (bright - dark)
        chosen = [counted & (raw > a) & (raw < b) for a, b in self.windows]
        background = ~np.logical_or.reduce(chosen)
        return np.stack([background, *chosen]).astype(np.float32)

    def packed(self, image: np.ndarray) -> np.ndarray:
        return np.rint(self(image) * 65535).astype(np.uint16)

    def many(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [self(image) for image in images]


def box(edge_mm: float, spacing: float, centre: Sequence[float] = (0, 0, 0)) -> Grid:
    """A cubic field of view in RAS."""
    edge = round(edge_mm / spacing)
    return centred_grid(centre, (edge, edge, edge), spacing)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())
