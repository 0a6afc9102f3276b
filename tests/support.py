"""Helpers that several test modules import."""

from __future__ import annotations

import itertools

import numpy as np

from deepmrseg_bids.geometry import Grid

ORIENTATIONS = [
    "".join(pick)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for pick in itertools.product(*axes)
]


def stored_as(data: np.ndarray, grid: Grid, codes: str) -> tuple[np.ndarray, Grid]:
    """The same RAS scan with its array permuted and flipped: axes grow towards ``codes``."""
    order = [next(k for k, pair in enumerate(("LR", "PA", "IS")) if c in pair) for c in codes]
    affine = grid.affine[:, [*order, 3]].copy()
    moved = data.transpose(order)
    for axis, code in enumerate(codes):
        if code in "LPI":
            moved = np.flip(moved, axis)
            affine[:, 3] += affine[:, axis] * (moved.shape[axis] - 1)
            affine[:, axis] *= -1
    return np.ascontiguousarray(moved), Grid(moved.shape, affine)
