"""Slices: which way they are cut, where they lie, and what a pair becomes on them."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.errors import SignalError
from deepmrseg_bids.imaging.grid import Grid, centred_grid, resample
from deepmrseg_bids.imaging.intensity import OUTSIDE
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.tasks.flair_slices import MULTIPLE, across, prepare_pair, slice_axis, slice_grid
from tests.support import stored_as
from tests.tasks.phantom import paint, tilted

BALL = (((5.0, -4.0, 3.0), (30.0, 36.0, 28.0), 1.0),)


def grid_of(*spacing: float) -> Grid:
    """A field of view of about 96 mm."""
    cube = centred_grid((0, 0, 0), (1, 1, 1), 1.0)
    shape = tuple(round(96 / edge) for edge in spacing)
    affine = cube.affine @ np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) / 2 * np.array(spacing)
    return Grid((shape[0], shape[1], shape[2]), affine)


def brain(grid: Grid) -> np.ndarray:
    return paint(grid, BALL) > 0


def scan(grid: Grid) -> Volume:
    """Brightness that tells where a voxel lies."""
    points = grid.to_world(np.indices(grid.shape).reshape(3, -1).T)
    data = (points @ [1.0, 0.1, 0.01] + 200).reshape(grid.shape)
    return Volume(data.astype(np.float32), grid)


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((1, 1, 4), 2),
        ((1, 6, 1), 1),
        ((3, 1, 1), 0),
        ((1, 1, 1), 2),
        ((1.04, 1, 1), 2),  # a tie, within five percent
        ((1.2, 1, 1), 0),
    ],
)
def test_slices_are_stacked_along_the_coarsest_axis_or_the_vertical_one(spacing, axis):
    assert slice_axis(grid_of(*spacing)) == axis


@pytest.mark.parametrize("spacing", [(1.5, 5.0, 1.5), (3.0, 1.2, 1.0)])
def test_the_prepared_grid_does_not_depend_on_how_the_scan_is_stored(orientation, spacing):
    plain = grid_of(*spacing)
    wanted = slice_grid(plain, brain(plain), spacing=1.0)
    mask, stored = stored_as(brain(plain), plain, orientation)
    found = slice_grid(stored, mask, spacing=1.0)
    assert found.shape == wanted.shape
    assert np.allclose(found.affine, wanted.affine, atol=1e-9)


@pytest.mark.parametrize(
    ("spacing", "codes", "mirrored"),
    [((1, 1, 4), "SRA", True), ((1, 4, 1), "ARS", True), ((4, 1, 1), "RAS", False)],
)
def test_axes_are_slices_then_right_front_top_and_left_right_is_known(spacing, codes, mirrored):
    grid = slice_grid(grid_of(*spacing), brain(grid_of(*spacing)), spacing=1.0)
    assert grid.orientation == codes
    assert across(grid) is mirrored
    assert grid.spacing == (4.0, 1.0, 1.0)


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 3.3), (2.0, 2.0, 2.0), (0.9, 5.0, 0.9)])
def test_slices_are_the_scans_own_and_the_brain_is_in_them_with_its_margin(spacing):
    flair = tilted(grid_of(*spacing))
    mask = brain(flair)
    grid = slice_grid(flair, mask, spacing=1.0)
    assert not any(edge % MULTIPLE for edge in grid.shape[1:])
    centres = flair.to_voxel(grid.to_world([[k, 0, 0] for k in range(grid.shape[0])]))
    along = centres[:, slice_axis(flair)]
    assert np.allclose(along, np.round(along), atol=1e-6)
    assert along.min() > -0.5 and along.max() < flair.shape[slice_axis(flair)] - 0.5
    ends = grid.to_voxel(flair.to_world(np.argwhere(mask)))[:, 1:]
    assert ends.min() > 7 and (np.array(grid.shape[1:]) - 1 - ends.max(axis=0) > 7).all()


def test_labels_come_back_from_slices_to_the_scan_where_they_were(orientation):
    plain = grid_of(2.0, 2.0, 4.0)
    mask, stored = stored_as(brain(plain), plain, orientation)
    grid = slice_grid(stored, mask, spacing=1.0)
    there = resample(mask.astype(np.float32), stored, grid)
    assert np.array_equal(resample(there, grid, stored) > 0.5, mask)


def test_a_t1w_is_brought_onto_the_slices_through_the_transform():
    flair = grid_of(1.5, 1.5, 4.0)
    mask = brain(flair)
    grid = slice_grid(flair, mask, spacing=1.0)
    inside = resample(mask.astype(np.float32), flair, grid) > 0.5
    rigid = np.eye(4)
    rigid[:3, :3] = tilted(grid_of(1, 1, 1)).affine[:3, :3]
    rigid[:3, 3] = (4, -3, 2)
    same = Volume(scan(grid_of(1, 1, 1)).data, grid_of(1, 1, 1))
    moved = Volume(same.data, Grid(same.grid.shape, rigid @ same.grid.affine))
    straight = prepare_pair(scan(flair), same, inside, grid)
    carried = prepare_pair(scan(flair), moved, inside, grid, rigid=rigid)
    wrong = prepare_pair(scan(flair), moved, inside, grid)
    assert np.abs(carried[1] - straight[1]).max() < 1e-3
    assert np.abs(wrong[1] - straight[1])[inside].mean() > 0.1
    assert np.array_equal(carried[0], straight[0])


def test_without_a_t1w_its_channel_is_what_the_outside_is():
    flair = grid_of(1.0, 1.0, 5.0)
    grid = slice_grid(flair, brain(flair), spacing=1.0)
    inside = resample(brain(flair).astype(np.float32), flair, grid) > 0.5
    pair = prepare_pair(scan(flair), None, inside, grid)
    assert pair.shape == (2, *grid.shape) and pair.dtype == np.float32
    assert (pair[1] == OUTSIDE).all()
    assert (pair[0][~inside] == OUTSIDE).all()
    assert abs(pair[0][inside].mean()) < 0.02


def test_brain_that_the_t1w_does_not_show_is_dark_and_does_not_scale_the_rest():
    flair = grid_of(1.0, 1.0, 4.0)
    grid = slice_grid(flair, brain(flair), spacing=1.0)
    inside = resample(brain(flair).astype(np.float32), flair, grid) > 0.5
    whole = scan(grid_of(1, 1, 1))
    half = Volume(whole.data[:50], whole.grid.crop((0, 0, 0), (50, 96, 96)))
    channel = prepare_pair(scan(flair), half, inside, grid)[1]
    shown = inside & (np.indices(grid.shape)[1] * 1.0 + grid.to_world([[0, 0, 0]])[0, 0] < 1.9)
    assert (channel[inside & ~shown] == OUTSIDE).all()
    assert abs(channel[shown].mean()) < 0.02


def test_an_empty_mask_is_one_clear_error():
    flair = grid_of(1.0, 1.0, 4.0)
    with pytest.raises(SignalError, match="the slices of the FLAIR contain no brain"):
        slice_grid(flair, np.zeros(flair.shape, bool), spacing=1.0)
