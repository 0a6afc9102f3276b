"""Lesions of two visits: synthetic pairs with known new, grown, shrunken and vanished lesions."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid, centred_grid
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.tasks.lesion_change import Change, changes_between, interval, interval_of
from tests.tasks.phantom import paint

GRID = centred_grid((0, 0, 0), (90, 100, 30), 1.0)
THICK = Grid((90, 100, 10), GRID.affine @ np.diag([1, 1, 3.0, 1]))
STAYS, GROWS, SHRINKS = (-30, -30, 0), (-30, 0, 0), (-30, 30, 0)
COMES, GOES = (30, -30, 0), (30, 0, 0)
EXPECTED = {STAYS: "unchanged", GROWS: "enlarged", SHRINKS: "shrunken", COMES: "new", GOES: "gone"}


def visit(*spots: tuple[tuple[float, ...], float], grid: Grid = GRID) -> LabelMap:
    parts = [(centre, (radius,) * 3, 1.0) for centre, radius in spots]
    return LabelMap(paint(grid, parts).astype(np.uint8), grid)


BEFORE = ((STAYS, 5), (GROWS, 4), (SHRINKS, 6), (GOES, 4))
AFTER = ((STAYS, 5), (GROWS, 7), (SHRINKS, 3), (COMES, 4))


def moved(matrix: np.ndarray, labels: LabelMap) -> LabelMap:
    """The same lesions in a head that lies elsewhere: ``matrix`` takes points here to there."""
    return LabelMap(labels.data, Grid(labels.grid.shape, matrix @ labels.grid.affine))


def elsewhere() -> np.ndarray:
    angle = np.radians(12)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = (7, -11, 4)
    return matrix


def nearest(changes: tuple[Change, ...]) -> dict[tuple[int, ...], Change]:
    return {
        place: min(changes, key=lambda one: np.linalg.norm(np.subtract(one.centre, place)))
        for place in EXPECTED
    }


@pytest.mark.parametrize("grid", [GRID, THICK])
@pytest.mark.parametrize("matrix", [np.eye(4), elsewhere()])
def test_a_synthetic_pair_with_known_changes(grid: Grid, matrix: np.ndarray) -> None:
    before, after = moved(matrix, visit(*BEFORE, grid=grid)), visit(*AFTER, grid=grid)
    found = changes_between(before, after, matrix)
    assert len(found) == len(EXPECTED)
    by_place = nearest(found)
    assert {place: one.status for place, one in by_place.items()} == EXPECTED
    for place, one in by_place.items():
        np.testing.assert_allclose(one.centre, place, atol=1.6)
        assert one.low_mm3 <= one.change_mm3 <= one.high_mm3
        assert (one.change_mm3 == 0) == (place == STAYS)
    for labels, volumes in ((before, [one.before_mm3 for one in found]),
                            (after, [one.after_mm3 for one in found])):  # fmt: skip
        assert sum(volumes) == pytest.approx(labels.data.sum() * grid.voxel_volume)


def test_slices_that_lie_elsewhere_change_no_lesion() -> None:
    affine = THICK.affine.copy()
    affine[2, 3] += 1.5  # half a slice
    other = Grid(THICK.shape, affine)
    spots = (((-30, -30, 0), 5), ((-30, 0, 0), 4), ((30, 0, 0), 7))
    found = changes_between(visit(*spots, grid=THICK), visit(*spots, grid=other), np.eye(4))
    assert [one.status for one in found] == ["unchanged"] * 3


def test_lesions_that_merge_or_fall_apart_are_one_group() -> None:
    apart = visit(((-6, 0, 0), 4), ((6, 0, 0), 4))
    whole = visit(((-6, 0, 0), 4), ((6, 0, 0), 4), ((0, 0, 0), 8))
    (one,) = changes_between(apart, whole, np.eye(4))
    assert (one.before, one.after, one.status) == ((1, 2), (1,), "enlarged")
    (one,) = changes_between(whole, apart, np.eye(4))
    assert (one.before, one.after, one.status) == ((1,), (1, 2), "shrunken")


def test_specks_are_no_news() -> None:
    (one,) = changes_between(visit(), visit((COMES, 1.2)), np.eye(4))
    assert one.status == "unchanged" and one.low_mm3 < 0 < one.high_mm3


def test_what_the_other_scan_does_not_show_is_neither_new_nor_gone() -> None:
    low = GRID.crop((0, 0, 0), (90, 60, 30))  # without the front, where SHRINKS lies
    before = LabelMap(visit(*BEFORE).data[:, :60], low)
    found = nearest(changes_between(before, visit(*AFTER), np.eye(4)))
    assert found[SHRINKS].status is None and found[COMES].status == "new"


def test_no_lesions_at_either_visit() -> None:
    assert changes_between(visit(), visit(), np.eye(4)) == ()
    assert interval_of(()) == (0, 0)


def test_the_interval_is_narrower_in_parts_for_large_lesions_and_adds_up() -> None:
    widths = [np.subtract(*interval([v], [v])[::-1]) / v for v in (30.0, 300.0, 3000.0)]
    assert widths == sorted(widths, reverse=True)
    many = interval([100.0] * 4, [100.0] * 4)
    one = interval([100.0], [100.0])
    assert many[1] == pytest.approx(2 * one[1])
