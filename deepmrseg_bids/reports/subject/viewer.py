"""What the viewer of a page shows: a small scan, its label maps, and where each structure is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Array, Grid, overlap, resample
from deepmrseg_bids.imaging.labels import LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume, nifti_bytes
from deepmrseg_bids.reports.figures import head_box, label_box, to_ras
from deepmrseg_bids.reports.page import packed

__all__ = ["Place", "Scene", "ViewerMap", "make_scene"]

_SPACINGS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0)  # mm, the finest that fits is taken
_BYTES_A_VOXEL = 0.3  # at the least, of a head with 64 greys, compressed
_AROUND_MM = 5.0
_NEAR = 1.15  # means over whole voxels are fast, and as sharp
_GREYS = 64  # as many as an eye tells apart in a noisy scan, for less than half of the bytes


@dataclass(frozen=True)
class Place:
    """A structure in the viewer.

    Attributes:
        rgb: 0 to 255.
        centre: RAS+ millimetres of its voxel that is nearest to its middle.
    """

    index: int
    name: str
    rgb: tuple[int, int, int]
    centre: tuple[float, float, float]


@dataclass(frozen=True)
class ViewerMap:
    """The label map of a task on the viewer's grid, packed, and its structures."""

    task: str
    data: str
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Scene:
    """A scan of 8 bit cut to the head, packed, with its label maps.

    Attributes:
        grid: of its voxels.
    """

    scan: str
    grid: Grid
    maps: tuple[ViewerMap, ...] = ()

    @property
    def spacing(self) -> float:
        """Of its voxels in mm, for the caption."""
        return float(np.round(np.mean(self.grid.spacing), 2))

    def and_map(self, task: str, labels: LabelMap, table: LabelTable) -> Scene:
        """The same with one more label map, that may lie on any grid."""
        return replace(self, maps=(*self.maps, _map(task, labels, table, self.grid)))


def make_scene(volume: Volume, *, limit: int) -> Scene | None:
    """Make a scan small enough for a page; None if it cannot be.

    The grid has the axes of the scan, so an oblique scan is not turned.

    Args:
        limit: bytes of the packed scan; label maps come on top, with a few per cent of that.
    """
    scan, grid = to_ras(volume.data, volume.grid)
    head, place = _head(scan, grid)
    for spacing in _SPACINGS:
        target = _coarser(place, spacing)
        if np.prod(target.shape) * _BYTES_A_VOXEL * 4 / 3 > limit:
            continue
        data = packed(nifti_bytes(_greys(_shrunk(head, place, target)), target))
        if len(data) <= limit:
            return Scene(data, target)
    return None


def _head(scan: Array, grid: Grid) -> tuple[Array, Grid]:
    """The head and a little around it."""
    start, stop = [], []
    for (low, high), edge, spacing in zip(head_box(scan), grid.shape, grid.spacing, strict=True):
        extra = round(_AROUND_MM / spacing)
        start.append(max(low - extra, 0))
        stop.append(min(high + extra, edge))
    part = tuple(slice(low, high) for low, high in zip(start, stop, strict=True))
    return scan[part], grid.crop(start, stop)


def _coarser(grid: Grid, spacing: float) -> Grid:
    """The same box in larger voxels, a whole number of old ones where that is near."""
    scale = np.maximum(spacing / np.array(grid.spacing) + 1e-3, 1)
    whole = np.where(scale < 2, 2, np.floor(scale))
    scale = np.where(whole < _NEAR * scale, whole, scale)
    edges = np.maximum(np.array(grid.shape) / scale, 1).astype(int)
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world((scale / 2 - 0.5)[None])[0]
    affine[:3, :3] *= scale
    return Grid((int(edges[0]), int(edges[1]), int(edges[2])), affine)


def _shrunk(data: Array, source: Grid, target: Grid) -> Array:
    """Means over blocks, which is fast, along axes that shrink by whole numbers."""
    factors = np.array(target.spacing) / np.array(source.spacing)
    for axis, factor in enumerate(np.round(factors).astype(int)):
        if factor > 1 and abs(factor - factors[axis]) < 1e-6:
            parts = [data[(slice(None),) * axis + (slice(k, None, factor),)] for k in range(factor)]
            edge = target.shape[axis]
            first, *others = (part[(slice(None),) * axis + (slice(edge),)] for part in parts)
            total = first.astype(np.float32)
            for part in others:
                total += part.astype(np.float32, copy=False)
            data = np.divide(total, factor, out=total)
            source = _along(source, target, axis)
    return resample(data, source, target)


def _along(source: Grid, target: Grid, axis: int) -> Grid:
    """``source`` with one axis of ``target``, which has the same directions."""
    scale = target.spacing[axis] / source.spacing[axis]
    affine = source.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (scale / 2 - 0.5)
    affine[:3, axis] *= scale
    shape = list(source.shape)
    shape[axis] = target.shape[axis]
    return Grid((shape[0], shape[1], shape[2]), affine)


def _greys(data: Array) -> NDArray[np.uint8]:
    bright = data[data > 0]
    white = float(np.percentile(bright, 99.5)) if bright.size else 1.0
    greys = np.clip(data * (_GREYS / white), 0, _GREYS - 1).astype(np.uint8)
    return greys * np.uint8(256 // _GREYS)


def _map(task: str, labels: LabelMap, table: LabelTable, grid: Grid) -> ViewerMap:
    data = _on_grid(labels, grid)
    names = {label.index: label for label in table}
    places = []
    for number, part in enumerate(ndimage.find_objects(data), start=1):
        if part is None:
            continue
        label = names.get(number)
        name, rgb = (label.name, label.rgb) if label else (f"label {number}", (255, 255, 255))
        centre = grid.to_world([_middle(data, part, number)])[0]
        places.append(
            Place(number, name, rgb, (float(centre[0]), float(centre[1]), float(centre[2])))
        )
    return ViewerMap(task, packed(nifti_bytes(data, grid)), tuple(places))


def _on_grid(labels: LabelMap, grid: Grid) -> NDArray[np.unsignedinteger[Any]]:
    """The nearest labels; only where there are some, for most of a scan has none."""
    out = np.zeros(grid.shape, np.uint8 if labels.data.max(initial=0) < 256 else np.uint16)
    if (box := label_box(labels.data)) is None:
        return out
    cut = labels.grid.crop([low for low, _ in box], [high for _, high in box])
    if (part := overlap(cut, grid)) is None:
        return out
    target = grid.part(part)
    found = labels.data[tuple(slice(*ends) for ends in box)]
    out[part] = resample(found, cut, target, order=0)
    return out


def _middle(data: Array, part: tuple[slice, ...], number: int) -> list[float]:
    """The voxel of a structure that is nearest to its middle: a bent one has its middle outside."""
    voxels = np.argwhere(data[part] == number)
    away = ((voxels - voxels.mean(axis=0)) ** 2).sum(axis=1)
    start = np.array([axis.start for axis in part])
    return [float(edge) for edge in voxels[int(np.argmin(away))] + start]
