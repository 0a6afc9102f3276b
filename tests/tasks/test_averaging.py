"""The mean of what two networks say of the structures that both know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import centred_grid
from deepmrseg_bids.tasks.averaging import average_in
from deepmrseg_bids.tasks.results import Posteriors
from tests.support import stored_as

BOX = centred_grid((3.0, -5.0, 8.0), (20, 22, 24), 1.0)
CROP = BOX.crop((4, 5, 6), (16, 17, 30))  # reaches beyond the box
INSIDE = (slice(4, 16), slice(5, 17), slice(6, 24))
SAME = {1: 36, 2: 36, 5: 35}  # both caudates are one class of the first network
KNOWN = (0, 44, 35, 36)


def probabilities(classes, shape, seed):
    share = np.random.default_rng(seed).random((classes, *shape)) ** 3
    return (share / share.sum(axis=0)).astype(np.float32)


def first():
    return Posteriors(probabilities(4, BOX.shape, 1), BOX, KNOWN)


def second(grid=CROP):
    return Posteriors(probabilities(4, grid.shape, 2), grid, (0, 1, 2, 5))


def averaged(found, other, same=SAME):
    after = replace(found, data=found.data.copy())
    average_in(after, other, same)
    return after


def test_a_structure_of_both_gets_the_mean_of_both():
    one, other = first(), second()
    after = averaged(one, other).data[(slice(None), *INSIDE)]
    before, seen = one.data[(slice(None), *INSIDE)], other.data[:, :, :, :18]
    np.testing.assert_allclose(after[3], (before[3] + seen[1] + seen[2]) / 2, atol=1e-5)
    np.testing.assert_allclose(after[2], (before[2] + seen[3]) / 2, atol=1e-5)


def test_probabilities_still_sum_to_one_and_the_others_share_what_is_left_as_before():
    one = first()
    after = averaged(one, second()).data
    np.testing.assert_allclose(after.sum(axis=0), 1, atol=5e-5)
    shared = one.data[0] + one.data[1] > 2e-3
    ahead, behind = after[0] * one.data[1], after[1] * one.data[0]
    np.testing.assert_allclose(ahead[shared], behind[shared], atol=1e-5)
    assert not np.allclose(after[1], one.data[1], atol=0.05)


def test_outside_the_crop_nothing_changes():
    one = first()
    changed = (averaged(one, second()).data != one.data).any(axis=0)
    assert changed[INSIDE].any()
    changed[INSIDE] = False
    assert not changed.any()


def test_where_the_first_network_was_certain_the_background_gets_what_is_left():
    data = np.zeros((4, *BOX.shape), np.float32)
    data[3] = 1
    other = replace(second(), data=probabilities(4, CROP.shape, 2)[[1, 0, 2, 3]] * 0.4)
    other.data[1] += 0.6
    after = averaged(Posteriors(data, BOX, KNOWN), other).data[(slice(None), *INSIDE)]
    np.testing.assert_allclose(after[0], 1 - after[2] - after[3], atol=1e-5)
    assert (after[0] > 0.1).any() and not after[1].any()


def test_a_structure_that_the_other_does_not_see_stays_as_it_is():
    one, other = first(), second()
    missed = other.data.copy()
    missed[3] *= 0.4
    after = averaged(one, replace(other, data=missed), {5: 35}).data
    np.testing.assert_allclose(after, one.data, atol=1e-6)
    assert not np.allclose(averaged(one, other, {5: 35}).data, one.data, atol=1e-6)


@pytest.mark.parametrize("codes", ["LPS", "IRP"])
def test_the_axes_of_the_other_do_not_matter(codes):
    one, other = first(), second()
    turned = [stored_as(share, CROP, codes) for share in other.data]
    again = Posteriors(np.stack([data for data, _ in turned]), turned[0][1], other.indices)
    np.testing.assert_allclose(averaged(one, again).data, averaged(one, other).data, atol=1e-5)


def test_packed_probabilities_get_the_same():
    one, other = first(), second()
    packed = replace(one, data=np.rint(one.data * 65535).astype(np.uint16))
    after = averaged(packed, other)
    np.testing.assert_allclose(after.data / 65535, averaged(one, other).data, atol=3e-3)
    assert np.median(np.abs(after.data / 65535 - averaged(one, other).data)) < 1e-5


def test_another_network_elsewhere_changes_nothing():
    one = first()
    far = centred_grid((300.0, 0.0, 0.0), (8, 8, 8), 1.0)
    assert np.array_equal(averaged(one, second(far)).data, one.data)
