"""The pictures of a subject's page: slices of the scan, with the outline of each structure on them.

A slice is a picture of the scan alone; outlines are vectors in a layer above it, so that the page
can fade, fill or omit them, and says which structure is under the pointer. As in all pictures the
subject's right is on the right, front and top are right and up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.imaging.grid import Array
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.reports.figures import (
    PLANES,
    UNKNOWN,
    Plane,
    Scene,
    chosen_slices,
    encode,
    outlines,
    position_of,
    scene_of,
    size_mm,
    slice_of,
)
from deepmrseg_bids.tasks.spec import Figure as FigureStyle

__all__ = ["Outline", "PlaneSlices", "Slice", "SliceSet", "draw_axial", "draw_slices"]

_SLICES = 9  # of each plane; the middle one of every three is shown at once
_STEP = 3
_WIDTHS = (320, 560)  # pixels, at the least and the most, of a slice in the page
_TITLES = ("Sagittal", "Coronal", "Axial")


@dataclass(frozen=True)
class Outline:
    """A structure in a slice.

    Attributes:
        colour: as in the label table, ``#rrggbb``.
        path: of an SVG, in half voxels from the upper left corner of the slice.
    """

    index: int
    colour: str
    path: str


@dataclass(frozen=True)
class Slice:
    """One slice.

    Attributes:
        scan: a WebP file.
        position: ``x = -12 mm``.
        first: shown at once, and not only on demand.
    """

    scan: bytes
    position: str
    first: bool
    outlines: tuple[Outline, ...]


@dataclass(frozen=True)
class PlaneSlices:
    """The slices of a plane, all of one size.

    Attributes:
        marks: what is at the left, right, bottom and top.
        box: width and height in half voxels.
        size_mm: width and height.
    """

    title: str
    marks: tuple[str, str, str, str]
    box: tuple[int, int]
    size_mm: tuple[float, float]
    slices: tuple[Slice, ...]


@dataclass(frozen=True)
class SliceSet:
    """The picture of a task: sagittal, coronal and axial slices.

    Attributes:
        empty: the label map has no label.
    """

    planes: tuple[PlaneSlices, ...]
    empty: bool


def draw_slices(
    volume: Volume,
    labels: LabelMap,
    table: LabelTable,
    *,
    style: FigureStyle,
    limit: int | None = None,
) -> SliceSet:
    """Slices spread over those that have labels, with their outlines.

    Args:
        labels: on the grid of the scan, or on another one that is then brought to it.
        table: the colours; a label that it lacks is white.
        style: how much of the surroundings is shown.
        limit: bytes to aim at, for all scans and outlines together; with less of them, fewer
            slices are drawn, and less sharply.
    """
    scene = scene_of(volume, labels, table, style)
    planes: list[PlaneSlices] = []
    room = limit
    for number, (title, plane) in enumerate(zip(_TITLES, PLANES, strict=True)):
        share = None if room is None else room // (len(PLANES) - number)
        planes.append(_plane(title, plane, scene, share))
        if room is not None:
            room -= sum(map(_bytes, planes[-1].slices))
    return SliceSet(tuple(planes), scene.content is None)


def draw_axial(
    volume: Volume,
    labels: LabelMap,
    table: LabelTable,
    *,
    style: FigureStyle,
    number: int,
    limit: int | None = None,
) -> PlaneSlices:
    """So many axial slices, all shown at once; fewer if fewer have labels.

    Args:
        limit: bytes to aim at; with less of them, slices are less sharp.
    """
    scene, plane = scene_of(volume, labels, table, style), PLANES[2]
    low, high = scene.view[plane.axis]
    chosen = set(chosen_slices(scene.marked, scene.view, plane.axis, number))
    for step in range(number, high - low + 1):  # others between, so that the whole brain is seen
        if len(chosen) >= number:
            break
        between = np.linspace(low, high - 1, step + 2)[1:-1].astype(int).tolist()
        chosen |= set([one for one in between if one not in chosen][: number - len(chosen)])
    share = None if limit is None else limit // len(chosen)
    slices = tuple(_slice(plane, scene, place, True, share) for place in sorted(chosen))
    return PlaneSlices(
        _TITLES[2], plane.marks, _box(plane, scene), size_mm(scene.view, plane, scene.grid), slices
    )


def _plane(title: str, plane: Plane, scene: Scene, limit: int | None) -> PlaneSlices:
    chosen = list(dict.fromkeys(chosen_slices(scene.marked, scene.view, plane.axis, _SLICES)))
    first = set(chosen[1::_STEP] if len(chosen) > _STEP else chosen)
    drawn: dict[int, Slice] = {}
    left = limit
    for place in sorted(chosen, key=lambda place: place not in first):
        to_go = sum(one not in drawn for one in (first if place in first else chosen))
        one = _slice(plane, scene, place, place in first, None if left is None else left // to_go)
        if left is not None:
            left -= _bytes(one)
            if left < 0 and place not in first:
                break
        drawn[place] = one
    slices = tuple(drawn[place] for place in chosen if place in drawn)
    return PlaneSlices(
        title, plane.marks, _box(plane, scene), size_mm(scene.view, plane, scene.grid), slices
    )


def _box(plane: Plane, scene: Scene) -> tuple[int, int]:
    """Width and height of what is shown, in half voxels."""
    height, width = slice_of(scene.marked, plane, scene.view, scene.view[plane.axis][0]).shape
    return 2 * width, 2 * height


def _slice(plane: Plane, scene: Scene, place: int, first: bool, limit: int | None) -> Slice:
    marked = slice_of(scene.marked, plane, scene.view, place)
    found = tuple(_outlines(marked, scene.colours))
    scan = slice_of(scene.scan, plane, scene.view, place)
    room = None if limit is None else max(limit - sum(len(one.path) for one in found), limit // 3)
    position = position_of(scene.grid, scene.view, plane.axis, place)
    return Slice(encode(_pixels(plane, scene, scan), room), position, first, found)


def _pixels(plane: Plane, scene: Scene, scan: Array) -> NDArray[np.uint8]:
    """(H, W, 3) at its true proportions."""
    from PIL import Image

    black, white = scene.window
    grey = (np.clip((scan - black) / (white - black), 0, 1) * 255).astype(np.uint8)[::-1]
    across, up = size_mm(scene.view, plane, scene.grid)
    width = min(max(grey.shape[1], _WIDTHS[0]), _WIDTHS[1])
    size = (width, max(1, round(width * up / across)))
    image = Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC)
    return np.asarray(image.convert("RGB"))


def _outlines(marked: Array, colours: dict[int, str]) -> Iterator[Outline]:
    paths: dict[int, list[str]] = {}
    for index, line in outlines(marked):
        paths.setdefault(index, []).append(_path(line, marked.shape[0]))
    for index, parts in paths.items():
        yield Outline(index, colours.get(index, UNKNOWN), "".join(parts))


def _path(line: NDArray[np.float64], height: int) -> str:
    """A closed line (N, 2) of voxels, up, as an SVG path of half voxels, down."""
    points = np.round(2 * line).astype(int)
    points[:, 1] = 2 * height - points[:, 1]
    steps = np.diff(points, axis=0)
    turns = np.flatnonzero(np.any(steps[1:] != steps[:-1], axis=1)) + 1
    corners = points[np.concatenate(([0], turns, [len(points) - 1]))]
    moves = np.diff(corners, axis=0)[:-1]  # ``z`` draws the last one
    text = " ".join(f"{x} {y}" for x, y in moves.tolist()).replace(" -", "-")
    return f"M{corners[0, 0]} {corners[0, 1]}l{text}z"


def _bytes(one: Slice) -> int:
    """What a slice takes in a page, before base64."""
    return len(one.scan) + sum(len(outline.path) + 40 for outline in one.outlines)
