"""The deep structures: cut out around the middle that was found, labelled where they lie."""

import numpy as np
import pytest

from deepmrseg_bids.errors import DeepMRSegError, SegmentationError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.intensity import OUTSIDE
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.tasks import deepbrain
from deepmrseg_bids.tasks.brain import Brain
from tests.tasks.phantom import ByLevel, box, dice, paint, scan

MIDDLE = np.array([3.0, -8.0, 14.0])
TABLE = LabelTable(
    (
        Label(36, "Right-Caudate"),
        Label(37, "Left-Caudate"),
        Label(47, "Right-Hippocampus"),
        Label(48, "Left-Hippocampus"),
    )
)
TISSUE = 100
LEVELS = {36: 70, 37: 130, 47: 40, 48: 160}
OFFSETS = {36: (10, 11, 2), 37: (-10, 11, 0), 47: (10, -11, 0), 48: (-10, -11, -2)}
RADII = (8, 10, 12)


def parts(*, without=(), at=MIDDLE):
    return [
        (at + OFFSETS[index], RADII, level)
        for index, level in LEVELS.items()
        if index not in without
    ]


def predictor():
    windows = [(LEVELS[index] - 10, LEVELS[index] + 10) for index in TABLE.indices]
    return ByLevel(TABLE, Preparation(1.0, "brain", (48, 48, 40)), windows, (40, 160))


def brain_around(centre):
    """A brain that fills the field of view."""
    grid = box(140, 4.0, MIDDLE)
    centre = None if centre is None else tuple(map(float, centre))
    return Brain(np.ones(grid.shape, np.float32), grid, centre, 1.0)


def places(labels, grid):
    """The middle of each label, RAS+ millimetres."""
    return {i: grid.to_world(np.argwhere(labels == i)).mean(axis=0) for i in np.unique(labels) if i}


@pytest.mark.parametrize("codes", ["RAS", "LPS", "IRP", "AIL", "PSL", "oblique"])
def test_labels_land_at_the_right_place_in_the_world(codes):
    volume = scan(parts(), box(72, 1.0, MIDDLE), TISSUE, codes)
    result = deepbrain.segment(volume, brain_around(MIDDLE + np.array((1, -2, 1))), predictor())
    assert result.labels.grid == volume.grid
    found = places(result.labels.data, volume.grid)
    assert set(found) == set(TABLE.indices)
    for index, level in LEVELS.items():
        np.testing.assert_allclose(found[index], MIDDLE + OFFSETS[index], atol=1)
        assert dice(result.labels.data == index, volume.data == level) > 0.85
    assert result.findings == ()


def test_voxels_of_another_size_get_the_same_volumes():
    grid = box(72, 1.5, MIDDLE)
    result = deepbrain.segment(scan(parts(), grid, TISSUE), brain_around(MIDDLE), predictor())
    whole = 4 / 3 * np.pi * np.prod(RADII)
    for row in result.measures:
        assert row.volume_mm3 == pytest.approx(whole, rel=0.25)
        assert row.confidence > 0.9


@pytest.mark.parametrize("axis", [0, 1])
def test_a_crop_15_mm_off_its_structures_is_cut_again_around_them(axis):
    volume = scan(parts(), box(88, 1.0, MIDDLE), TISSUE)
    off = np.zeros(3)
    off[axis] = 15
    model = predictor()
    result = deepbrain.segment(volume, brain_around(MIDDLE + off), model)
    assert len(model.seen) >= 2
    (posteriors,) = result.posteriors
    middle = posteriors.grid.corners().mean(axis=0)
    np.testing.assert_allclose(middle, MIDDLE, atol=4)
    for index, level in LEVELS.items():
        assert dice(result.labels.data == index, volume.data == level) > 0.85


def test_a_crop_that_fits_is_cut_once():
    model = predictor()
    volume = scan(parts(), box(72, 1.0, MIDDLE), TISSUE)
    deepbrain.segment(volume, brain_around(MIDDLE + np.array((2, 2, -2))), model)
    assert len(model.seen) == 1
    assert model.seen[0].shape == (48, 48, 40)


def test_a_missing_structure_is_named_in_a_warning():
    volume = scan(parts(without=[36]), box(72, 1.0, MIDDLE), TISSUE)
    # partial volume at the edge of a dark structure looks like the missing one
    model = predictor()
    model.windows[0] = (1e6, 2e6)
    result = deepbrain.segment(volume, brain_around(MIDDLE), model)
    assert result.findings == (
        Finding("structure-missing", "error", "Right-Caudate was not found"),
    )
    rows = {row.index: row for row in result.measures}
    assert rows[36].volume_mm3 == 0 and rows[36].confidence is None
    assert rows[37].volume_mm3 > 0


def test_the_network_sees_the_brain_alone():
    half = box(140, 4.0, MIDDLE)
    probability = np.ones(half.shape, np.float32)
    probability[half.to_world(np.indices(half.shape).reshape(3, -1).T)[:, 2].reshape(
        half.shape) > MIDDLE[2] + 14] = 0  # fmt: skip
    model = predictor()
    volume = scan(parts(), box(72, 1.0, MIDDLE), TISSUE)
    deepbrain.segment(volume, Brain(probability, half, tuple(MIDDLE), 1.0), model)
    assert (model.seen[0][..., -3:] == OUTSIDE).all()
    assert (model.seen[0][..., :20] != OUTSIDE).all()


def test_a_brain_without_a_middle_has_no_deep_structures():
    volume = scan(parts(), box(72, 2.0, MIDDLE), TISSUE)
    with pytest.raises(SegmentationError, match="no deep structures were found"):
        deepbrain.segment(volume, brain_around(None), predictor())


def test_a_crop_in_which_nothing_is_found_is_an_error():
    volume = scan(parts(), box(72, 2.0, MIDDLE), TISSUE)
    model = predictor()
    model.windows = [(1e6, 2e6)] * 4
    with pytest.raises(SegmentationError, match="no deep structure was segmented"):
        deepbrain.segment(volume, brain_around(MIDDLE), model)


@pytest.mark.parametrize("codes", ["RAS", "ILP"])
def test_a_brain_extracted_scan_needs_no_brain_model(codes):
    extracted = [(MIDDLE + np.array((0, 4, 0)), (34, 40, 34), TISSUE), *parts()]
    volume = scan(extracted, box(90, 1.0, MIDDLE), 0, codes)
    model = predictor()
    model.span = (40, 160)
    result = deepbrain.segment_prepared(volume, model)
    for index, level in LEVELS.items():
        assert dice(result.labels.data == index, volume.data == level) > 0.85


def test_a_scan_without_a_voxel_above_zero_is_one_clear_error():
    grid = box(20, 1.0)
    data = -1 - paint(grid, [((0, 0, 0), (5, 5, 5), 3)])
    with pytest.raises(DeepMRSegError, match="no voxel above 0"):
        deepbrain.segment_prepared(Volume(data, grid), predictor())
