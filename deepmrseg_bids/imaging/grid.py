"""Where voxels lie: a ``Grid``, and one ``resample`` that takes an array from grid to grid.

World coordinates are RAS+ millimetres (NIfTI); voxel coordinates count from the centre of
the first voxel. Orienting, resampling, cropping and padding are all the same step between
two grids, and undoing one is the same step with the grids exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = [
    "Array",
    "Forms",
    "Grid",
    "axes_of",
    "canonical_grid",
    "centred_grid",
    "covered",
    "overlap",
    "resample",
    "sample",
]

Array = NDArray[Any]

_SHEAR_TOLERANCE = 0.02  # voxels of drift over the whole image that count as axis-aligned
_PART = 2**25  # voxels that are resampled at a time
_MOST_RUNS = 4  # more parts at equal distances are not worth the calls
_STRAIGHT = 2e-4  # of a unit vector: 0.01 degrees are rounding
_COARSER = 1.5  # source voxels in a target voxel from which on the source is thinned first
_SIGMA_PER_RATIO = 0.4247  # half-width at half maximum of the target voxel, as a sigma


@dataclass(frozen=True, eq=False)
class Forms:
    """How a NIfTI header says where voxels lie: twice, each with a code for the space.

    Attributes:
        sform, qform: (4, 4), voxel coordinates to RAS+ millimetres.
        sform_code, qform_code: as NIfTI defines them; 0: not set.
    """

    sform: NDArray[np.float64]
    sform_code: int
    qform: NDArray[np.float64]
    qform_code: int


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular lattice of voxels in the scanner's space.

    Attributes:
        shape: voxels along the three axes.
        affine: (4, 4), voxel coordinates to RAS+ millimetres.
        forms: of the file that it was read from, for what is written on the same grid. Two grids
            are equal whatever their forms; a part of a grid has none.

    >>> grid = Grid((4, 5, 6), np.diag([2.0, 2.0, 2.0, 1.0]))
    >>> grid.spacing
    (2.0, 2.0, 2.0)
    >>> grid.crop((1, 1, 1), (3, 3, 3)).to_world([[0, 0, 0]]).tolist()
    [[2.0, 2.0, 2.0]]
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    forms: Forms | None = None

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise ValueError(f"an affine is a (4, 4) matrix, got shape {affine.shape}")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"a grid has three positive edges, got {self.shape}")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Grid):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.affine, other.affine)

    def __hash__(self) -> int:
        return hash((self.shape, (self.affine + 0.0).tobytes()))  # -0.0 equals 0.0

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Edge lengths of a voxel, in millimetres."""
        edges = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return (float(edges[0]), float(edges[1]), float(edges[2]))

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in cubic millimetres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def obliquity(self) -> float:
        """The largest angle between an axis of the grid and its nearest world axis, degrees."""
        cosines = np.abs(self.affine[:3, :3]) / np.array(self.spacing)
        return float(np.degrees(np.arccos(np.clip(cosines.max(axis=0), -1, 1))).max())

    @property
    def shear(self) -> float:
        """The largest angle by which two axes of the grid miss being perpendicular, degrees.

        >>> Grid((2, 2, 2), np.diag([1.0, -2.0, 3.0, 1.0])).shear
        0.0
        """
        unit = self.affine[:3, :3] / np.array(self.spacing)
        cosines = (unit.T @ unit)[[0, 0, 1], [1, 2, 2]]
        return float(np.degrees(np.arcsin(np.clip(np.abs(cosines), 0, 1))).max())

    @property
    def orientation(self) -> str:
        """The three axis codes, such as ``LPS``: towards which side each index grows."""
        unit = self.affine[:3, :3] / np.array(self.spacing)
        codes = []
        for axis in range(3):
            world = int(np.argmax(np.abs(unit[:, axis])))
            codes.append(("LR", "PA", "IS")[world][int(unit[world, axis] > 0)])
        return "".join(codes)

    def to_world(self, voxels: Sequence[Sequence[float]] | Array) -> NDArray[np.float64]:
        """Voxel coordinates (N, 3) to RAS+ millimetres (N, 3)."""
        moved: NDArray[np.float64] = (
            np.asarray(voxels, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]
        )
        return moved

    def to_voxel(self, points: Sequence[Sequence[float]] | Array) -> NDArray[np.float64]:
        """RAS+ millimetres (N, 3) to voxel coordinates (N, 3)."""
        inverse = np.linalg.inv(self.affine)
        moved: NDArray[np.float64] = (
            np.asarray(points, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
        )
        return moved

    def corners(self) -> NDArray[np.float64]:
        """The eight outer corners of the field of view, RAS+ millimetres (8, 3)."""
        ends = [(-0.5, edge - 0.5) for edge in self.shape]
        return self.to_world(list(product(*ends)))

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> Grid:
        """The part from voxel ``start`` up to, not including, ``stop``; may reach outside."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_world([list(start)])[0]
        shape = tuple(int(b) - int(a) for a, b in zip(start, stop, strict=True))
        return Grid((shape[0], shape[1], shape[2]), affine)

    def part(self, box: Sequence[slice]) -> Grid:
        """The grid of a box."""
        return self.crop([side.start for side in box], [side.stop for side in box])


def axes_of(grid: Grid) -> NDArray[np.float64]:
    """(3, 3) unit vectors towards right, front and top as columns, along the scan's own axes.

    The header of a head may be tilted; the scan's own axes stay with the head. Those of a
    sheared scan are the nearest that are at right angles.

    >>> axes_of(Grid((2, 2, 2), np.array([[0, -2, 0, 0], [3, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])
    ... )).tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    unit = grid.affine[:3, :3] / np.array(grid.spacing)
    u, _, v = np.linalg.svd(unit)
    nearest = u @ v
    order = max(permutations(range(3)), key=lambda o: np.abs(nearest[range(3), list(o)]).prod())
    axes: NDArray[np.float64] = nearest[:, list(order)]
    axes = axes * np.sign(np.diag(axes))
    straight = np.abs(axes - np.eye(3)).max() < _STRAIGHT
    return np.eye(3) if straight else np.round(axes, 9)


def canonical_grid(
    source: Grid, spacing: float, *, axes: NDArray[np.float64] | None = None
) -> Grid:
    """The RAS+ grid, parallel to the world's axes, that holds the whole of ``source``.

    The grid depends on the field of view alone, so a scan stored in another orientation
    gets the same one.

    Args:
        axes: (3, 3) other axes than the world's, as of :func:`axes_of`.

    >>> flipped = Grid((10, 10, 10), np.diag([-1.0, 1.0, 1.0, 1.0]))
    >>> canonical_grid(flipped, 2.0).orientation
    'RAS'
    """
    axes = None if axes is not None and np.array_equal(axes, np.eye(3)) else axes
    corners = source.corners() if axes is None else source.corners() @ axes
    low, high = corners.min(axis=0), corners.max(axis=0)
    edges = np.maximum(np.round((high - low) / spacing - 1e-6), 1).astype(int)
    start = (low + high) / 2 - (edges - 1) * spacing / 2
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = start
    shape = (int(edges[0]), int(edges[1]), int(edges[2]))
    return Grid(shape, affine if axes is None else _turn(axes) @ affine)


def centred_grid(
    centre: Sequence[float] | Array,
    shape: tuple[int, int, int],
    spacing: float,
    *,
    axes: NDArray[np.float64] | None = None,
) -> Grid:
    """The RAS+ grid of the given shape whose middle is ``centre`` (RAS+ millimetres).

    Args:
        axes: (3, 3) other axes than the world's, as of :func:`axes_of`.
    """
    middle = np.asarray(centre, dtype=np.float64)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    if axes is None or np.array_equal(axes, np.eye(3)):
        affine[:3, 3] = middle - (np.array(shape) - 1) * spacing / 2
    else:
        affine[:3, :3] = axes * spacing
        affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def _turn(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, 4): from coordinates along ``axes`` to those of the world."""
    turn = np.eye(4)
    turn[:3, :3] = axes
    return turn


def overlap(part: Grid, whole: Grid) -> tuple[slice, slice, slice] | None:
    """The voxels of ``whole`` whose centres can lie inside ``part``; None if there are none."""
    voxels = whole.to_voxel(part.corners())
    start = np.maximum(np.ceil(voxels.min(axis=0) - 1e-6), 0).astype(int)
    stop = np.minimum(np.floor(voxels.max(axis=0) + 1e-6) + 1, whole.shape).astype(int)
    if np.any(stop <= start):
        return None
    a, b, c = (slice(int(i), int(j)) for i, j in zip(start, stop, strict=True))
    return a, b, c


def covered(source: Grid, target: Grid) -> NDArray[np.bool_]:
    """Which voxels of ``target`` have their centre in the field of view of ``source``."""
    return _inside(np.linalg.inv(source.affine) @ target.affine, source.shape, target.shape)


def resample(
    data: Array, source: Grid, target: Grid, *, order: int = 1, fill: float = 0.0
) -> Array:
    """Carry an array from one grid to another.

    Args:
        data: (*source.shape) or (channels, *source.shape).
        order: 0 takes the nearest voxel (labels; keeps the type), 1 interpolates linearly
            and averages where the target is coarser (float32).
        fill: the value outside the source's field of view.

    Returns:
        (*target.shape) or (channels, *target.shape).

    Raises:
        ValueError: the array is not on ``source``, or the order is neither 0 nor 1.
    """
    if data.shape[-3:] != source.shape or data.ndim not in (3, 4):
        raise ValueError(f"an array of shape {data.shape} is not on a grid of {source.shape}")
    if order not in (0, 1):
        raise ValueError(f"order must be 0 or 1, got {order}")
    if order == 1:
        data = data.astype(np.float32, copy=False)
    if source == target:
        return data.copy()
    step = np.linalg.inv(source.affine) @ target.affine  # target voxel -> source voxel
    axes = _aligned_axes(step, target.shape)
    if axes is None:
        thin = _thinned(source, step) if order == 1 else source
        if thin != source:
            data, source = resample(data, source, thin), thin
            step = np.linalg.inv(source.affine) @ target.affine
        return _resample_oblique(data, step, target.shape, order=0 if order == 0 else 1, fill=fill)
    return _resample_aligned(data, step, axes, target.shape, order=order, fill=fill)


def sample(data: Array, source: Grid, points: Array, *, fill: float = 0.0) -> NDArray[np.float32]:
    """The values of an array at any points, interpolated linearly.

    Args:
        data: (*source.shape) or (channels, *source.shape).
        points: (3, ...), RAS+ millimetres.
        fill: the value outside the source's field of view.

    Returns:
        (...) or (channels, ...), the shape of the points.

    Raises:
        ValueError: the array is not on ``source``.
    """
    if data.shape[-3:] != source.shape or data.ndim not in (3, 4):
        raise ValueError(f"an array of shape {data.shape} is not on a grid of {source.shape}")
    places = source.to_voxel(points.reshape(3, -1).T).T
    edges = np.array(source.shape)[:, None]
    inside = ((places > -0.5 - 1e-6) & (places < edges - 0.5 + 1e-6)).all(axis=0)
    within = places[:, inside]
    channels = (data if data.ndim == 4 else data[None]).astype(np.float32, copy=False)
    out = np.full((len(channels), places.shape[1]), fill, dtype=np.float32)
    for channel, values in zip(channels, out, strict=True):
        values[inside] = ndimage.map_coordinates(channel, within, order=1, mode="nearest")
    whole = out.reshape(len(channels), *points.shape[1:])
    return whole if data.ndim == 4 else whole[0]


def _aligned_axes(
    step: NDArray[np.float64], shape: tuple[int, int, int]
) -> tuple[int, int, int] | None:
    """Which source axis each target axis runs along, or None where they are not parallel."""
    linear = step[:3, :3]
    axes = np.abs(linear).argmax(axis=0)
    if sorted(axes.tolist()) != [0, 1, 2]:
        return None
    drift = np.abs(linear) * np.array(shape)
    drift[axes, [0, 1, 2]] = 0
    if drift.max() > _SHEAR_TOLERANCE:
        return None
    return int(axes[0]), int(axes[1]), int(axes[2])


def _resample_aligned(
    data: Array,
    step: NDArray[np.float64],
    axes: tuple[int, int, int],
    shape: tuple[int, int, int],
    *,
    order: int,
    fill: float,
) -> Array:
    """Parallel axes: permute, then interpolate one axis after the other."""
    lead, source = data.ndim - 3, data
    data = data.transpose(*range(lead), *(lead + axis for axis in axes))
    if fill:
        data = data - np.asarray(fill, dtype=data.dtype)
    scales = [step[axes[axis], axis] for axis in range(3)]
    places = [scales[k] * np.arange(shape[k]) + step[axes[k], 3] for k in range(3)]
    if order == 0:
        data = _nearest(data, places, scales)
    else:
        # the axis that shrinks the most goes first
        for axis in sorted(range(3), key=lambda k: shape[k] / data.shape[lead + k]):
            data = _along(data, lead + axis, places[axis], scales[axis])
    if fill:
        data = data + np.asarray(fill, dtype=data.dtype)
    out = np.ascontiguousarray(data)
    return out.copy() if np.may_share_memory(out, source) else out


def _nearest(data: Array, places: Sequence[Array], scales: Sequence[float]) -> Array:
    """The voxels nearest to the given positions on the last three axes; zero outside."""
    picks, inside = [], []
    for edge, positions, scale in zip(data.shape[-3:], places, scales, strict=True):
        picks.append(np.clip(_rounded(positions, scale), 0, edge - 1))
        inside.append(_within(positions, edge))
    x, y, z = np.ix_(*picks)
    taken: Array = data[..., x, y, z]
    if not all(part.all() for part in inside):
        taken[..., ~(inside[0][:, None, None] & inside[1][:, None] & inside[2])] = 0
    return taken


def _rounded(positions: Array, scale: float) -> NDArray[np.int_]:
    """The nearest voxel; half-way between two, always the one first on the target's axis."""
    rounded: NDArray[np.int_] = np.floor(positions + (0.5 - math.copysign(1e-6, scale))).astype(int)
    return rounded


def _within(positions: Array, edge: int) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = (positions > -0.5 - 1e-6) & (positions < edge - 0.5 + 1e-6)
    return inside


def _along(data: Array, axis: int, positions: Array, scale: float) -> Array:
    """Sample one axis at the given positions; outside the field of view gives zero."""
    edge = data.shape[axis]
    nearest, inside = _rounded(positions, scale), _within(positions, edge)
    scale = abs(scale)
    if np.abs(positions - nearest).max() < 1e-4 and abs(scale - 1) < 1e-4:
        return _shifted(data, axis, nearest, inside)
    weights = _weights(positions, edge, scale)
    weights[~inside] = 0
    return _mixed(data, axis, weights)


def _shifted(data: Array, axis: int, nearest: NDArray[np.int_], inside: NDArray[np.bool_]) -> Array:
    """The voxels at consecutive places of one axis, forwards or back; zero outside.

    Nothing is copied where all of them are inside.
    """
    part = _taken(data, axis, nearest[inside])
    if inside.all():
        return part
    room = np.zeros((*data.shape[:axis], len(nearest), *data.shape[axis + 1 :]), data.dtype)
    room[(slice(None),) * axis + (inside,)] = part
    return room


def _taken(data: Array, axis: int, places: NDArray[np.int_]) -> Array:
    """Some places of one axis; a view where they lie at equal distances."""
    steps = np.diff(places)
    if not len(steps) or not steps[0] or (steps != steps[0]).any():
        return np.take(data, places, axis=axis)
    step = int(steps[0])
    stop = int(places[-1]) + step
    even = slice(int(places[0]), stop if stop >= 0 else None, step)
    view: Array = data[(*(slice(None),) * axis, even)]
    return view


def _mixed(data: Array, axis: int, weights: NDArray[np.float32]) -> Array:
    """(new edge, edge) weights times one axis of an array, for weights of few neighbours.

    The sums are written out, neighbour after neighbour: a library of linear algebra is slower
    here, and rounds differently from one processor to the next. A very large array is done in
    parts, so that it is never copied as a whole.
    """
    new, edge = weights.shape
    used = weights > 0
    first = used.argmax(axis=1)
    beyond = np.where(used.any(axis=1), edge - used[:, ::-1].argmax(axis=1), first + 1)
    taps = np.minimum(first[:, None] + np.arange(int((beyond - first).max())), edge - 1)
    shares = np.take_along_axis(weights, taps, axis=1)
    shares[:, 1:][taps[:, 1:] == taps[:, :-1]] = 0  # the last voxel counts once
    # as the array lies in memory: np.take would copy one that lies otherwise as a whole
    order = sorted(range(data.ndim), key=lambda k: -abs(data.strides[k]))
    lying, along = data.transpose(order), order.index(axis)
    out = np.empty((*lying.shape[:along], new, *lying.shape[along + 1 :]), dtype=np.float32)
    count = max(1, _PART * edge // max(data.size, 1))
    lead = (slice(None),) * along
    for start in range(0, new, count):
        rows = slice(start, start + count)
        part = out[(*lead, rows)]
        _times(lying, along, taps[rows, 0], shares[rows, 0], part)
        if taps.shape[1] > 1:
            term = np.empty_like(part)
        for tap in range(1, taps.shape[1]):
            _times(lying, along, taps[rows, tap], shares[rows, tap], term)
            part += term
    return out.transpose(np.argsort(order))


def _times(
    data: Array, axis: int, places: NDArray[np.int_], shares: NDArray[np.float32], out: Array
) -> None:
    """Write the given places of one axis, times a share each, into ``out``.

    Those at equal distances are not copied before: at the ends some may be closer.
    """
    lead = (slice(None),) * axis
    for rows in _even_runs(places):
        taken = _taken(data, axis, places[rows])
        share = shares[rows].reshape(-1, *(1,) * (data.ndim - axis - 1))
        np.multiply(taken, share, out=out[(*lead, rows)])


def _even_runs(places: NDArray[np.int_]) -> list[slice]:
    """Parts of places at equal distances; all of them at once if the parts would be many.

    >>> _even_runs(np.array([0, 0, 2, 4, 6, 8, 9]))
    [slice(0, 2, None), slice(2, 6, None), slice(6, 7, None)]
    """
    cuts: list[int] = []
    steps = np.diff(places)
    for place in np.flatnonzero(np.diff(steps)) + 2:
        if not cuts or place > cuts[-1] + 1:
            cuts.append(int(place))
    if len(cuts) > _MOST_RUNS:
        return [slice(0, len(places))]
    return [slice(*ends) for ends in zip([0, *cuts], [*cuts, len(places)], strict=True)]


def _weights(positions: Array, edge: int, scale: float) -> NDArray[np.float32]:
    """(len(positions), edge): triangles one target voxel wide, or one source voxel if finer."""
    width = max(scale, 1.0)
    clipped = np.clip(positions, 0, edge - 1)
    distance = np.abs(clipped[:, None] - np.arange(edge)[None]) / width
    weights = np.maximum(1 - distance, 0)
    normal: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return normal


def _thinned(source: Grid, step: NDArray[np.float64]) -> Grid:
    """The same field of view with the voxels that a much coarser target can tell apart.

    Averaging along the source's own axes first is many times faster than smoothing it all.
    """
    ratio = np.abs(step[:3, :3]).max(axis=1)
    edges = np.array(source.shape)
    fewer = np.where(ratio >= _COARSER, np.ceil(edges / ratio), edges).astype(int)
    factor = edges / fewer
    affine = source.affine.copy()
    affine[:3, 3] = source.to_world([(factor - 1) / 2])[0]
    affine[:3, :3] *= factor
    return Grid((int(fewer[0]), int(fewer[1]), int(fewer[2])), affine)


def _resample_oblique(
    data: Array,
    step: NDArray[np.float64],
    shape: tuple[int, int, int],
    *,
    order: Literal[0, 1],
    fill: float,
) -> Array:
    """Axes at an angle: smooth where the target is coarser, then interpolate in 3D."""
    ratio = np.abs(step[:3, :3]).max(axis=1)
    sigma = np.where(ratio > 1.05, _SIGMA_PER_RATIO * np.sqrt(np.maximum(ratio**2 - 1, 0)), 0.0)
    inside = _inside(step, data.shape[-3:], shape)
    channels = data if data.ndim == 4 else data[None]
    out = np.empty((len(channels), *shape), dtype=data.dtype)
    for channel, result in zip(channels, out, strict=True):
        if order == 1 and sigma.any():
            channel = ndimage.gaussian_filter(channel, sigma, mode="nearest")
        ndimage.affine_transform(
            channel,
            step[:3, :3],
            step[:3, 3],
            output_shape=shape,
            output=result,
            order=order,
            mode="nearest",
        )
        result[~inside] = fill
    return out if data.ndim == 4 else out[0]


def _inside(
    step: NDArray[np.float64], edges: Sequence[int], shape: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """(*shape): which target voxels have their centre in the source's field of view."""
    inside = np.ones(shape, dtype=bool)
    i, j, k = np.ogrid[tuple(slice(edge) for edge in shape)]
    for (a, b, c, offset), edge in zip(step[:3], edges, strict=True):
        position = a * i + b * j + c * k + offset
        inside &= (position > -0.5 - 1e-6) & (position < edge - 0.5 + 1e-6)
    return inside
