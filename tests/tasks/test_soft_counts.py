"""Confidences of labels and of unions of labels, from what was counted once."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.tasks.results import Posteriors, Sides, expected_dice
from deepmrseg_bids.tasks.soft_counts import count

SHAPE = (12, 10, 8)


def posteriors(sides: bool = False) -> Posteriors:
    rng = np.random.default_rng(0)
    data = rng.dirichlet((0.4, 0.4, 0.4, 0.4), SHAPE).astype(np.float32)
    data = np.ascontiguousarray(np.moveaxis(data, -1, 0))
    right = rng.random(SHAPE, dtype=np.float32)
    both = Sides(right, {36: 37, 47: 48}) if sides else None
    return Posteriors(data, Grid(SHAPE, np.eye(4)), (0, 35, 36, 47), both)


@pytest.mark.parametrize("sides", [False, True])
@pytest.mark.parametrize("union", [{35}, {36, 47}, {36, 37}, {35, 37, 48}, {35, 36, 37, 47, 48}])
def test_the_confidence_of_a_union_is_that_of_its_labels_taken_as_one(union, sides) -> None:
    found = posteriors(sides)
    if not sides and union & {37, 48}:
        union = {35, 36}
    together = sum(part for index in union if (part := found.of(index)) is not None)
    expected = expected_dice(together, np.isin(found.chosen(), list(union)))
    # a probability below 0.001 far from its structure counts as none
    assert count(found).expected_dice(union) == pytest.approx(expected, abs=2e-3)


def test_what_was_not_chosen_has_no_confidence() -> None:
    found = posteriors()
    found.data[3] = 0
    counts = count(found)
    assert counts.expected_dice({47}) is None and counts.confidences()[47] is None
    assert counts.expected_dice({99}) is None
    assert counts.expected_dice({35, 47}) is not None
