"""Single lesions: their number, size and centre, and beside what they lie."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid, centred_grid
from deepmrseg_bids.tasks.lesions import Surroundings, drop_specks, find_lesions
from tests.tasks.phantom import paint

GRID = centred_grid((0, 0, 0), (118, 146, 110), 1.0)
FLUID, TISSUE = 10.0, 100.0
SULCUS = ((-48, 0, 24), (8, 3, 8), FLUID)  # open to the rim
HEAD = (
    ((0, 0, 0), (58, 72, 54), TISSUE),
    ((-9, 0, 18), (5, 22, 6), FLUID),
    ((9, 0, 18), (5, 22, 6), FLUID),
    SULCUS,
)
BESIDE = {
    "periventricular": (17, 5, 18),
    "juxtacortical": (47, -15, 18),
    "deep": (28, 5, 18),
}
SPOT = (3.0, 3.0, 3.0)


def around(centre=(0.0, 0.0, 0.0), parts=HEAD, lesions=None, grid=GRID) -> Surroundings:
    head = paint(grid, parts)
    spots = np.zeros(grid.shape, bool) if lesions is None else lesions
    return Surroundings.of(head, paint(grid, parts[:1]) > 0, spots, grid, centre=centre)


@pytest.fixture(scope="module")
def surroundings() -> Surroundings:
    return around()


def lesions_at(*centres, grid=GRID, radius=SPOT) -> np.ndarray:
    return paint(grid, [(centre, radius, 1.0) for centre in centres]) > 0


def test_each_lesion_has_its_volume_and_centre_the_largest_first(surroundings):
    small = lesions_at((-28, -20, 10))
    large = lesions_at((28, 5, 18), radius=(5, 4, 3))
    found = find_lesions(small | large, GRID, np.full(GRID.shape, 0.75, "f4"), surroundings)
    assert [one.index for one in found] == [1, 2]
    assert [one.volume_mm3 for one in found] == [large.sum(), small.sum()]
    np.testing.assert_allclose(found[0].centre, (28, 5, 18), atol=0.6)
    np.testing.assert_allclose(found[1].centre, (-28, -20, 10), atol=0.6)
    assert found[0].confidence == pytest.approx(0.75)


def test_lesions_that_share_a_corner_are_one(surroundings):
    chosen = np.zeros(GRID.shape, bool)
    chosen[60, 70, 60] = chosen[61, 71, 61] = True
    (one,) = find_lesions(chosen, GRID, np.ones(GRID.shape, "f4"), surroundings)
    assert one.volume_mm3 == 2


@pytest.mark.parametrize("place", BESIDE)
def test_a_lesion_lies_beside_a_ventricle_the_cortex_or_neither(surroundings, place):
    for side in (1, -1):
        x, y, z = BESIDE[place]
        chosen = lesions_at((side * x, y, z))
        (one,) = find_lesions(chosen, GRID, np.ones(GRID.shape, "f4"), surroundings)
        assert one.place == place


def test_the_fluid_of_a_sulcus_is_cortex_and_no_ventricle(surroundings):
    chosen = lesions_at((-34, 0, 24))
    (one,) = find_lesions(chosen, GRID, np.ones(GRID.shape, "f4"), surroundings)
    assert one.place == "juxtacortical"
    smooth = around(parts=HEAD[:3])
    (one,) = find_lesions(chosen, GRID, np.ones(GRID.shape, "f4"), smooth)
    assert one.place == "deep"


def test_what_is_dark_in_a_lesion_is_no_fluid():
    hole = lesions_at((28, 5, 18), radius=(6, 6, 6))
    parts = (*HEAD, ((28, 5, 18), (4, 4, 4), FLUID))
    assert around(parts=parts, lesions=hole).cortex[hole].min() > 5
    assert around(parts=parts).cortex[hole].min() == 0


@pytest.mark.parametrize("case", ["no centre", "no ventricles"])
def test_without_ventricles_only_the_rim_of_the_brain_can_be_told(case):
    found = around(centre=None) if case == "no centre" else around(parts=HEAD[:1])
    assert found.ventricle is None
    chosen = lesions_at(BESIDE["deep"], (52, 0, 0))
    places = {
        round(one.centre[0]): one.place
        for one in find_lesions(chosen, GRID, np.ones(GRID.shape, "f4"), found)
    }
    assert places == {28: None, 52: "juxtacortical"}


def test_places_are_the_same_on_thick_slices():
    affine = GRID.affine @ np.diag([1, 1, 5.0, 1])
    thick = Grid((118, 146, 22), affine)
    found = around(grid=thick)
    for place, (x, y, z) in BESIDE.items():
        chosen = lesions_at((x, y, z), grid=thick, radius=(3, 3, 5))
        (one,) = find_lesions(chosen, thick, np.ones(thick.shape, "f4"), found)
        assert one.place == place


def test_specks_are_measured_in_millimetres_not_in_voxels():
    chosen = np.zeros((9, 9, 9), bool)
    chosen[1, 1, 1:3] = True
    fine, coarse = Grid((9, 9, 9), np.eye(4)), Grid((9, 9, 9), np.diag([2, 2, 2, 1]))
    assert not drop_specks(chosen, fine).any()
    assert np.array_equal(drop_specks(chosen, coarse), chosen)


def test_no_lesions_are_an_empty_table(surroundings):
    nothing = np.zeros(GRID.shape, bool)
    assert find_lesions(nothing, GRID, np.ones(GRID.shape, "f4"), surroundings) == ()
