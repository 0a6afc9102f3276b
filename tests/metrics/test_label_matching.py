"""Label maps of different origin: labels by name, other grids, whole brains, lesions."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.errors import MetricError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.metrics.label_matching import (
    compare,
    joined,
    match_by_name,
    match_by_number,
    whole_brain,
)
from tests.support import ORIENTATIONS, stored_as

GRID = Grid((12, 12, 12), np.diag([2.0, 2.0, 2.0, 1.0]))


def blocks(grid: Grid = GRID, first: int = 1, second: int = 2) -> LabelMap:
    """Two blocks of 4 x 4 x 4 voxels."""
    data = np.zeros(grid.shape, np.uint8)
    data[2:6, 2:6, 2:6], data[7:11, 2:6, 2:6] = first, second
    return LabelMap(data, grid)


def table(*names: str) -> LabelTable:
    return LabelTable(tuple(Label(number, name) for number, name in enumerate(names, start=1)))


def test_labels_are_matched_by_name_however_it_is_spelled() -> None:
    ours = table("Left-Thalamus-Proper", "Right-Accumbens-Area", "Left-Hippocampus")
    theirs = table("left_hippocampus", "Stem", "Left Thalamus", "Right-Accumbens-area")
    assert match_by_name(ours, theirs) == {1: 3, 2: 4, 3: 1}


def test_left_is_never_matched_with_right() -> None:
    assert match_by_name(table("Left-Putamen", "x"), table("Right-Putamen", "y")) == {}


def test_tables_of_one_label_belong_together_whatever_it_is_called() -> None:
    assert match_by_name(table("White-Matter-Lesions"), table("WMH")) == {1: 1}


def test_numbers_stand_for_names_only_if_all_of_several_are_there() -> None:
    data = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    reference = LabelMap(data, Grid((3, 3, 3), np.eye(4)))
    assert match_by_number([3, 7, 9, 20], reference) == {3: 3, 7: 7, 9: 9, 20: 20}
    assert match_by_number([3, 7, 9, 99], reference) == {}
    assert match_by_number([3, 7], reference) == {}


def test_one_of_many_numbers_may_be_missing() -> None:
    data = np.arange(125, dtype=np.uint8).reshape(5, 5, 5)
    reference = LabelMap(data, Grid((5, 5, 5), np.eye(4)))
    assert match_by_number(range(1, 127), reference).keys() == set(range(1, 127))
    assert match_by_number(range(1, 140), reference) == {}


def halves() -> LabelMap:
    """Parts 81 and 83 on one side, 82 on the other, and 95 across the middle."""
    data = np.zeros((12, 4, 4), dtype=np.uint8)
    data[:3], data[3:5], data[5:7], data[7:] = 81, 83, 95, 82
    return LabelMap(data, Grid(data.shape, np.eye(4)))


PARTS = {44: (81, 83, 95), 45: (82, 95)}


def test_parts_of_a_structure_are_taken_together_and_what_is_shared_goes_to_the_nearest() -> None:
    found = joined(halves(), PARTS).data
    assert (found[:6] == 44).all() and (found[6:] == 45).all()


def test_a_reference_that_has_the_whole_keeps_its_own_numbers() -> None:
    reference = halves()
    reference.data[0, 0, 0], reference.data[-1, 0, 0] = 44, 45
    assert joined(reference, PARTS) is reference


def test_what_is_shared_stays_where_no_structure_owns_a_part_alone() -> None:
    reference = LabelMap(np.full((3, 3, 3), 95, dtype=np.uint8), Grid((3, 3, 3), np.eye(4)))
    assert (joined(reference, PARTS).data == 95).all()


def test_each_label_is_compared_with_the_one_it_was_matched_with() -> None:
    reference = blocks(first=17, second=250)
    found = compare(blocks(), reference, {1: 17, 2: 250})
    assert [(one.index, one.f1, one.asd_mm) for one in found.structures] == [
        (1, 1.0, 0.0), (2, 1.0, 0.0),
    ]  # fmt: skip
    assert not found.resampled and found.lesions is None


def test_a_label_that_the_reference_does_not_hold_is_false() -> None:
    found = compare(blocks(), blocks(second=0), {1: 1, 2: 200})
    assert [one.status for one in found.structures] == ["both", "false"]


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_another_orientation_of_the_reference_changes_nothing(codes: str) -> None:
    ours = blocks()
    data, grid = stored_as(ours.data, ours.grid, codes)
    found = compare(ours, LabelMap(data, grid), {1: 1, 2: 2})
    assert [one.f1 for one in found.structures] == [1.0, 1.0]
    assert [one.volume_mm3 for one in found.structures] == [512.0, 512.0]
    assert found.resampled == (codes != "RAS")


def test_a_finer_reference_is_compared_on_its_own_grid() -> None:
    ours = blocks()
    affine = np.eye(4)
    affine[:3, 3] = -0.5  # voxels of 1 mm inside those of 2 mm
    fine = Grid((24, 24, 24), affine)
    data = ours.data.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    found = compare(ours, LabelMap(data, fine), {1: 1, 2: 2})
    assert found.resampled and [one.f1 for one in found.structures] == [1.0, 1.0]


def test_a_header_that_was_rounded_is_no_other_grid() -> None:
    affine = GRID.affine + 1e-5
    affine[3] = GRID.affine[3]
    found = compare(blocks(), blocks(Grid(GRID.shape, affine)), {1: 1})
    assert not found.resampled


def test_images_without_a_place_in_common_are_refused() -> None:
    affine = GRID.affine.copy()
    affine[:3, 3] = 500
    with pytest.raises(MetricError, match="do not overlap"):
        compare(blocks(), blocks(Grid(GRID.shape, affine)), {1: 1})


def test_lesions_are_counted() -> None:
    found = compare(blocks(second=1), blocks(second=0), {1: 1}, lesions=True).lesions
    assert found is not None
    assert (found.n_predicted, found.n_reference, found.recall, found.precision) == (2, 1, 1.0, 0.5)


def test_a_whole_brain_is_any_label_with_its_holes_filled() -> None:
    data = np.zeros((12, 12, 12), np.uint16)
    data[1:11, 1:11, 1:11] = 300
    data[4, 4, 4] = 0
    mask = whole_brain(LabelMap(data, Grid((12, 12, 12), np.diag([8.0, 8.0, 8.0, 1.0]))))
    assert mask.data.max() == 1 and mask.data.sum() == 1000


def test_labels_of_some_structures_are_no_whole_brain() -> None:
    with pytest.raises(MetricError, match="fill 1 ml, less than a whole brain"):
        whole_brain(blocks())
