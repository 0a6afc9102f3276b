import numpy as np
import pytest

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.tasks.results import (
    Posteriors,
    Segmentation,
    expected_dice,
    label_map,
    largest_parts,
    measure,
    native_posteriors,
)
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
