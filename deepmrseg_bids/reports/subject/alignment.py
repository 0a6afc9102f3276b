"""Two scans of one head, before and after registration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.imaging.grid import Array, Grid, resample
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.reports.figures import encode, head_box, to_ras

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["alignment_figure"]

_WIDTH, _DPI = 1600, 100  # pixels, as in the pictures of contours
_SPACING = 1.0  # mm of the slices: enough to see edges
_SQUARES = 6  # of the checkerboard, along the longer side
_CUTS = ((0, 0.35), (1, 0.5), (2, 0.5))  # sagittal off the midline, coronal, axial; of the head


def alignment_figure(
    fixed: Volume, moving: Volume, matrix: NDArray[np.float64], *, limit: int | None = None
) -> bytes:
    """Draw a checkerboard of two scans, before (upper row) and after (lower row) alignment.

    Sagittal, coronal and axial; the subject's right is on the right. Where the scans are
    aligned, edges are continuous across the tiles.

    Args:
        matrix: (4, 4), points of the fixed scan's space to points of the moving one's, RAS+ mm.
        limit: if given, the largest number of bytes to aim at.

    Returns:
        A WebP file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    grid = _view(fixed)
    still = _scaled(resample(fixed.data, fixed.grid, grid))
    rows = [
        (name, _scaled(resample(moving.data, Grid(moving.grid.shape, back), grid)))
        for name, back in (
            ("before", moving.grid.affine),
            ("after", np.linalg.inv(matrix) @ moving.grid.affine),
        )
    ]
    x, y, z = grid.shape
    widths, height = (y, x, x), max(z, y)
    whole = sum(widths)
    figure = Figure(
        figsize=(_WIDTH / _DPI, 2 * height / whole * _WIDTH / _DPI), dpi=_DPI, facecolor="#000000"
    )
    canvas = FigureCanvasAgg(figure)
    for row, (name, other) in enumerate(rows):
        left = 0.0
        for (axis, share), width in zip(_CUTS, widths, strict=True):
            axes = figure.add_axes((left / whole, (1 - row) / 2, width / whole, 0.5))
            cut = int(share * grid.shape[axis])
            squares = _checkerboard(still.take(cut, axis).T, other.take(cut, axis).T)
            axes.imshow(squares, cmap="gray", vmin=0, vmax=1, origin="lower")
            axes.set_axis_off()
            _mark(axes, "PA" if axis == 0 else "LR", name if axis == 0 else "")
            left += width
    canvas.draw()  # type: ignore[no-untyped-call]
    return encode(np.asarray(canvas.buffer_rgba())[..., :3], limit)  # type: ignore[no-untyped-call]


def _view(fixed: Volume) -> Grid:
    """The head in the fixed scan, along its own axes, in cubes of a millimetre."""
    scan, grid = to_ras(fixed.data, fixed.grid)
    ends = np.array(head_box(scan), dtype=float)
    size = (ends[:, 1] - ends[:, 0]) * grid.spacing
    edges = np.maximum(np.round(size / _SPACING), 1).astype(int)
    affine = grid.affine.copy()
    affine[:3, :3] *= _SPACING / np.array(grid.spacing)
    affine[:3, 3] = grid.to_world((ends[:, 0] - 0.5)[None])[0] + affine[:3, :3].sum(axis=1) / 2
    return Grid((int(edges[0]), int(edges[1]), int(edges[2])), affine)


def _scaled(data: Array) -> Array:
    """0 to 1: black to the brightness that 2 % of the head exceed."""
    bright = data[data > 0]
    white = float(np.percentile(bright, 98)) if bright.size else 1.0
    return np.clip(data / white, 0, 1)


def _checkerboard(one: Array, other: Array) -> Array:
    edge = max(1, max(one.shape) // _SQUARES)
    rows, columns = (np.arange(length) // edge for length in one.shape)
    first = (rows[:, None] + columns[None]) % 2 == 0
    return np.where(first, one, other)


def _mark(axes: Axes, sides: str, name: str) -> None:
    from matplotlib.patheffects import withStroke

    stroke = [withStroke(linewidth=2.5, foreground="black")]
    for text, x, place in ((sides[0], 0.02, "left"), (sides[1], 0.98, "right")):
        axes.text(x, 0.5, text, ha=place, va="center", color="white", fontsize=15, weight="bold",
                  transform=axes.transAxes, path_effects=stroke)  # fmt: skip
    axes.text(0.02, 0.98, name, ha="left", va="top", color="white", fontsize=13,
              transform=axes.transAxes, path_effects=stroke)  # fmt: skip
