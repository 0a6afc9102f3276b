"""Pictures of a segmentation: its contours on cuts through the scan.

Pictures follow the neurological convention of NiPreps: the subject's right is on the right
of the picture (RAS+), and every cut says so with its own marks. The array is only turned and
flipped to get there, so that each voxel drawn is a voxel of the scan, at its true proportions.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Array, Grid, resample
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks.spec import Figure as FigureStyle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "PLANES",
    "UNKNOWN",
    "Plane",
    "Scene",
    "chosen_slices",
    "contour_figure",
    "encode",
    "head_box",
    "label_box",
    "outlines",
    "position_of",
    "scene_of",
    "size_mm",
    "slice_of",
    "thumbnail",
    "to_ras",
]

_WIDTH = 1600  # pixels: twice what a page shows, for dense screens and for print
_DPI = 100
_CUTS = 5
_GAP = 0.02  # between two cuts, in widths of a cut
_SURROUNDINGS_MM = 15.0  # whose intensities set black and white
_BACKGROUND = "#000000"
UNKNOWN = "#ffffff"  # a label that the table does not name is still drawn
_SOFTWARE_TAG = 0x0131  # of EXIF
_QUALITIES = (90, 75, 55)
_EFFORT = 2  # of WebP: half the time of the next, for 2 % more bytes
_SCALES = (1.0, 0.75, 0.5, 0.35)

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Plane:
    """A plane of cuts: the RAS axis it runs along, the two it shows, and their ends."""

    axis: int
    across: int
    up: int
    marks: tuple[str, str, str, str]  # left, right, bottom and top of the picture


PLANES = (
    Plane(0, 1, 2, ("P", "A", "I", "S")),  # sagittal
    Plane(1, 0, 2, ("L", "R", "I", "S")),  # coronal
    Plane(2, 0, 1, ("L", "R", "P", "A")),  # axial
)


@dataclass(frozen=True)
class Scene:
    """What is drawn: arrays (R, A, S) on ``grid``, the part to show, black and white."""

    scan: Array
    marked: Array
    grid: Grid
    content: Box | None
    view: Box
    window: tuple[float, float]
    colours: dict[int, str]


def contour_figure(
    volume: Volume,
    labels: LabelMap,
    table: LabelTable,
    *,
    style: FigureStyle,
    limit: int | None = None,
) -> bytes:
    """Draw the contours of a label map on sagittal, coronal and axial cuts of its scan.

    The subject's right is on the right of the picture, front and top are right and up. The
    cuts are spread over the slices that hold labels; an empty map is drawn with a note.

    Args:
        labels: on the scan's grid, or on another one that is then brought to it.
        table: the colours; a label that it lacks is drawn in white.
        style: how much of the surroundings is shown.
        limit: if given, the largest number of bytes to aim at, at the cost of sharpness.

    Returns:
        A WebP file, 1600 pixels wide unless the limit asks for less.
    """
    return encode(_pixels(_figure(scene_of(volume, labels, table, style)))[..., :3], limit)


def thumbnail(
    volume: Volume, labels: LabelMap, table: LabelTable, *, style: FigureStyle, edge: int
) -> Array:
    """Draw the cut that holds most labelled voxels, small, with the contours on it.

    The style says in which plane.

    Args:
        edge: of the picture, in pixels; the cut lies in its middle, at its true proportions.

    Returns:
        ``(edge, edge, 3)`` uint8.
    """
    from PIL import Image, ImageDraw

    scene = scene_of(volume, labels, table, style)
    plane = PLANES[style.plane]
    others = tuple(axis for axis in range(3) if axis != plane.axis)
    area = np.count_nonzero(scene.marked, axis=others)
    place = int(np.argmax(area)) if area.any() else sum(scene.view[plane.axis]) // 2
    black, white = scene.window
    grey = (slice_of(scene.scan, plane, scene.view, place) - black) / (white - black)
    pixels = (np.clip(grey, 0, 1) * 255).astype(np.uint8)[::-1]  # up is the first row
    size = size_mm(scene.view, plane, scene.grid)
    fine = 2 * edge  # drawn at twice the size: lines are smooth, and not too thick
    scale = fine / max(size)
    width, height = (max(1, round(length * scale)) for length in size)
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    whole = Image.new("RGB", (fine, fine), _BACKGROUND)
    left, top = (fine - width) // 2, (fine - height) // 2
    whole.paste(picture, (left, top))
    drawing = ImageDraw.Draw(whole)
    across, up = width / pixels.shape[1], height / pixels.shape[0]
    for index, line in outlines(slice_of(scene.marked, plane, scene.view, place)):
        points = [(left + x * across, top + height - y * up) for x, y in line]
        drawing.line(points, fill=scene.colours.get(index, UNKNOWN), width=3)
    small = whole.resize((edge, edge), Image.Resampling.LANCZOS)
    return np.asarray(small)


def scene_of(volume: Volume, labels: LabelMap, table: LabelTable, style: FigureStyle) -> Scene:
    """A scan and its labels, turned to RAS+, with what is to be shown of them."""
    scan, grid = to_ras(volume.data, volume.grid)
    marked, _ = to_ras(_on_grid(labels, volume.grid), volume.grid)
    content = label_box(marked)
    view = _field_of_view(scan, content, grid, style.margin_mm)
    window = _window(scan, marked, content or view, grid, inside=style.window_inside)
    colours = {label.index: label.color for label in table}
    return Scene(scan, marked, grid, content, view, window, colours)


def _figure(scene: Scene) -> Figure:
    """All cuts, 1600 pixels wide."""
    from matplotlib.figure import Figure

    sizes = [size_mm(scene.view, plane, scene.grid) for plane in PLANES]
    tile = _WIDTH / (_CUTS + (_CUTS - 1) * _GAP)
    heights = [tile * up / across for across, up in sizes]
    space = _GAP * tile
    total = round(sum(heights) + space * (len(PLANES) - 1))
    figure = Figure(figsize=(_WIDTH / _DPI, total / _DPI), dpi=_DPI, facecolor=_BACKGROUND)
    top = float(total)
    for plane, height in zip(PLANES, heights, strict=True):
        axes = figure.add_axes((0, (top - height) / total, 1, height / total))
        _draw_plane(axes, plane, scene)
        top -= height + space
    if scene.content is None:
        _note(figure, "No labels in this scan")
    return figure


def _pixels(figure: Figure) -> Array:
    """(H, W, 4) uint8: red, green, blue, opacity."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]


def to_ras(data: Array, grid: Grid) -> tuple[Array, Grid]:
    """Turn and flip an array (I, J, K) to the nearest RAS+ order; no voxel is resampled.

    >>> grid = Grid((2, 3, 4), np.diag([-1.0, 1.0, 1.0, 1.0]))
    >>> data, turned = to_ras(np.zeros((2, 3, 4)), grid)
    >>> turned.orientation, turned.to_world([[0, 0, 0]]).tolist()
    ('RAS', [[-1.0, 0.0, 0.0]])
    """
    unit = grid.affine[:3, :3] / np.array(grid.spacing)
    # one voxel axis for each world axis, also where an oblique scan is near 45 degrees
    order = max(permutations(range(3)), key=lambda axes: np.abs(unit)[[0, 1, 2], axes].sum())
    turned = data.transpose(order)
    affine = grid.affine.copy()
    affine[:3, :3] = affine[:3, :3][:, order]
    for axis in range(3):
        if affine[axis, axis] < 0:
            affine[:3, 3] += affine[:3, axis] * (turned.shape[axis] - 1)
            affine[:3, axis] *= -1
            turned = np.flip(turned, axis)
    return turned, Grid((turned.shape[0], turned.shape[1], turned.shape[2]), affine)


def _on_grid(labels: LabelMap, grid: Grid) -> Array:
    if labels.grid.shape == grid.shape and np.allclose(labels.grid.affine, grid.affine, atol=1e-2):
        return labels.data
    return resample(labels.data, labels.grid, grid, order=0)


def label_box(marked: Array) -> Box | None:
    """The smallest box that holds every label; None where there is none."""
    ends = [(0, edge) for edge in marked.shape]
    # slices that lie together in memory first; what they leave is small
    for axis in sorted(range(3), key=lambda k: -abs(marked.strides[k])):
        part = marked[tuple(slice(*end) for end in ends)]
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(part.any(axis=others))
        if places.size == 0:
            return None
        ends[axis] = (int(places[0]), int(places[-1]) + 1)
    return ends[0], ends[1], ends[2]


def head_box(scan: Array) -> Box:
    """The box around the head: slices of which more than 1 % is not background."""
    steps = tuple(max(1, edge // 96) for edge in scan.shape)
    coarse = scan[:: steps[0], :: steps[1], :: steps[2]]
    bright = coarse > 0.1 * np.percentile(coarse, 99)
    ends = []
    for axis, edge in enumerate(scan.shape):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(bright.mean(axis=others) > 0.01) * steps[axis]
        ends.append(
            (int(used[0]), min(int(used[-1]) + steps[axis], edge)) if used.size else (0, edge)
        )
    return ends[0], ends[1], ends[2]


def _field_of_view(scan: Array, content: Box | None, grid: Grid, margin: float) -> Box:
    """The labels and a margin in millimetres, as far as the head reaches."""
    head = head_box(scan)
    if content is None:
        return head
    ends = []
    for (low, high), (first, last), spacing in zip(content, head, grid.spacing, strict=True):
        extra = round(margin / spacing)
        ends.append((min(low, max(low - extra, first)), max(high, min(high + extra, last))))
    return ends[0], ends[1], ends[2]


def _window(
    scan: Array, marked: Array, box: Box, grid: Grid, *, inside: bool
) -> tuple[float, float]:
    """Black and white: percentiles of the brain, so that bright fat does not set them.

    ``inside`` takes the labelled voxels (a brain mask), otherwise the labels and 15 mm around.
    """
    parts = []
    for (low, high), spacing, edge in zip(box, grid.spacing, scan.shape, strict=True):
        extra = 0 if inside else round(_SURROUNDINGS_MM / spacing)
        step = max(1, (high - low) // 96)
        parts.append(slice(max(low - extra, 0), min(high + extra, edge), step))
    values = scan[tuple(parts)]
    mask = marked[tuple(parts)] > 0
    chosen = values[mask] if inside and mask.any() else values[values > 0]
    if chosen.size == 0:
        chosen = values.ravel()
    black, white = (float(value) for value in np.percentile(chosen, (1, 99)))
    span = max(white - black, 1e-6 * max(abs(white), 1.0))
    return black - 0.05 * span, white + 0.1 * span


def size_mm(view: Box, plane: Plane, grid: Grid) -> tuple[float, float]:
    """Width and height of what is shown in a plane."""
    across, up = (
        (view[axis][1] - view[axis][0]) * grid.spacing[axis] for axis in (plane.across, plane.up)
    )
    return across, up


def chosen_slices(marked: Array, view: Box, axis: int, number: int = _CUTS) -> list[int]:
    """The slices to draw: equal shares of those with labels, the fullest near each middle.

    Where fewer slices have labels, some are there several times.
    """
    others = tuple(other for other in range(3) if other != axis)
    low, high = view[axis]
    area = np.zeros(marked.shape[axis], dtype=int)  # the view holds every label
    area[low:high] = np.count_nonzero(marked[tuple(slice(*ends) for ends in view)], axis=others)
    used = np.flatnonzero(area)
    if used.size == 0:
        return [int(low + (high - low) * (cut + 0.5) / number) for cut in range(number)]
    if used.size < number:
        return sorted(int(used[cut * used.size // number]) for cut in range(number))
    chosen = []
    for share in np.array_split(used, number):
        off_centre = np.abs(np.linspace(-1, 1, share.size)) if share.size > 1 else np.zeros(1)
        chosen.append(int(share[np.argmax(area[share] * (1 - 0.7 * off_centre))]))
    return chosen


def _draw_plane(axes: Axes, plane: Plane, scene: Scene) -> None:
    """One row of cuts in one axes, whose unit is a voxel; the row's box sets the proportions."""
    from matplotlib.collections import LineCollection

    view = scene.view
    width, height = (view[axis][1] - view[axis][0] for axis in (plane.across, plane.up))
    pitch = width * (1 + _GAP)
    lines: list[Array] = []
    strokes: list[str] = []
    for column, cut in enumerate(chosen_slices(scene.marked, view, plane.axis)):
        left = column * pitch
        axes.imshow(
            slice_of(scene.scan, plane, view, cut),
            cmap="gray",
            vmin=scene.window[0],
            vmax=scene.window[1],
            origin="lower",
            extent=(left, left + width, 0, height),
            aspect="auto",
            interpolation="hanning",
        )
        position = position_of(scene.grid, view, plane.axis, cut)
        _mark(axes, plane, left, width, height, position, column)
        for index, line in outlines(slice_of(scene.marked, plane, view, cut)):
            lines.append(line + np.array([left, 0]))
            strokes.append(scene.colours.get(index, UNKNOWN))
    axes.add_collection(LineCollection(lines, colors=strokes, linewidths=1.4), autolim=False)
    axes.set_xlim(0, _CUTS * pitch - width * _GAP)
    axes.set_ylim(0, height)
    axes.set_axis_off()


def slice_of(data: Array, plane: Plane, view: Box, index: int) -> Array:
    """(up, across): one slice within the field of view."""
    part: list[Any] = [slice(*ends) for ends in view]
    part[plane.axis] = index
    flat: Array = data[tuple(part)]  # the axes left keep their order: ``across``, then ``up``
    return flat.T


def outlines(tile: Array) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """The outline (N, 2) of each label in a tile, in voxels from its lower left corner."""
    from contourpy import contour_generator

    indices, numbers = np.unique(tile, return_inverse=True)
    numbers = numbers.reshape(tile.shape) + 1
    for number, slices in enumerate(ndimage.find_objects(numbers), start=1):
        index = int(indices[number - 1])
        if index == 0 or slices is None:
            continue
        mask = np.pad(numbers[slices] == number, 1).astype(np.float32)
        start = np.array([slices[1].start, slices[0].start]) - 0.5  # padding and voxel centre
        for line in contour_generator(z=mask).lines(0.5):
            yield index, np.asarray(line, dtype=np.float64) + start


def position_of(grid: Grid, view: Box, axis: int, cut: int) -> str:
    """Where a slice is, as ``x = -12 mm``, in the middle of what is shown."""
    centre = [(low + high - 1) / 2 for low, high in view]
    centre[axis] = cut
    return f"{'xyz'[axis]} = {round(grid.to_world([centre])[0, axis]):+d} mm"


def _mark(
    axes: Axes,
    plane: Plane,
    left: float,
    width: float,
    height: float,
    position: str,
    column: int,
) -> None:
    """Which side is which, on every cut; up and down on the first; where the cut lies."""
    from matplotlib.patheffects import withStroke

    style: dict[str, Any] = {
        "color": "white",
        "path_effects": [withStroke(linewidth=2.5, foreground="black")],
    }
    at_left, at_right, bottom, top = plane.marks
    pad = 0.02 * width
    places = [
        (at_left, left + pad, height / 2, "left", "center"),
        (at_right, left + width - pad, height / 2, "right", "center"),
    ]
    if column == 0:
        places.append((top, left + width / 2, height * 0.985, "center", "top"))
        places.append((bottom, left + width / 2, height * 0.02, "center", "bottom"))
    for text, x, y, horizontal, vertical in places:
        axes.text(x, y, text, ha=horizontal, va=vertical, fontsize=15, weight="bold", **style)
    axes.text(left + pad, height * 0.02, position, ha="left", va="bottom", fontsize=11, **style)


def _note(figure: Figure, text: str) -> None:
    box = {"boxstyle": "round,pad=0.5", "facecolor": "#000000", "edgecolor": "#ffffff"}
    figure.text(0.5, 0.5, text, color="white", ha="center", va="center", fontsize=26, bbox=box)


def encode(pixels: Array, limit: int | None, *, software: str = "") -> bytes:
    """(H, W, 3 or 4) uint8 to WebP, as sharp as the limit in bytes allows.

    Args:
        software: is named in the file as what made it.
    """
    from PIL import Image

    marks = Image.Exif()
    if software:
        marks[_SOFTWARE_TAG] = software

    whole = Image.fromarray(np.ascontiguousarray(pixels))
    data = b""
    for scale in _SCALES:
        size = (round(whole.width * scale), round(whole.height * scale))
        image = whole if scale == 1 else whole.resize(size, Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            stream = io.BytesIO()
            image.save(stream, "WEBP", quality=quality, method=_EFFORT, exif=marks)
            data = stream.getvalue()
            if limit is None or len(data) <= limit:
                return data
    return data
