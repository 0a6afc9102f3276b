"""Where a hippocampus lies: crops that follow what the network finds.

``deepbrain`` says how large a hippocampus is and where to look first. Where it lies, the
network says: the shape that ``deepbrain`` saw is laid over what was found as well as it fits,
the crop is cut around that, and so on until it stays where it is. Crops lie on one lattice of
the scan, so searches that begin some millimetres apart end in the same crop. A search looks at
one window in the middle of its crop; what counts is the last look, at all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Array, Grid, axes_of, canonical_grid, resample
from deepmrseg_bids.imaging.intensity import normalise
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.tasks.results import Posteriors, largest_parts

if TYPE_CHECKING:
    from deepmrseg_bids.inference.predictor import Predictor

__all__ = ["CLASSES", "SMALLEST", "WHOLE", "Search", "best_fit", "search_all"]

WHOLE = {"left": "Left-Hippocampus", "right": "Right-Hippocampus"}
SMALLEST = 50  # voxels of 1 mm that make a hippocampus worth looking at
CLASSES = {"left": (1, 2), "right": (3, 4)}
_PASSES = 6  # looks at most; two to four are usual
_LOSS = 0.7  # of what was found so far: a look that finds less is not followed
_NOT_CONVERGED = 2  # voxels that a crop may be off after the last look without a word
_DRIFT_MM = 12.0  # a hippocampus further from where deepbrain saw it is doubtful
_BLUR_MM = 2.0  # of the shape, so that it fits best in one place
_REACH_MM, _SPREAD = 6.0, 1.25  # see Search._borrowed
_ROOM = 16  # voxels: no crop moves further than this

_Start = tuple[int, int, int]  # the first voxel of a crop, on the lattice of its side


def search_all(searches: Sequence[Search], predictor: Predictor) -> None:
    """Let every search come to rest, and then look at the whole of each crop.

    Both sides go through the network together, also when one has come to rest: a batch of
    one takes longer (see :meth:`Predictor.many`).
    """
    for _ in range(_PASSES):
        if all(search.converged for search in searches):
            break
        answers = predictor.many([search.window() for search in searches])
        for search, answer in zip(searches, answers, strict=True):
            if not search.converged:
                search.take(answer)
    if any(search.rim.any() for search in searches):  # else the window was the whole crop
        answers = predictor.many([search.crop(search.found_at) for search in searches])
        for search, answer in zip(searches, answers, strict=True):
            search.last = search.parts(answer, search.found_at)


class Search:
    """The way to one hippocampus.

    Attributes:
        place: where to look next.
        converged: whether the search is over.
        looks: how much was found so far at each place, and what, in order.
        found_at: where most was found.
        last: the posteriors of the whole crop there.
        rim: (3,) voxels of a crop beyond the window of a look, on either side.
    """

    last: Posteriors | None = None

    def __init__(
        self,
        volume: Volume,
        seen: NDArray[np.bool_],
        grid: Grid,
        side: str,
        preparation: Preparation,
    ) -> None:
        self.side, self.preparation = side, preparation
        self.lattice = canonical_grid(volume.grid, preparation.spacing, axes=axes_of(grid))
        if side == "right":
            self.lattice = _mirrored(self.lattice)
        points = self.lattice.to_voxel(grid.to_world(np.argwhere(seen)))
        low, high = np.percentile(points, (0.5, 99.5), axis=0)
        shape = np.array(preparation.shape)
        corner = (low + high) / 2 - (shape - 1) / 2
        a, b, c = np.round(corner).astype(int).tolist()
        self.place = self.first = (a, b, c)
        # its middle is that of the crop, wherever the lattice lies
        window = np.array(preparation.window)
        self.rim = (shape - np.where(window > 0, np.minimum(window, shape), shape)) // 2
        outline = resample(seen.astype(np.float32), grid, self._grid(corner, -self.rim))
        self.outline = ndimage.gaussian_filter(outline, _BLUR_MM / preparation.spacing)
        # the training crops leave a margin around their labels; beyond it is nothing
        edges = np.ceil(np.round(high - low, 3)).astype(int) + 2 * preparation.margin
        room = np.maximum((shape - edges) // 2, 0)
        self.box = tuple(slice(int(r), int(n - r)) for r, n in zip(room, shape, strict=True))
        room = np.full(3, _ROOM)
        self.around = resample(volume.data, volume.grid, self._grid(self.place, room))
        self.scale = self._borrowed()
        self.looks: dict[_Start, tuple[float, Posteriors]] = {}
        self.converged, self.off, self.found_at = False, 0, self.place

    def _grid(self, start: Sequence[float] | Array, room: NDArray[np.int64]) -> Grid:
        """The crop that begins at a place, with some room around it."""
        affine = self.lattice.affine.copy()
        affine[:3, 3] = self.lattice.to_world(np.array([start]) - room)[0]
        a, b, c = (np.array(self.preparation.shape) + 2 * room).tolist()
        return Grid((a, b, c), affine)

    def _image(self, start: _Start) -> Array:
        offset = np.subtract(start, self.first) + _ROOM
        edges = zip(offset, self.preparation.shape, strict=True)
        image: Array = self.around[tuple(slice(int(a), int(a) + n) for a, n in edges)]
        return image

    def _moved(self, step: Array) -> _Start:
        """The place some voxels away, if there is room for it."""
        reach = np.clip(np.subtract(self.place, self.first) + step, -_ROOM, _ROOM)
        a, b, c = (np.array(self.first) + reach).tolist()
        return int(a), int(b), int(c)

    def _borrowed(self) -> tuple[float, float] | None:
        """The intensities by which to see the first crop, if its own will not do.

        A box that reaches out of the brain holds bone and air: its spread is too large, and
        the network finds little. Of the boxes around it the one with the least spread holds
        brain alone (one with hardly any holds no brain). If the difference is large, its mean
        and deviation are taken.
        """
        reach = round(_REACH_MM / self.preparation.spacing)
        steps = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)]) * reach
        figures = []
        for step in steps:
            values = self._image(self._moved(step))[self.box]
            inner = np.clip(values, *np.percentile(values, (0.5, 99.5)))
            figures.append((float(inner.mean()), float(inner.std())))
        own = figures[0][1]
        least = min((f for f in figures if f[1] >= own / 2), key=lambda figure: figure[1])
        return least if least[1] * _SPREAD < own else None

    def crop(self, start: _Start) -> NDArray[np.float32]:
        """What the network is to see: one hippocampus, cut as the training crops were."""
        image = self._image(start)
        inside = np.zeros(image.shape, dtype=bool)
        inside[self.box] = True
        seen = normalise(image, mode="crop", mask=inside)
        if self.scale:
            mean, deviation = self.scale
            seen[self.box] = np.clip((image[self.box] - mean) / deviation, -5, 5)
        return seen

    def window(self) -> NDArray[np.float32]:
        """The middle of the crop at the place to look at next, as large as a training crop."""
        inner = tuple(slice(int(r), -int(r) or None) for r in self.rim)
        return self.crop(self.place)[inner]

    def parts(
        self, answer: NDArray[np.float32], start: _Start, room: NDArray[np.int64] | None = None
    ) -> Posteriors:
        """An answer of the network about the crop at a place, cleaned."""
        grid = self._grid(start, np.zeros(3, np.int64) if room is None else room)
        return largest_parts(Posteriors(answer, grid, (0, *CLASSES[self.side])))

    def take(self, answer: NDArray[np.float32]) -> None:
        """Learn from what was found at a place where to look next."""
        found = self.parts(answer, self.place, -self.rim)
        sure = _largest(np.clip(1 - 2 * found.data[0], 0, 1))
        if self.scale is not None and np.count_nonzero(sure) >= SMALLEST:
            # what was seen by borrowed intensities says where it is, not what it is
            self.scale = None
            self.place = self._moved(best_fit(self.outline, sure))
            return
        mass = float(sure.sum())
        self.looks[self.place] = (mass, found)
        self.found_at = self._fullest(list(self.looks))
        if np.count_nonzero(sure) < SMALLEST or mass < _LOSS * self.looks[self.found_at][0]:
            self.converged = True  # nothing to go by, or a way that leads off
            return
        step = best_fit(self.outline, sure)
        self.off = int(np.abs(step).max())
        self.place = self._moved(step)
        if self.place in self.looks:  # on the spot, or round and round the same few
            ring = list(self.looks)
            self.found_at = self._fullest(ring[ring.index(self.place) :])
            self.converged = True

    def _fullest(self, places: Sequence[_Start]) -> _Start:
        return max(places, key=lambda start: self.looks[start][0])

    @property
    def found(self) -> Posteriors:
        """The posteriors that stand."""
        return self.last or self.looks[self.found_at][1]

    def findings(self) -> list[Finding]:
        """What is odd about how it was found."""
        name, noticed = WHOLE[self.side], []
        drift = np.linalg.norm(np.subtract(self.found_at, self.first)) * self.preparation.spacing
        if drift > _DRIFT_MM:
            text = f"{name} was found {drift:.0f} mm from its location in deepbrain"
            noticed.append(Finding("hippocampus-far", "warning", text))
        if self.off > _NOT_CONVERGED:
            text = f"the search for {name} did not converge"
            noticed.append(Finding("hippocampus-restless", "warning", text))
        return noticed


def best_fit(outline: Array, found: Array) -> NDArray[np.int64]:
    """By how many voxels to move an outline so that it covers most of what was found, (3,)."""
    overlap = _convolved(found, outline[::-1, ::-1, ::-1])
    best = np.array(np.unravel_index(int(overlap.argmax()), overlap.shape))
    step: NDArray[np.int64] = best - np.array(outline.shape) // 2
    return step


def _convolved(one: Array, other: Array) -> Array:
    """``scipy.signal.fftconvolve(one, other, mode="same")``.

    The import of scipy.signal takes as long as a whole search.
    """
    whole = [a + b - 1 for a, b in zip(one.shape, other.shape, strict=True)]
    fast = [fft.next_fast_len(edge, real=True) for edge in whole]
    product = fft.rfftn(one, fast) * fft.rfftn(other, fast)
    starts = [(edge - a) // 2 for edge, a in zip(whole, one.shape, strict=True)]
    part = tuple(slice(low, low + a) for low, a in zip(starts, one.shape, strict=True))
    found: Array = fft.irfftn(product, fast)[part]
    return found


def _mirrored(grid: Grid) -> Grid:
    """The same voxels, the first axis running the other way."""
    affine = grid.affine.copy()
    affine[:3, 3] = grid.to_world([(grid.shape[0] - 1, 0, 0)])[0]
    affine[:3, 0] *= -1
    return Grid(grid.shape, affine)


def _largest(share: Array) -> Array:
    """The largest connected part of what is above zero."""
    pieces, count = ndimage.label(share > 0)
    if count < 2:
        return share
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.where(pieces == sizes.argmax(), share, 0)
