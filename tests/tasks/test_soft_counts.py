"""Confidences of labels and of unions of labels, from what was counted once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.tasks.results import Posteriors, Sides, expected_dice, label_map, labels_at
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


def test_packed_posteriors_give_the_same_labels_and_confidences() -> None:
    found = posteriors(sides=True)
    packed = replace(found, data=np.rint(found.data * 65535).astype(np.uint16))
    np.testing.assert_array_equal(packed.chosen(), found.chosen())
    for index in (35, 36, 37, 48):
        np.testing.assert_allclose(packed.of(index), found.of(index), atol=1e-5)
        assert count(packed).expected_dice({index}) == pytest.approx(
            count(found).expected_dice({index}), abs=1e-4
        )
    other = Grid((15, 12, 10), np.diag([0.8, 0.8, 0.8, 1.0]))
    one, two = label_map(found, other).data, label_map(packed, other).data
    assert (one == two).mean() > 0.999
    points = other.to_world(np.indices(other.shape).reshape(3, -1).T).T
    assert (labels_at([packed], points) == labels_at([found], points)).mean() > 0.999


def test_what_was_not_chosen_has_no_confidence() -> None:
    found = posteriors()
    found.data[3] = 0
    counts = count(found)
    assert counts.expected_dice({47}) is None and counts.confidences()[47] is None
    assert counts.expected_dice({99}) is None
    assert counts.expected_dice({35, 47}) is not None
