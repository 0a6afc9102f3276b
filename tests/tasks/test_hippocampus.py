"""Both hippocampi through a network that knows left ones."""

from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid, centred_grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume, read_volume
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.inference.predictor import PredictorPool
from deepmrseg_bids.tasks import custom, hippocampus
from deepmrseg_bids.tasks.hippocampus_search import best_fit
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.results import (
    Posteriors,
    Segmentation,
    confidences,
    native_posteriors,
)
from tests.support import ORIENTATIONS, stored_as
from tests.tasks.phantom import ByLevel, dice, paint, tilted

ANTERIOR, POSTERIOR, NEARBY, TISSUE = 200, 160, 40, 100
NETWORK_TABLE = LabelTable((Label(1, "Anterior"), Label(2, "Posterior")))
DEEP_TABLE = LabelTable((Label(47, "Right-Hippocampus"), Label(48, "Left-Hippocampus")))
FIELD = centred_grid((0, 0, 0), (84, 48, 36), 1.0)  # symmetric about x = 0


def side(sign):
    """One hippocampus; what lies beside it is lateral, so a mirror shows."""
    return [
        ((sign * 25, 8, -4), (6, 9, 5), ANTERIOR),
        ((sign * 23, -8, 3), (5, 8, 5), POSTERIOR),
        ((sign * 35, 0, 0), (3, 12, 8), NEARBY),
    ]


HEAD = [*side(-1), *side(1)]


def predictor(shape=(32, 44, 28), window=(0, 0, 0)):
    windows = [(ANTERIOR - 12, ANTERIOR + 12), (POSTERIOR - 12, POSTERIOR + 12)]
    preparation = Preparation(1.0, "crop", shape, margin=6, window=window)
    return ByLevel(NETWORK_TABLE, preparation, windows, (NEARBY, ANTERIOR))


def deep(sides=("left", "right"), *, speck=False):
    """What ``deepbrain`` would have found: each hippocampus as a whole."""
    truth = paint(FIELD, HEAD, TISSUE)
    whole = (truth == ANTERIOR) | (truth == POSTERIOR)
    left = np.indices(FIELD.shape)[0] < FIELD.shape[0] / 2
    data = np.zeros((3, *FIELD.shape), np.float32)
    data[1] = whole & ~left & ("right" in sides)
    data[2] = whole & left & ("left" in sides)
    if speck:
        data[2, 10, 10, 5:30] = 1  # 25 voxels
    data[0] = 1 - data[1] - data[2]
    labels = LabelMap(np.zeros(FIELD.shape, np.uint8), FIELD)
    return Segmentation(
        "deepbrain", labels, DEEP_TABLE, (), (Posteriors(data, FIELD, (0, *DEEP_TABLE.indices)),)
    )


def off_by(found, step):
    """The same deep structures, seen somewhere else in the world."""
    posteriors = found.posteriors[0]
    affine = posteriors.grid.affine.copy()
    affine[:3, 3] += step
    grid = Grid(posteriors.grid.shape, affine)
    return replace(found, posteriors=(replace(posteriors, grid=grid),))


def speckled(codes="RAS"):
    """A larger field, and the darkest and the brightest level wherever a crop is cut."""
    grid = centred_grid((0, 0, 0), (108, 64, 52), 1.0)
    data = paint(grid, HEAD, TISSUE)
    for first, level in ((0, NEARBY), (2, ANTERIOR)):
        some = data[first::4, first::4, first::4]
        some[some == TISSUE] = level
    return Volume(*stored_as(data, grid, codes))


def volume(codes="RAS"):
    if codes == "oblique":
        grid = tilted(FIELD, 9)
        return Volume(paint(grid, HEAD, TISSUE), grid)
    return Volume(*stored_as(paint(FIELD, HEAD, TISSUE), FIELD, codes))


def test_the_network_sees_the_right_hippocampus_as_the_left_one():
    model = predictor()
    hippocampus.segment(volume(), deep(), model)
    left, right = model.seen[:2]
    np.testing.assert_allclose(left, right, atol=1e-5)
    assert np.abs(left - left[::-1]).max() > 1, "a crop that is its own mirror image says nothing"


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR", "SLP", "oblique"])
def test_anterior_and_posterior_of_each_side_get_labels_of_their_own(codes):
    scan = volume(codes)
    result = hippocampus.segment(scan, deep(), predictor())
    assert result.labels.grid == scan.grid
    assert result.findings == ()
    world = scan.grid.to_world(np.indices(scan.grid.shape).reshape(3, -1).T)
    x = world[:, 0].reshape(scan.grid.shape)
    labels = result.labels.data
    assert (x[(labels == 1) | (labels == 2)] < 0).all()
    assert (x[(labels == 3) | (labels == 4)] > 0).all()
    for label, level, left in ((1, ANTERIOR, True), (2, POSTERIOR, True),
                               (3, ANTERIOR, False), (4, POSTERIOR, False)):  # fmt: skip
        truth = (scan.data == level) & ((x < 0) == left)
        assert dice(labels == label, truth) > 0.7, label
        middles = [
            scan.grid.to_world(np.argwhere(m)).mean(axis=0) for m in (labels == label, truth)
        ]
        np.testing.assert_allclose(*middles, atol=1)
    assert [row.index for row in result.measures] == [1, 2, 3, 4]
    assert all(row.confidence > 0.9 for row in result.measures)


SIX_MM = [sign * 6 * axis for axis in np.eye(3) for sign in (-1, 1)]


@pytest.mark.parametrize("step", SIX_MM, ids=str)
@pytest.mark.parametrize("codes", ["RAS", "PSR", "LPI"])
def test_an_error_of_deepbrain_leaves_no_trace(codes, step):
    scan = speckled(codes)
    truth = hippocampus.segment(scan, deep(), predictor())
    result = hippocampus.segment(scan, off_by(deep(), step), predictor())
    np.testing.assert_array_equal(result.labels.data, truth.labels.data)
    assert [row.confidence for row in result.measures] == [row.confidence for row in truth.measures]
    assert result.findings == ()


@pytest.mark.parametrize("codes", ["RAS", "PIL", "LSA"])
def test_a_search_never_crosses_to_the_other_side(codes):
    scan = speckled(codes)
    places = {1: (-25, 8, -4), 2: (-23, -8, 3), 3: (25, 8, -4), 4: (23, -8, 3)}
    for step in ((6, 0, 0), (-4, 4, 4)):
        labels = hippocampus.segment(scan, off_by(deep(), step), predictor()).labels.data
        for label, place in places.items():
            points = scan.grid.to_world(np.argwhere(labels == label))
            assert (np.sign(points[:, 0]) == np.sign(place[0])).all()
            np.testing.assert_allclose(points.mean(axis=0), place, atol=1)


def test_a_crop_that_fits_is_cut_no_more_than_twice():
    model = predictor()
    hippocampus.segment(volume(), deep(), model)
    assert len(model.seen) <= 4  # both sides, each look


@pytest.mark.parametrize("codes", ["RAS", "PSR"])
def test_a_search_looks_at_windows_and_the_last_look_is_at_the_whole_crop(codes):
    model = predictor((36, 48, 32), window=(32, 44, 28))
    scan = speckled(codes)
    result = hippocampus.segment(scan, off_by(deep(), (3, -2, 4)), model)
    shapes = [image.shape for image in model.seen]
    assert set(shapes[:-2]) == {(32, 44, 28)} and len(shapes) > 2
    assert shapes[-2:] == [(36, 48, 32)] * 2
    whole = hippocampus.segment(scan, deep(), predictor((36, 48, 32)))
    np.testing.assert_array_equal(result.labels.data, whole.labels.data)


def test_both_sides_are_seen_together_until_both_have_come_to_rest():
    model = predictor()
    sizes = []
    seen_by = model.many
    model.many = lambda images: sizes.append(len(images)) or seen_by(images)
    hippocampus.segment(speckled(), off_by(deep(), (6, 0, 0)), model)
    assert set(sizes) == {2} and len(sizes) > 1


def test_deepbrain_far_off_is_told():
    result = hippocampus.segment(speckled(), off_by(deep(), (0, 14, 0)), predictor())
    for side in ("Left", "Right"):
        assert any(
            one.code == "hippocampus-far" and f"{side}-Hippocampus was found" in one.message
            for one in result.findings
        ), result.findings


def test_a_search_without_an_end_is_told():
    """What is found lies always ahead of the crop's middle."""

    class Ahead(ByLevel):
        def __call__(self, image):
            out = np.zeros((3, *image.shape), np.float32)
            out[1, 10:20, -20:-4, 10:20] = 1
            out[0] = 1 - out[1]
            return out

    model = predictor()
    model.__class__ = Ahead
    result = hippocampus.segment(volume(), deep(), model)
    for side in ("Left", "Right"):
        text = f"the search for {side}-Hippocampus did not converge"
        assert Finding("hippocampus-restless", "warning", text) in result.findings


def test_of_a_search_that_leads_nowhere_the_fullest_look_stands():
    class Fading(ByLevel):
        """Each look finds half of what the one before found, somewhere else."""

        def __call__(self, image):
            self.seen.append(image)
            out = np.zeros((3, *image.shape), np.float32)
            out[1, 4:14, 30 : 30 + 12 // len(self.seen), 6:16] = 1
            out[0] = 1 - out[1]
            return out

    model = predictor()
    model.__class__ = Fading
    result = hippocampus.segment(volume(), deep(["left"]), model)
    assert len(model.seen) == 2
    assert result.measures[0].volume_mm3 == 10 * 12 * 10


@pytest.mark.parametrize("edges", [(8, 9, 10), (12, 12, 12), (9, 11, 7)], ids=str)
@pytest.mark.parametrize("step", [(0, 0, 0), (1, -2, 1), (-2, 1, 2)], ids=str)
def test_an_outline_is_moved_onto_what_was_found(edges, step):
    outline = np.zeros(edges)
    outline[3:5, 3:6, 2:4] = np.random.default_rng(1).uniform(0.5, 1, (2, 3, 2))
    found = np.roll(outline, step, (0, 1, 2))
    np.testing.assert_array_equal(best_fit(outline, found), step)


@pytest.fixture(scope="module")
def average():
    """The MNI152 average, and what the shipped models find in it."""
    name = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    scan, pool = read_volume(str(files("nilearn.datasets") / "data" / name)), PredictorPool()
    ((_, found),) = run({"T1w": scan}, ["deepbrain"], pool)
    return scan, found, pool("hippocampus")


def whole_volumes(result):
    parts = [row.volume_mm3 for row in result.measures]
    return np.array([*parts, parts[0] + parts[1], parts[2] + parts[3]])


def test_a_deepbrain_six_millimetres_off_moves_no_volume_by_more_than_three_percent(average):
    scan, found, model = average
    truth = whole_volumes(hippocampus.segment(scan, found, model))
    assert truth.min() > 500
    for step in SIX_MM:
        result = hippocampus.segment(scan, off_by(found, step), model)
        change = 100 * np.abs(whole_volumes(result) / truth - 1)
        assert change.max() <= 3, (step, change)


@pytest.mark.parametrize(
    ("there", "missing", "labels"), [("left", "Right", {1, 2}), ("right", "Left", {3, 4})]
)
def test_a_side_that_was_not_found_is_left_empty_with_a_warning(there, missing, labels):
    model = predictor()
    result = hippocampus.segment(volume(), deep([there]), model)
    assert len(model.seen) <= 2
    assert set(np.unique(result.labels.data)) == {0, *labels}
    text = f"{missing}-Hippocampus was not found, so its parts are missing"
    assert result.findings == (Finding("structure-missing", "error", text),)
    empty = [row for row in result.measures if row.index not in labels]
    assert [(row.volume_mm3, row.confidence) for row in empty] == [(0, None)] * 2


def test_both_sides_share_the_calibration_of_the_one_network():
    model = predictor()
    model.bundle.facts = {"volume_interval": {"Anterior": [0.9, 1.2], "Posterior": [0.8, 1.1]}}
    rows = hippocampus.segment(volume(), deep(), model).measures
    factors = [(row.low_mm3 / row.volume_mm3, row.high_mm3 / row.volume_mm3) for row in rows]
    np.testing.assert_allclose(factors, [(0.9, 1.2), (0.8, 1.1)] * 2)


def test_a_speck_is_no_hippocampus():
    result = hippocampus.segment(volume(), deep(["right"], speck=True), predictor())
    assert set(np.unique(result.labels.data)) == {0, 3, 4}


@pytest.mark.parametrize("there", ["left", "right", "both"])
def test_posteriors_on_the_scan_agree_with_the_labels(there):
    sides = ("left", "right") if there == "both" else (there,)
    result = hippocampus.segment(volume(), deep(sides), predictor())
    native = list(native_posteriors(result))
    for place, label in enumerate(result.table):
        chosen = result.labels.data == label.index
        if chosen.any():
            assert dice(native[place] > 0.49, chosen) > 0.7, label.name
        else:
            assert native[place].max() == 0, label.name


@pytest.mark.parametrize("codes", [*ORIENTATIONS[::7]])
@pytest.mark.parametrize(
    "shape", [(9, 12, 7), (10, 11, 8), (8, 9, 9), (15, 16, 21), (14, 13, 10), (11, 8, 15)], ids=str
)
def test_a_prepared_crop_of_any_shape_gets_its_labels_exactly_at_their_voxels(shape, codes):
    """Smaller and larger than the network's crop, odd and even."""
    rng = np.random.default_rng(sum(shape))
    raw = rng.choice([NEARBY, TISSUE, POSTERIOR, ANTERIOR], shape).astype(np.float32)
    affine = np.eye(4)
    affine[:3, 3] = (-31, 12.5, 7.25)
    data, grid = stored_as(raw, Grid(shape, affine), codes)
    model = predictor((10, 12, 8))
    result = custom.segment(Volume(data, grid), model)
    expected = np.select([data == ANTERIOR, data == POSTERIOR], [1, 2])
    np.testing.assert_array_equal(result.labels.data, expected)
    assert result.labels.grid == grid
    assert [row.volume_mm3 for row in result.measures] == [
        (expected == 1).sum(), (expected == 2).sum()
    ]  # fmt: skip
    assert all(n >= m for n, m in zip(model.seen[0].shape, (10, 12, 8), strict=True))


def test_outside_a_prepared_crop_the_network_sees_the_mean():
    raw = np.random.default_rng(0).choice([NEARBY, TISSUE, ANTERIOR], (6, 6, 6)).astype(np.float32)
    model = predictor((10, 10, 10))
    custom.segment(Volume(raw, Grid(raw.shape, np.eye(4))), model)
    (image,) = model.seen
    assert image.shape == (10, 10, 10)
    inside = np.zeros(image.shape, bool)
    inside[2:8, 2:8, 2:8] = True
    assert (image[~inside] == 0).all()
    assert abs(image[inside].mean()) < 1e-5


def doubtful(rng, shape=(6, 12, 5)):
    """Posteriors of a network that is not sure of anything."""
    data = rng.dirichlet((2.0, 1.0, 1.0), shape).astype(np.float32)
    return Posteriors(np.moveaxis(data, -1, 0), centred_grid((0, 0, 0), shape, 1.0), (0, 1, 2))


@given(seed=st.integers(0, 2**32 - 1))
def test_all_that_is_anterior_lies_in_front_of_all_that_is_posterior(seed):
    found = doubtful(np.random.default_rng(seed))
    labels = hippocampus.with_coronal_border(found).labels()
    front, back = (np.flatnonzero((labels == part).any(axis=(0, 2))) for part in (1, 2))
    assert front.size == 0 or back.size == 0 or front.min() > back.max()


@given(seed=st.integers(0, 2**32 - 1))
def test_the_border_moves_nothing_into_the_hippocampus_or_out_of_it(seed):
    found = doubtful(np.random.default_rng(seed))
    bordered = hippocampus.with_coronal_border(found)
    np.testing.assert_array_equal(bordered.data[0], found.data[0])
    np.testing.assert_allclose(bordered.data.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("first", [0, 1, 5, 12])
def test_parts_that_a_plane_divides_already_stay_as_they_are(first):
    data = np.zeros((3, 6, 12, 5), np.float32)
    data[1, 1:5, first:], data[2, 1:5, :first] = 1, 1
    data[0] = 1 - data[1] - data[2]
    found = Posteriors(data, centred_grid((0, 0, 0), (6, 12, 5), 1.0), (0, 1, 2))
    np.testing.assert_array_equal(hippocampus.with_coronal_border(found).data, data)


def test_a_stray_vote_does_not_move_the_border():
    data = np.zeros((3, 6, 12, 5), np.float32)
    data[1, :, 6:], data[2, :, :6] = 1, 1
    data[:, 2, 2, 2] = 0, 1, 0
    found = Posteriors(data, centred_grid((0, 0, 0), (6, 12, 5), 1.0), (0, 1, 2))
    labels = hippocampus.with_coronal_border(found).labels()
    assert (labels[:, 6:] == 1).all() and (labels[:, :6] == 2).all()


def test_doubt_about_the_border_still_lowers_the_confidence():
    shape = (6, 12, 5)
    sure, torn = np.zeros((2, 3, *shape), np.float32)
    sure[1, :, 6:], sure[2, :, :6] = 1, 1
    torn[1, :, 6:], torn[2, :, 6:] = 0.6, 0.4
    torn[1, :, :6], torn[2, :, :6] = 0.4, 0.6
    known = {}
    for name, data in {"sure": sure, "torn": torn}.items():
        found = Posteriors(data, centred_grid((0, 0, 0), shape, 1.0), (0, 1, 2))
        known[name] = confidences(found, hippocampus.with_coronal_border(found).labels())
    assert known["sure"] == {1: 1.0, 2: 1.0}
    assert known["torn"] == pytest.approx({1: 0.6, 2: 0.6})


def test_no_voxel_far_from_a_hippocampus_is_labelled_because_two_parts_share_it():
    """Both parts together can outweigh the background where neither does alone."""
    grid = Grid(FIELD.shape, FIELD.affine)
    raw = paint(grid, HEAD, TISSUE)
    model = predictor()
    asked = model.many

    def with_speck(images):
        answers = asked(images)
        for answer in answers:
            answer[:, 2, 2, 2] = 0.4, 0.3, 0.3
        return answers

    model.many = with_speck
    result = hippocampus.segment(Volume(raw, grid), deep(), model)
    pieces = [ndimage.label(result.labels.data == index)[1] for index in (1, 2, 3, 4)]
    assert pieces == [1, 1, 1, 1]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR"])
def test_a_prepared_crop_is_divided_by_a_plane_in_any_orientation(codes):
    """A crop of a left hippocampus whose head lies beside, not before, a piece of its tail."""
    shape = (30, 40, 30)
    grid = centred_grid((-24, 0, 0), shape, 1.0)
    raw = paint(grid, [*side(-1), ((-29, 6, -4), (2, 2, 2), POSTERIOR)], TISSUE)
    result = hippocampus.segment_prepared(Volume(*stored_as(raw, grid, codes)), predictor())
    assert result.table == NETWORK_TABLE
    forward = result.labels.grid.to_world(np.argwhere(result.labels.data == 1))[:, 1]
    backward = result.labels.grid.to_world(np.argwhere(result.labels.data == 2))[:, 1]
    assert forward.min() > backward.max()
    found = result.labels.data > 0
    expected = np.isin(stored_as(raw, grid, codes)[0], (ANTERIOR, POSTERIOR))
    assert dice(found, expected) > 0.99  # loose voxels at the border are given back
