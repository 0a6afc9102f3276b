"""How much of each label's probability lies where which label was chosen.

From these few numbers follows the confidence of any label, and of any union of labels, without
looking at the posteriors again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.imaging.grid import Array
from deepmrseg_bids.tasks.results import Box, Posteriors, box_above

__all__ = ["SoftCounts", "count"]

_NEVER = 1e-3  # a probability below is none


@dataclass(frozen=True, eq=False)
class SoftCounts:
    """Chosen labels beside posteriors, in voxels of the posteriors.

    Attributes:
        indices: (labels,) of all labels but the background.
        sizes: (labels,) voxels of each label.
        shared: (labels, labels) the probability of the second label in the voxels of the first.
        total: (labels,) the probability of each label, everywhere.
    """

    indices: tuple[int, ...]
    sizes: NDArray[np.float64]
    shared: NDArray[np.float64]
    total: NDArray[np.float64]

    def expected_dice(self, labels: Collection[int]) -> float | None:
        """The Dice of a union of labels that the posteriors promise; None if none was chosen.

        See :func:`deepmrseg_bids.tasks.results.expected_dice`.
        """
        rows = [place for place, index in enumerate(self.indices) if index in labels]
        size = float(self.sizes[rows].sum())
        if size == 0:
            return None
        inside = float(self.shared[np.ix_(rows, rows)].sum())
        return 2 * inside / (size + float(self.total[rows].sum()))

    def confidences(self) -> dict[int, float | None]:
        """The confidence of each label, by its index."""
        return {index: self.expected_dice((index,)) for index in self.indices}


def count(posteriors: Posteriors) -> SoftCounts:
    """Count once what every confidence is made of."""
    sides = posteriors.sides
    paired = {} if sides is None else sides.left_of
    indices = tuple(sorted({*posteriors.indices[1:], *paired.values()}))
    kind = np.min_scalar_type(len(indices))
    place = np.full(max(indices) + 1, len(indices), dtype=kind)  # the last is the background
    place[list(indices)] = np.arange(len(indices))
    chosen = place[posteriors.chosen()]
    shared = np.zeros((len(indices) + 1, len(indices)))
    for index, box, share in _shares(posteriors):
        where = chosen[box].ravel()
        shared[:, place[index]] = np.bincount(where, share.ravel(), minlength=len(shared))
    sizes = np.bincount(chosen.ravel(), minlength=len(shared))[:-1].astype(np.float64)
    return SoftCounts(indices, sizes, shared[:-1], shared.sum(axis=0))


def _shares(posteriors: Posteriors) -> Iterator[tuple[int, Box, Array]]:
    """Each label with the box outside of which it is out of the question, and what is in it."""
    sides = posteriors.sides
    for index, data in zip(posteriors.indices[1:], posteriors.data[1:], strict=True):
        box = box_above(data, _NEVER)
        if box is None:
            continue
        whole = data[box]
        if sides is None or index not in sides.left_of:
            yield index, box, whole
            continue
        right = whole * sides.right[box]
        yield index, box, right
        yield sides.left_of[index], box, whole - right
