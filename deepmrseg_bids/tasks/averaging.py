"""Structures that two networks know: the mean of what both say of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from deepmrseg_bids.imaging.grid import Array, overlap, resample
from deepmrseg_bids.tasks.results import Posteriors

__all__ = ["average_in"]

_MISSED = 0.5  # of what one network finds: with less, the other does not see the structure
_NOTHING = 1e-3  # of a voxel is left to the other classes


def average_in(found: Posteriors, other: Posteriors, same: Mapping[int, int]) -> None:
    """Let another network take part in what is said of some structures.

    Each of them gets the mean of both probabilities, and the other classes share what is left as
    they did before. A structure that the other network does not see stays as it is.

    Args:
        found: changed in place, as a copy would take much memory.
        other: on any grid; outside it nothing changes.
        same: the label of ``found`` for each label of ``other`` that stands for the same.
    """
    part = overlap(other.grid, found.grid)
    if part is None:
        return
    box = found.grid.part(part)
    shares = found.data[(slice(None), *part)]
    before, after = np.zeros((2, *box.shape), dtype=np.float32)
    means: dict[int, Array] = {}
    for index in dict.fromkeys(same.values()):
        number = found.indices.index(index, 1)
        own = shares[number] / np.float32(found.one)
        seen = np.zeros_like(own)
        for label, known in same.items():
            if known == index and (share := other.of(label)) is not None:
                seen += resample(share, other.grid, box)
        if seen.sum() < _MISSED * own.sum():
            continue
        means[number] = (own + seen) / 2
        before += own
        after += means[number]
    rest, left = np.maximum(1 - after, 0), 1 - before
    scale = np.where(left > _NOTHING, rest / np.maximum(left, _NOTHING), 0)
    for number, share in enumerate(shares):
        if number in means:
            _store(means[number] * found.one, share, found.one)
        elif share.any():
            _store(share * scale, share, found.one)
    _store(np.where(left > _NOTHING, shares[0], rest * found.one), shares[0], found.one)


def _store(values: Array, where: Array, one: float) -> None:
    """Write probabilities, as whole numbers where they are stored so."""
    if where.dtype.kind == "u":
        values = np.rint(values)
    np.copyto(where, np.minimum(values, one), casting="unsafe")
