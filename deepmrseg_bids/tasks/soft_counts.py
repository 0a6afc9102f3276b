"""How much of each label's probability lies where which label was chosen.

From these few numbers follows the confidence of any label, and of any union of labels, without
looking at the posteriors again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.imaging.grid import Array
from deepmrseg_bids.imaging.morphology import box_above
from deepmrseg_bids.tasks.results import Posteriors

__all__ = ["SoftCounts", "count"]

_SMALL = 0.02  # a probability below is not looked for in the voxels of other labels


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
    total, one = np.zeros(len(indices)), posteriors.one
    for index, whole in zip(posteriors.indices[1:], posteriors.data[1:], strict=True):
        own = place[index]
        right = sides.right if sides is not None and index in sides.left_of else None
        total[own] = float(whole.sum(dtype=np.float64)) / one
        if right is not None:  # what is not on the right is on the left
            on_right = _sum_of_product(whole, right) / one
            total[own], total[place[paired[index]]] = on_right, total[own] - on_right
        if (box := box_above(whole, _SMALL * one)) is None:
            continue
        where, share = chosen[box].ravel(), whole[box] / np.float32(one)
        among = np.bincount(where, share.ravel(), minlength=len(shared))
        shared[:, own] = among
        if right is not None:
            share *= right[box]
            among_right = np.bincount(where, share.ravel(), minlength=len(shared))
            shared[:, own], shared[:, place[paired[index]]] = among_right, among - among_right
    sizes = np.bincount(chosen.ravel(), minlength=len(shared))[:-1].astype(np.float64)
    return SoftCounts(indices, sizes, shared[:-1], total)


def _sum_of_product(one: Array, other: Array) -> float:
    """Line by line in single precision."""
    return float(np.einsum("ijk,ijk->i", one, other, dtype=np.float32).sum(dtype=np.float64))
