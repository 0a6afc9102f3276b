"""Masks grown, dilated, eroded, closed and filled are those of SciPy's binary operations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from deepmrseg_bids.imaging.morphology import (
    box_above,
    box_of,
    closed,
    dilated,
    eroded,
    filled,
    grown,
    largest,
)

masks = st.builds(
    lambda seed, shape, share, order: np.array(
        np.random.default_rng(seed).random(shape) < share, order=order
    ),
    st.integers(0, 10_000),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from([0.0, 0.05, 0.3, 0.6, 0.95, 1.0]),
    st.sampled_from("CF"),  # as in memory, and as in files
)


@given(masks, st.integers(1, 3))
def test_below_zero_what_is_outside_grows(mask: NDArray[np.bool_], voxels: int) -> None:
    expected = ~ndimage.binary_dilation(~mask, np.ones((3, 3, 3)), iterations=voxels)
    np.testing.assert_array_equal(grown(mask, -voxels), expected)


@given(masks, st.integers(0, 4))
def test_a_mask_grows_to_a_cube_around_every_voxel(mask: NDArray[np.bool_], voxels: int) -> None:
    expected = mask
    if voxels:
        expected = ndimage.binary_dilation(mask, np.ones((3, 3, 3)), iterations=voxels)
    np.testing.assert_array_equal(grown(mask, voxels), expected)


@given(masks, st.integers(1, 4))
def test_a_mask_is_dilated_and_eroded_through_faces(mask: NDArray[np.bool_], steps: int) -> None:
    wider = ndimage.binary_dilation(mask, iterations=steps)
    np.testing.assert_array_equal(dilated(mask, steps), wider)
    np.testing.assert_array_equal(eroded(mask, steps), ndimage.binary_erosion(mask, None, steps))
    np.testing.assert_array_equal(dilated(mask, 0), mask)
    np.testing.assert_array_equal(eroded(mask, 0), mask)


@given(masks, st.tuples(*[st.integers(0, 3)] * 3))
def test_closing_is_as_if_there_was_room_around(
    mask: NDArray[np.bool_], voxels: tuple[int, int, int]
) -> None:
    room = np.pad(mask, 4)
    whole = ndimage.binary_closing(room, np.ones([2 * n + 1 for n in voxels]))
    np.testing.assert_array_equal(closed(mask, voxels), whole[4:-4, 4:-4, 4:-4])


@given(masks, st.sampled_from([np.uint16, np.float32]))
def test_the_box_above_a_number_is_that_of_the_mask(mask: NDArray[np.bool_], kind: type) -> None:
    data = np.where(mask, 3, 1).astype(kind)
    assert box_above(data, 1.5) == box_of(mask)
    assert box_above(data, 3) is None


@given(masks)
def test_holes_are_filled(mask: NDArray[np.bool_]) -> None:
    np.testing.assert_array_equal(filled(mask), ndimage.binary_fill_holes(mask))


@pytest.mark.parametrize("size", [0, 1, 3])
def test_the_largest_part_is_kept(size: int) -> None:
    mask = np.zeros((9, 9, 9), dtype=bool)
    mask[1 : 1 + size, 1, 1] = True
    mask[7, 7, 7] = size > 1
    assert largest(mask).sum() == size and not largest(mask)[7, 7, 7]
