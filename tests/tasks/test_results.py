import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.tasks.results import (
    Posteriors,
    Segmentation,
    Sides,
    expected_dice,
    label_map,
    labels_at,
    largest_parts,
    measure,
    native_posteriors,
)
from deepmrseg_bids.tasks.soft_counts import count
from tests.support import ORIENTATIONS, stored_as


class Facts:
    """A bundle, as far as its facts go."""

    def __init__(self, **facts):
        self.facts = facts


def block_posteriors(shape=(20, 20, 20), indices=(0, 1, 2)):
    """Certain posteriors of two blocks, on a 1 mm RAS grid whose origin is off the world's."""
    data = np.zeros((3, *shape), np.float32)
    data[0] = 1
    for number, place in ((1, np.s_[2:8, 4:10, 5:9]), (2, np.s_[12:16, 4:10, 5:9])):
        data[(number, *place)] = 1
        data[(0, *place)] = 0
    affine = np.eye(4)
    affine[:3, 3] = (-10, 3, 7)
    return Posteriors(data, Grid(shape, affine), indices)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_labels_come_back_on_the_grid_of_the_scan_in_every_orientation(codes):
    posteriors = block_posteriors(indices=(0, 48, 47))
    expected, grid = stored_as(posteriors.labels(), posteriors.grid, codes)
    found = label_map(posteriors, grid)
    np.testing.assert_array_equal(found.data, np.array([0, 48, 47])[expected])


def test_outside_the_field_of_view_of_the_network_nothing_is_labelled():
    posteriors = block_posteriors()
    larger = posteriors.grid.crop((-5, -5, -5), (40, 30, 30))
    found = label_map(posteriors, larger)
    assert found.data.shape == (45, 35, 35)
    inner = found.data[5:25, 5:25, 5:25]
    np.testing.assert_array_equal(inner, posteriors.labels())
    assert found.data.sum() == inner.sum()


def test_a_scan_that_does_not_meet_the_crop_gets_no_labels():
    posteriors = block_posteriors()
    affine = np.eye(4)
    affine[0, 3] = 500
    away = Grid((5, 5, 5), affine)
    assert label_map(posteriors, away).data.sum() == 0


def test_posteriors_are_interpolated_before_a_label_is_chosen():
    """Half-way between two voxels of probability 1 and 0.2, the label wins with 0.6."""
    data = np.zeros((2, 4, 4, 4), np.float32)
    data[1, 1], data[1, 2] = 1, 0.2
    data[0] = 1 - data[1]
    fine = np.eye(4)
    fine[0, 0], fine[0, 3] = 0.5, 1
    posteriors = Posteriors(data, Grid((4, 4, 4), np.eye(4)), (0, 9))
    found = label_map(posteriors, Grid((4, 4, 4), fine))
    assert found.data[:, 0, 0].tolist() == [9, 9, 0, 0]


def test_scattered_pieces_go_back_to_the_background():
    posteriors = block_posteriors()
    posteriors.data[1, 18, 18, 18], posteriors.data[0, 18, 18, 18] = 1, 0
    cleaned = largest_parts(posteriors)
    assert cleaned.labels()[18, 18, 18] == 0
    assert (cleaned.labels() == 1).sum() == 6 * 6 * 4
    np.testing.assert_allclose(cleaned.data.sum(axis=0), 1)
    assert posteriors.data[1, 18, 18, 18] == 1, "the posteriors given are left as they were"


def test_a_second_piece_of_half_the_size_stays():
    posteriors = block_posteriors()
    posteriors.data[1, 2:8, 14:20, 5:7], posteriors.data[0, 2:8, 14:20, 5:7] = 1, 0
    assert (largest_parts(posteriors).labels() == 1).sum() == 6 * 6 * 6


def test_expected_dice_follows_its_formula():
    posterior = np.array([1.0, 0.8, 0.3, 0.1])
    chosen = np.array([True, True, False, False])
    # 2 (1 + 0.8) / (2 + 2.2)
    assert expected_dice(posterior, chosen) == pytest.approx(3.6 / 4.2)


def test_certain_posteriors_promise_a_perfect_dice():
    posteriors = block_posteriors()
    assert expected_dice(posteriors.data[1], posteriors.labels() == 1) == pytest.approx(1)


def test_nothing_found_promises_nothing():
    assert expected_dice(np.array([0.4, 0.1]), np.array([False, False])) is None


def test_volumes_are_counts_times_the_volume_of_a_voxel():
    table = LabelTable((Label(1, "a"), Label(2, "b"), Label(3, "c")))
    grid = Grid((2, 2, 2), np.diag([1.0, 2.0, 3.0, 1.0]))
    labels = LabelMap(np.array([[[1, 1], [2, 0]], [[0, 0], [0, 0]]], np.uint8), grid)
    rows = measure(labels, table, {1: 0.9, 2: None}, Facts())
    assert [row.volume_mm3 for row in rows] == pytest.approx([12, 6, 0])
    assert [row.confidence for row in rows] == [0.9, None, None]
    assert rows[0].low_mm3 is None and rows[0].high_mm3 is None


def test_intervals_come_from_the_calibration_of_the_model():
    grid = Grid((2, 2, 2), np.eye(4))
    labels = LabelMap(np.ones((2, 2, 2), np.uint8), grid)
    facts = Facts(volume_interval={"a": [0.9, 1.2]})
    (row,) = measure(labels, LabelTable((Label(1, "a"),)), {}, facts)
    assert (row.low_mm3, row.high_mm3) == pytest.approx((7.2, 9.6))


@pytest.mark.parametrize(
    ("known", "ends"), [({}, (None, None)), ({"volume_if_none": {"a": 50.0}}, (0.0, 50.0))]
)
def test_where_nothing_was_found_the_interval_is_what_may_have_been_missed(known, ends):
    labels = LabelMap(np.zeros((2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4)))
    facts = Facts(volume_interval={"a": [0.9, 1.2]}, **known)
    (row,) = measure(labels, LabelTable((Label(1, "a"),)), {}, facts)
    assert (row.low_mm3, row.high_mm3) == ends and row.confidence is None


def test_a_volume_below_the_floor_of_the_model_says_so():
    labels = LabelMap(np.ones((2, 2, 2), np.uint8), Grid((2, 2, 2), np.eye(4)))
    facts = Facts(
        volume_interval_ranges={"a": {"ranges": [[20, 0.5, 3.0], [None, 0.9, 1.1]]}},
        volume_floor={"a": 10.0},
        confidence_fit={"a": [0.0, 1.0, 0.0]},
    )
    (row,) = measure(labels, LabelTable((Label(1, "a"),)), {1: 0.9}, facts)
    assert row.below_floor and row.floor_mm3 == 10.0
    assert (row.low_mm3, row.high_mm3) == (0.0, 24.0)
    assert row.confidence == pytest.approx(1 / (1 + np.exp(2)))  # a hundredth of a millilitre
    coarse = LabelMap(labels.data, Grid((2, 2, 2), np.diag([2.0, 2.0, 2.0, 1.0])))
    (row,) = measure(coarse, LabelTable((Label(1, "a"),)), {1: 0.9}, facts)
    assert not row.below_floor and row.low_mm3 == pytest.approx(57.6)


def test_native_posteriors_name_each_label_once_and_fit_the_scan():
    posteriors = block_posteriors(indices=(0, 5, 6))
    grid = posteriors.grid.crop((0, 0, 0), (25, 20, 20))
    table = LabelTable((Label(5, "a"), Label(6, "b")))
    labels = label_map(posteriors, grid)
    result = Segmentation("x", labels, table, (), (posteriors,))
    native = list(native_posteriors(result))
    assert [data.shape for data in native] == [(25, 20, 20)] * 2
    np.testing.assert_array_equal(native[0] > 0.5, labels.data == 5)
    np.testing.assert_array_equal(native[1] > 0.5, labels.data == 6)


@pytest.fixture
def sided():
    """Blocks of a pair (right 31, left 32) on either side, one class, and of a single one (9)."""
    data = np.zeros((3, 20, 12, 12), np.float32)
    data[1, 2:8, 2:6, 2:6] = data[1, 12:18, 2:6, 2:6] = 0.9
    data[2, 5:15, 8:10, 2:6] = 0.8
    data[0] = 1 - data[1:].sum(axis=0)
    right = np.zeros((20, 12, 12), np.float32)
    right[:10], right[10:] = 0.1, 0.8
    grid = Grid((20, 12, 12), np.eye(4))
    return Posteriors(data, grid, (0, 31, 9), Sides(right, {31: 32}))


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_a_structure_learnt_for_both_sides_gets_the_label_of_its_side(sided, codes):
    expected = np.zeros(sided.grid.shape, np.uint8)
    expected[2:8, 2:6, 2:6], expected[12:18, 2:6, 2:6], expected[5:15, 8:10, 2:6] = 32, 31, 9
    stored, grid = stored_as(expected, sided.grid, codes)
    np.testing.assert_array_equal(label_map(sided, grid).data, stored)
    points = np.moveaxis(sided.grid.to_world(np.indices(expected.shape).reshape(3, -1).T), 1, 0)
    np.testing.assert_array_equal(labels_at([sided], points), expected.ravel())


def test_the_sides_of_a_structure_share_its_posteriors(sided):
    here, there = sided.of(31), sided.of(32)
    np.testing.assert_allclose(here + there, sided.data[1])
    np.testing.assert_allclose(here[12:18, 2:6, 2:6], 0.9 * 0.8)
    np.testing.assert_allclose(sided.of(9), sided.data[2])
    assert sided.of(77) is None
    table = LabelTable((Label(9, "Mid"), Label(31, "Right-X"), Label(32, "Left-X")))
    result = Segmentation("any", label_map(sided, sided.grid), table, (), (sided,))
    for index, found in zip(table.indices, native_posteriors(result), strict=True):
        np.testing.assert_allclose(found, sided.of(index))


def test_each_side_has_its_own_confidence(sided):
    found = count(sided).confidences()
    size = 6 * 4 * 4
    for index, share in ((31, 0.8), (32, 0.9)):
        inside, other = 0.9 * share, 0.9 * (0.1 if index == 31 else 0.2)
        assert found[index] == pytest.approx(2 * inside / (1 + inside + other), abs=1e-5)
    assert found[9] == pytest.approx(expected_dice(sided.data[2], sided.labels() == 2))
    assert size == (sided.labels() == 1).sum() / 2
