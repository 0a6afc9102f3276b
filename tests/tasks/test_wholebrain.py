"""The whole brain: structures by one network, their sides by another."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest

from deepmrseg_bids.errors import SegmentationError
from deepmrseg_bids.imaging.grid import Grid, resample
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.tasks import wholebrain
from deepmrseg_bids.tasks.brain import Brain
from deepmrseg_bids.tasks.outline import Outline
from deepmrseg_bids.tasks.pipeline import SessionContext
from deepmrseg_bids.tasks.regions import read_regions
from deepmrseg_bids.tasks.results import Posteriors, Segmentation
from tests.tasks.phantom import ByLevel, box, dice, paint, scan

MIDDLE = np.array([4.0, -10.0, 12.0])
MERGED = LabelTable((Label(35, "Brain-Stem"), Label(36, "Caudate"), Label(44, "White")))
DEEP = LabelTable((Label(36, "Right-Caudate"), Label(37, "Left-Caudate")))
LEVELS = {35: 40, 36: 160, 44: 100}
GREY = ((0, 0, 0), (44, 52, 38), 70)  # without a label
WHITE = ((0, 0, 0), (36, 42, 30), LEVELS[44])
CAUDATES = {36: (20, 12, 4), 37: (-20, 12, 4)}  # the codes of the right and of the left one
STEM = ((0, -14, -6), (12, 13, 14), LEVELS[35])
RADII = (8, 12, 9)


def parts():
    placed = [GREY, WHITE, STEM, *((at, RADII, LEVELS[36]) for at in CAUDATES.values())]
    return [(np.add(at, MIDDLE), radii, level) for at, radii, level in placed]


class BySide:
    """What tells the sides: right of the middle of what it is shown, and left of it."""

    def __init__(self) -> None:
        self.bundle = SimpleNamespace(
            labels=LabelTable((Label(1, "Right"), Label(2, "Left"))),
            preparation=Preparation(2.0, "brain", (48, 56, 44)),
            facts={},
        )

    def __call__(self, image: np.ndarray, *, overlap: float = 0.5) -> np.ndarray:
        right = np.arange(image.shape[0])[:, None, None] >= image.shape[0] / 2
        inside = image > -3
        return np.stack([~inside, inside & right, inside & ~right]).astype(np.float32)


@pytest.fixture
def predictors():
    windows = [(20, 62), (130, 180), (85, 130)]  # half-way between the levels
    structures = ByLevel(MERGED, Preparation(2.0, "brain"), windows, (40, 160))
    nothing = ByLevel(DEEP, Preparation(2.0, "brain", (64, 64, 64)), [(500, 501)] * 2, (40, 160))
    return {"wholebrain": structures, "sides": BySide(), "deepbrain": nothing}.__getitem__


def nothing_found():
    raise SegmentationError("no deep structures were found")


def find(volume, predictors, outline=None, deep=None):
    grid = box(120, 4.0, MIDDLE)
    inside = paint(grid, [(MIDDLE, (41, 49, 35), 1.0)])
    brain = Brain(inside, grid, tuple(MIDDLE), 0.97, outline=outline)
    context = SessionContext({"T1w": volume}, predictors)
    context.once("brain", lambda: brain)
    with suppress(SegmentationError):
        context.once("deepbrain", lambda: nothing_found() if deep is None else deep)
    return wholebrain.TASK.segment(context)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "IRP", "AIL", "oblique"])
def test_structures_of_both_sides_get_the_labels_of_their_side(codes, predictors) -> None:
    volume = scan(parts(), box(132, 2.0, MIDDLE), 0, codes)
    result = find(volume, predictors)
    assert result.labels.grid == volume.grid and result.labels.data.dtype == np.uint8
    for index, at in CAUDATES.items():
        truth = paint(volume.grid, [(np.add(at, MIDDLE), RADII, 1.0)]) > 0
        assert dice(result.labels.data == index, truth) > 0.9
    stem = paint(volume.grid, [(np.add(STEM[0], MIDDLE), STEM[1], 1.0)]) > 0
    assert dice(result.labels.data == 35, stem) > 0.85
    assert set(np.unique(result.labels.data)) == {0, 35, 36, 37, 44, 45}


def test_volumes_confidences_and_regions_are_those_of_the_label_map(predictors) -> None:
    volume = scan(parts(), box(132, 2.0, MIDDLE))
    result = find(volume, predictors)
    voxels = np.bincount(result.labels.data.ravel(), minlength=256)
    assert len(result.measures) == 134
    for row in result.measures:
        assert row.volume_mm3 == pytest.approx(8 * voxels[row.index])
        assert (row.confidence is None) == (row.volume_mm3 == 0)
    regions = {row.name: row for row in result.regions}
    table = {region.name: region for region in read_regions(wholebrain.REGIONS)}
    assert list(regions) == list(table)
    assert regions["Brainstem"].volume_mm3 == pytest.approx(8 * voxels[35])
    assert regions["Cerebral-White-Matter"].volume_mm3 == pytest.approx(
        8 * (voxels[44] + voxels[45])
    )
    for name in ("Right-Hemisphere", "Left-Hemisphere", "Brain-Tissue"):
        assert regions[name].volume_mm3 == pytest.approx(8 * voxels[list(table[name].labels)].sum())
        assert regions[name].confidence == pytest.approx(1, abs=0.05)
    assert {f.code for f in result.findings} == {"structure-missing"}  # most are not painted
    assert result.brain_mm3 is not None


@pytest.mark.parametrize("codes", ["RAS", "oblique"])
def test_no_label_leaves_the_brain_mask_that_is_written(codes, predictors) -> None:
    volume = scan(parts(), box(132, 2.0, MIDDLE), 0, codes)
    fine = box(160, 1.0, MIDDLE)
    tight = Outline(paint(fine, [(MIDDLE, (30, 52, 38), 1.0)]), fine, 0.95)
    mask = Brain(tight.probability, fine, tuple(MIDDLE), 0.95).mask_on(volume.grid)
    found = find(volume, predictors, outline=tight)
    assert (find(volume, predictors).labels.data[~mask] > 0).any()
    assert not (found.labels.data[~mask] > 0).any()
    white = sum(row.volume_mm3 for row in found.measures if row.index in (44, 45))
    counted = np.isin(found.labels.data, (44, 45)).sum() * volume.grid.voxel_volume
    assert white == pytest.approx(counted)


def test_what_is_brain_extracted_needs_no_other_network(predictors) -> None:
    volume = scan(parts(), box(112, 2.0, MIDDLE))
    result = wholebrain.TASK.segment_prepared({"T1w": volume}, predictors)
    assert np.count_nonzero(result.labels.data == 36) == pytest.approx(
        np.count_nonzero(result.labels.data == 37), rel=0.02
    )
    assert not (result.labels.data > 0)[volume.data == 0].any()


def test_deep_structures_are_the_mean_of_two_networks(predictors) -> None:
    volume = scan(parts(), box(132, 2.0, MIDDLE))
    crop = box(80, 2.0, MIDDLE)
    larger = [paint(crop, [(np.add(CAUDATES[k], MIDDLE), (10, 14, 11), 0.9)]) for k in DEEP.indices]
    answer = np.stack([1 - np.sum(larger, axis=0), *larger]).astype(np.float32)
    labels = LabelMap(answer.argmax(axis=0).astype(np.uint8), crop)
    posteriors = Posteriors(answer, crop, (0, *DEEP.indices))
    deep = Segmentation("deepbrain", labels, DEEP, (), (posteriors,))
    alone, both = find(volume, predictors), find(volume, predictors, deep=deep)
    (before,), (after,) = alone.posteriors, both.posteriors
    ring = (before.of(36) == 0) & (resample(larger[0], crop, after.grid) > 0.89)
    assert ring.sum() > 100
    np.testing.assert_allclose(after.of(36)[ring & (after.sides.right > 0.99)], 0.45, atol=0.01)
    core = before.of(36) > 0.99
    np.testing.assert_allclose(after.of(36)[core], 0.95, atol=0.01)
    assert np.array_equal(alone.labels.data == 35, both.labels.data == 35)


def test_the_labels_are_those_that_the_table_of_regions_is_made_of() -> None:
    used = {code for region in read_regions(wholebrain.REGIONS) for code in region.labels}
    assert used <= set(wholebrain.TABLE.indices)
    sides = [name for name in wholebrain.TABLE.names if name.startswith(("Right-", "Left-"))]
    assert len(sides) == 126 and len(wholebrain.TABLE) == 134


def test_the_side_of_the_grid_does_not_matter_for_the_side_of_a_structure(predictors) -> None:
    volume = scan(parts(), box(132, 2.0, MIDDLE))
    mirrored = type(volume)(volume.data[::-1].copy(), Grid(volume.grid.shape, volume.grid.affine))
    one, other = find(volume, predictors), find(mirrored, predictors)
    assert np.count_nonzero(one.labels.data == 36) > 0 < np.count_nonzero(other.labels.data == 36)
