"""``wml``: where lesions come out, and what is said of scans that do not fit each other."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import ndimage

from deepmrseg_bids.errors import SegmentationError, SignalError, SkippedTask
from deepmrseg_bids.imaging.grid import Grid, canonical_grid, resample
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.tasks import coregistration, wml
from deepmrseg_bids.tasks.brain import Brain
from deepmrseg_bids.tasks.intracranial import Intracranial
from tests.imaging.test_registration import moved, movement
from tests.integration.conftest import coarse, coarse_brain
from tests.support import stored_as

TABLE = LabelTable((Label(1, "White-Matter-Lesion"),))
SPOT = np.array([26.0, -30.0, 24.0])  # in white matter, RAS+ millimetres of the FLAIR
TRUE = movement((5, -4, 8), (9, -7, 6))


class Bright:
    """A network, as far as the task can tell: what is bright in the FLAIR is lesion."""

    def __init__(self) -> None:
        preparation = Preparation(1.0, "brain")
        self.bundle = SimpleNamespace(task="wml", labels=TABLE, preparation=preparation, facts={})
        self.seen: list[np.ndarray] = []
        self.mirrored: list[bool] = []

    def slices(self, image: np.ndarray, *, mirrored: bool) -> np.ndarray:
        self.seen.append(image)
        self.mirrored.append(mirrored)
        lesion = (image[0] > 4.5).astype(np.float32)
        return np.stack([1 - lesion, lesion])


def as_flair(data: np.ndarray, top: float) -> np.ndarray:
    """The contrast of a FLAIR made of that of a T1w: fluid dark, white matter below grey."""
    level = data / top
    return np.where(level < 0.62, 0.3 * level, 1.1 - 0.5 * level).astype(np.float32)


@pytest.fixture(scope="module")
def t1w() -> Volume:
    image = coarse(4)
    data = np.asarray(image.dataobj, dtype=np.float32)
    return Volume(data, Grid(data.shape, image.affine))


@pytest.fixture(scope="module")
def inside(t1w: Volume) -> np.ndarray:
    mask = np.asarray(coarse_brain(4).dataobj) > 0
    return ndimage.binary_closing(mask, iterations=2) & (t1w.data > 0)


def with_spot(volume: Volume, at: np.ndarray = SPOT) -> Volume:
    points = volume.grid.to_world(np.indices(volume.grid.shape).reshape(3, -1).T)
    near = (np.linalg.norm(points - at, axis=1) < 9).reshape(volume.grid.shape)
    return replace(volume, data=np.where(near, np.float32(4), volume.data))


@pytest.fixture(scope="module")
def flair(t1w: Volume) -> Volume:
    """Thick axial slices with one lesion."""
    affine = t1w.grid.affine @ np.diag([1, 1, 1.5, 1])
    grid = Grid((*t1w.grid.shape[:2], int(t1w.grid.shape[2] / 1.5)), affine)
    top = float(np.percentile(t1w.data, 99))
    data = as_flair(resample(t1w.data, t1w.grid, grid), top)
    return with_spot(Volume(data, grid))


def brain_of(inside: np.ndarray, grid: Grid, centre=(0.0, -8.0, 0.0)) -> Brain:
    return Brain(inside.astype(np.float32), grid, centre, 0.97)


@pytest.fixture
def found(monkeypatch, t1w: Volume, inside: np.ndarray):
    """The brain network exchanged for the known brain of the average; other brains by name."""
    monkeypatch.setattr(coregistration, "find_brain", lambda *_: brain_of(inside, t1w.grid))


def predictors(network: Bright):
    return lambda task: network if task == "wml" else None


def codes(result: wml.LesionSegmentation) -> dict[str, str]:
    return {finding.code: finding.severity for finding in result.findings}


def centre(labels: LabelMap) -> np.ndarray:
    return labels.grid.to_world(np.argwhere(labels.data > 0)).mean(axis=0)


def test_a_lesion_is_where_it_is_on_the_flair_and_on_a_t1w_that_lies_elsewhere(
    found, t1w, flair, inside
):
    there = moved(t1w, TRUE, 3.5)
    there = Volume(*stored_as(there.data, there.grid, "PSR"))
    flair = Volume(*stored_as(flair.data, flair.grid, "LPI"))
    network = Bright()
    brain = brain_of(inside, Grid(t1w.grid.shape, TRUE @ t1w.grid.affine), (0, 0, 0))
    result = wml.segment(there, brain, flair, predictors(network))
    assert result.aligned and result.pair.fit.quality.edges > 0.65
    assert result.on_flair.grid == flair.grid and result.labels.grid == there.grid
    np.testing.assert_allclose(centre(result.on_flair), SPOT, atol=2.5)
    np.testing.assert_allclose(centre(result.labels), (TRUE @ [*SPOT, 1])[:3], atol=3.5)
    (lesion,) = result.lesions
    np.testing.assert_allclose(lesion.centre, SPOT, atol=2.5)
    assert lesion.volume_mm3 == pytest.approx(result.measures[0].volume_mm3)
    assert network.mirrored == [True]
    assert "flair-misaligned" not in codes(result) and "brains-differ" not in codes(result)
    back = result.in_flair()
    np.testing.assert_allclose(back.posteriors[0].grid.to_world([[0, 0, 0]])[0],
                               np.linalg.inv(result.pair.rigid)[:3] @ [
                                   *result.posteriors[0].grid.to_world([[0, 0, 0]])[0], 1],
                               atol=1e-6)  # fmt: skip


@pytest.mark.parametrize(
    ("flair_mm", "t1w_mm"), [((1, 1, 3), (1, 1, 1)), ((1, 1, 1), (2, 2, 2)), ((2, 2, 2), (1, 1, 1))]
)
def test_lesions_have_the_same_volume_on_both_grids(flair_mm, t1w_mm):
    """In the mean: where one voxel of eight is looked at, single lesions gain or lose."""
    shape = tuple(int(90 / mm) for mm in flair_mm)
    grid = Grid(shape, np.diag([*flair_mm, 1.0]))
    ratios = []
    for seed in range(8):
        turn = movement((5, -4 + seed, 8), (9, -7, 6))
        pair = SimpleNamespace(in_t1w=lambda grid, turn=turn: Grid(grid.shape, turn @ grid.affine))
        smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
        spots = LabelMap((smooth > np.percentile(smooth, 98)).astype(np.uint8), grid)
        place = canonical_grid(pair.in_t1w(grid), t1w_mm[0])
        there = wml._lesions_on(place, spots, pair)
        volumes = [one.data.sum() * one.grid.voxel_volume for one in (there, spots)]
        ratios.append(volumes[0] / volumes[1])
    assert abs(np.mean(ratios) - 1) < 0.01, ratios


def bent(t1w: Volume) -> Volume:
    """As if it were of another person."""
    shape, rng = t1w.grid.shape, np.random.default_rng(1)
    bend = [ndimage.zoom(rng.normal(0, 3.0, (6, 6, 6)), np.array(shape) / 6, order=3)
            for _ in range(3)]  # fmt: skip
    places = np.indices(shape) + np.array(bend)
    return Volume(ndimage.map_coordinates(t1w.data, places, order=1).astype("f4"), t1w.grid)


def test_a_t1w_of_another_head_is_left_out_with_the_reason(found, t1w, flair):
    network = Bright()
    result = wml.segment(bent(t1w), None, flair, predictors(network))
    assert codes(result)["flair-misaligned"] == "error"
    assert not result.aligned and result.labels.grid == flair.grid
    assert (network.seen[0][1] == network.seen[0][1].min()).all()  # no T1w was shown
    assert result.pair.fit is not None
    np.testing.assert_allclose(centre(result.labels), SPOT, atol=2.5)


def test_percentages_are_of_the_t1w_that_lies_on_the_flair(found, t1w, flair, inside):
    brain = brain_of(inside, t1w.grid)
    whole = np.ones_like(brain.probability)
    larger = replace(brain, probability=whole, inside=Intracranial(whole, brain.grid, 0.9))
    aligned = wml.segment(t1w, larger, flair, predictors(Bright()))
    assert (aligned.brain_mm3, aligned.icv_mm3) == (larger.volume_mm3, larger.icv_mm3)
    alone = wml.segment(bent(t1w), larger, flair, predictors(Bright()))
    assert codes(alone)["flair-misaligned"] == "error"
    assert (alone.brain_mm3, alone.icv_mm3) == (brain.volume_mm3, None)


def test_a_flair_alone_works_with_a_warning(found, flair):
    result = wml.segment(None, None, flair, predictors(Bright()))
    assert codes(result) == {**codes(result), "flair-alone": "warning"}
    assert result.labels.grid == result.on_flair.grid == flair.grid
    assert result.pair.fit is None and len(result.lesions) == 1


def test_exchanged_scans_and_a_t2w_are_told(found, t1w, flair, inside):
    brain = brain_of(inside, t1w.grid)
    as_t1w = Volume(as_flair(t1w.data, float(np.percentile(t1w.data, 99))), t1w.grid)
    swapped = coregistration.pair_scans(t1w, as_t1w, None, brain=brain)
    assert "scans-swapped" in {finding.code for finding in swapped.findings}
    top = float(t1w.data.max())
    bright = Volume(np.where(inside, top - 0.7 * t1w.data, t1w.data), t1w.grid)
    t2w = coregistration.pair_scans(bright, None, None)
    assert "flair-contrast" in {finding.code for finding in t2w.findings}
    twice = coregistration.pair_scans(flair, flair, None, brain=brain)
    assert "scans-identical" in {finding.code for finding in twice.findings}
    right = coregistration.pair_scans(flair, t1w, None, brain=brain)
    odd = {"scans-swapped", "scans-identical", "flair-contrast"}
    assert odd.isdisjoint(f.code for f in right.findings)


def test_a_flair_of_a_part_of_the_head_is_told(found, t1w, flair, inside):
    start = (0, 0, flair.grid.shape[2] // 2)
    upper = Volume(flair.data[:, :, start[2] :], flair.grid.crop(start, flair.grid.shape))
    result = coregistration.pair_scans(upper, t1w, None, brain=brain_of(inside, t1w.grid))
    told = {finding.code: finding.message for finding in result.findings}
    assert "% of the brain" in told["flair-view"]
    assert told["small-view"].startswith("FLAIR: not a whole head")


def test_brains_that_do_not_fit_are_told(found, t1w, flair, inside):
    half = inside.copy()
    half[:, : half.shape[1] // 2] = False
    result = coregistration.pair_scans(flair, t1w, None, brain=brain_of(half, t1w.grid))
    assert "brains-differ" in {finding.code for finding in result.findings}
    assert result.t1w is t1w  # it lies where it should all the same


def test_a_flair_without_a_brain_is_an_error_that_names_it(monkeypatch, flair):
    def broken(*_):
        raise SegmentationError("12 ml found")

    monkeypatch.setattr(coregistration, "find_brain", broken)
    with pytest.raises(SegmentationError, match="FLAIR: 12 ml"):
        wml.segment(None, None, flair, predictors(Bright()))


def test_without_a_flair_the_task_is_skipped(t1w):
    with pytest.raises(SkippedTask, match="requires a FLAIR"):
        wml.segment(t1w, None, None, predictors(Bright()))
    with pytest.raises(SkippedTask, match="requires a FLAIR"):
        wml.segment_prepared(t1w, None, Bright())


def test_specks_and_what_lies_outside_the_brain_are_no_lesions(found, flair):
    data = flair.data.copy()
    data[3, 3, 3] = 50  # in the air
    network = Bright()
    whole = network.slices

    def noisy(image, *, mirrored):
        out = whole(image, mirrored=mirrored)
        out[:, :, ::4, ::4] = [[[[0.2]]], [[[0.8]]]]  # single pixels, inside and outside
        return out

    network.slices = noisy
    result = wml.segment(None, None, Volume(data, flair.grid), predictors(network))
    assert len(result.lesions) == 1
    np.testing.assert_allclose(result.posteriors[0].data.sum(axis=0), 1, atol=1e-6)


def test_prepared_scans_need_no_brain_model(t1w, inside):
    extracted = replace(t1w, data=np.where(inside, t1w.data, 0).astype("f4"))
    top = float(np.percentile(t1w.data, 99))
    flair = with_spot(replace(t1w, data=np.where(inside, as_flair(t1w.data, top) + 0.1, 0)))
    network = Bright()
    result = wml.segment_prepared(extracted, flair, network)
    np.testing.assert_allclose(centre(result.labels), SPOT, atol=2.5)
    assert result.labels.grid == flair.grid and result.aligned
    dark = replace(flair, data=np.zeros_like(flair.data))
    with pytest.raises(SignalError, match="the image contains no brain"):
        wml.segment_prepared(extracted, dark, network)


@pytest.mark.parametrize(
    ("thresholds", "there"),
    [
        (None, True),
        ([[8000, 0.9], [20000, 0.5]], False),  # 0.8 is doubtful where there is little
        ([[500, 0.9], [1000, 0.5]], True),  # the load is above both
        ([[8000, 0.7], [20000, 0.5]], True),
    ],
)
def test_the_threshold_of_a_lesion_follows_the_load(found, flair, thresholds, there):
    network = Bright()
    certain = network.slices

    def unsure(image, *, mirrored):
        out = certain(image, mirrored=mirrored)
        out[1] *= 0.8
        out[0] = 1 - out[1]
        return out

    network.slices = unsure
    if thresholds:
        network.bundle.facts["volume_thresholds"] = {"White-Matter-Lesion": thresholds}
    result = wml.segment(None, None, flair, predictors(network))
    assert bool(result.lesions) is there and bool(result.labels.data.any()) is there
    np.testing.assert_allclose(result.posteriors[0].data.sum(axis=0), 1, atol=1e-5)


def test_sagittal_slices_are_not_mirrored(found, t1w):
    grid = canonical_grid(t1w.grid, 4.0)
    affine = grid.affine @ np.diag([1.5, 1, 1, 1])
    thick = Grid((int(grid.shape[0] / 1.5), *grid.shape[1:]), affine)
    top = float(np.percentile(t1w.data, 99))
    flair = with_spot(Volume(as_flair(resample(t1w.data, t1w.grid, thick), top), thick))
    network = Bright()
    result = wml.segment(None, None, flair, predictors(network))
    assert network.mirrored == [False]
    np.testing.assert_allclose(centre(result.labels), SPOT, atol=3)
