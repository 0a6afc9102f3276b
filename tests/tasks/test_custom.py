"""A model of one's own: on images that are what its network sees, and in a session."""

from types import SimpleNamespace

import numpy as np
import pytest

from deepmrseg_bids.errors import SegmentationError, SignalError
from deepmrseg_bids.imaging.grid import Grid, centred_grid
from deepmrseg_bids.imaging.intensity import OUTSIDE
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.tasks import custom
from deepmrseg_bids.tasks.brain import Brain
from deepmrseg_bids.tasks.custom import task_of
from deepmrseg_bids.tasks.pipeline import SessionContext
from deepmrseg_bids.tasks.results import Posteriors, Segmentation
from tests.support import stored_as
from tests.tasks.phantom import ByLevel, dice, paint, scan

TABLE = LabelTable((Label(4, "Left-Nut"), Label(9, "Right-Nut")))
DARK, TISSUE, LEFT, RIGHT = 10.0, 20.0, 30.0, 40.0


def predictor(mode, shape=(0, 0, 0), spacing=1.0, *, preparation=None):
    model = ByLevel(
        TABLE,
        preparation or Preparation(spacing=spacing, intensity=mode, shape=shape),
        [(25, 35), (35, 45)],
        (DARK, RIGHT),
    )
    model.bundle.task = "nuts"
    model.bundle.network = SimpleNamespace(spatial_dims=3)
    return model


def prepared(volume, model):
    """What the task of the model's bundle makes of an image."""
    return task_of(model.bundle).segment_prepared({"T1w": volume}, lambda _: model)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PSR", "AIL"])
def test_every_label_comes_back_where_its_tissue_is(codes):
    raw = np.random.default_rng(1).choice([DARK, TISSUE, LEFT, RIGHT], (7, 8, 9)).astype("f4")
    data, grid = stored_as(raw, Grid(raw.shape, np.eye(4)), codes)
    result = prepared(Volume(data, grid), predictor("crop"))
    np.testing.assert_array_equal(
        result.labels.data, np.select([data == LEFT, data == RIGHT], [4, 9])
    )
    assert result.task == "nuts"
    assert result.labels.grid == grid
    assert [row.name for row in result.measures] == ["Left-Nut", "Right-Nut"]


def test_in_a_brain_extracted_scan_only_the_brain_counts():
    raw = np.random.default_rng(2).choice([DARK, TISSUE, LEFT, RIGHT], (8, 8, 8)).astype("f4")
    raw[:2] = 0
    model = predictor("brain", shape=(12, 12, 12))
    result = prepared(Volume(raw, Grid(raw.shape, np.eye(4))), model)
    assert not result.labels.data[:2].any()
    (image,) = model.seen
    assert image.shape == (12, 12, 12)
    assert (image != OUTSIDE).sum() == (raw > 0).sum()


@pytest.mark.parametrize("level", [0.0, 7.0])
def test_an_image_without_contrast_is_refused(level):
    flat = Volume(np.full((6, 6, 6), level, np.float32), Grid((6, 6, 6), np.eye(4)))
    with pytest.raises(SignalError):
        prepared(flat, predictor("brain"))


# -- in a session: where the network looks -------------------------------------------------------


@pytest.mark.parametrize(
    ("preparation", "models", "says"),
    [
        (Preparation(1.0, "crop"), (), "in the whole image"),
        (Preparation(1.0, "brain"), ("brain", "icv", "outline"), "within the brain"),
        (
            Preparation(1.0, "crop", (8, 8, 8)),
            ("brain", "icv", "outline"),
            "around the deep structures",
        ),
        (
            Preparation(1.0, "crop", (8, 8, 8), around=("Brain",)),
            ("brain", "icv", "outline"),
            "around Brain",
        ),
        (
            Preparation(1.0, "crop", (8, 8, 8), around=("Left-Thalamus", "Brain")),
            ("brain", "icv", "outline", "deepbrain"),
            "around Left-Thalamus, Brain",
        ),
    ],
)
def test_the_models_on_the_way_are_those_that_find_the_crop(preparation, models, says):
    task = task_of(predictor(preparation.intensity, preparation=preparation).bundle)
    assert task.models == (*models, "nuts")
    assert task.required == ("T1w",) and not task.lesions and not task.brain_mask
    assert says in task.methods


def test_a_network_of_slices_works_on_the_flair_and_lists_no_lesions():
    model = predictor("brain")
    model.bundle.network = SimpleNamespace(spatial_dims=2)
    task = task_of(model.bundle)
    assert task.models == ("brain", "icv", "outline", "nuts")
    assert (task.required, task.optional, task.native) == (("FLAIR",), ("T1w",), "FLAIR")
    assert not task.lesions


def test_a_bundle_may_give_its_task_a_title():
    model = predictor("crop")
    assert task_of(model.bundle).title == "nuts"
    model.bundle.facts = {"title": "Both nuts"}
    assert task_of(model.bundle).title == task_of(model.bundle).description == "Both nuts"


HEAD = centred_grid((0, 0, 0), (60, 50, 40), 1.0)
PARTS = [
    ((0, 0, 0), (26, 21, 17), TISSUE),
    ((-12, 4, 2), (7, 7, 7), LEFT),
    ((12, 4, 2), (7, 7, 7), RIGHT),
    ((0, -12, 0), (20, 6, 10), DARK),
]
BRAIN_AT = centred_grid((0, 0, 0), (30, 25, 20), 2.0)


@pytest.fixture
def session(monkeypatch):
    """A head whose brain and thalami are known; what a model finds in it."""
    inside = (paint(BRAIN_AT, PARTS[:1]) > 0).astype(np.float32)
    brain = Brain(inside, BRAIN_AT, (3.0, 1.0, 0.0), 0.9)
    around = centred_grid((0, 4, 2), (40, 20, 20), 1.0)
    found = paint(around, PARTS[1:3])
    shares = np.stack([found == 0, found == LEFT, found == RIGHT]).astype(np.float32)
    names = LabelTable((Label(7, "Left-Thalamus"), Label(8, "Right-Thalamus")))
    deep = Segmentation("deepbrain", None, names, (), (Posteriors(shares, around, (0, 7, 8)),))
    monkeypatch.setattr(custom, "brain_of", lambda _: brain)
    monkeypatch.setattr(custom, "t1w_of", lambda context: context.t1w)
    monkeypatch.setattr(custom, "deep_structures_of", lambda _: (deep, ()))

    def run(preparation, codes="RAS"):
        model = predictor(preparation.intensity, preparation=preparation)
        volume = scan(PARTS, HEAD, DARK, codes)
        context = SessionContext({"T1w": volume}, lambda _: model)
        return task_of(model.bundle).segment(context), model, volume

    return run


@pytest.mark.parametrize("codes", ["RAS", "PSR"])
@pytest.mark.parametrize(
    "preparation",
    [
        Preparation(1.0, "crop"),
        Preparation(1.0, "brain"),
        Preparation(1.0, "crop", (44, 44, 34)),
        Preparation(1.0, "brain", (44, 44, 34), around=("Brain",)),
        Preparation(1.0, "brain", (40, 30, 30), around=("Left-Thalamus", "Right-Thalamus")),
    ],
)
def test_in_a_session_the_labels_are_where_their_tissue_is(session, preparation, codes):
    result, model, volume = session(preparation, codes)
    truth = np.select([volume.data == LEFT, volume.data == RIGHT], [4, 9])
    assert dice(result.labels.data == 4, truth == 4) > 0.95
    assert dice(result.labels.data == 9, truth == 9) > 0.95
    assert result.labels.grid == volume.grid and result.task == "nuts"
    if any(preparation.shape):
        assert {image.shape for image in model.seen} == {preparation.shape}
    knows_brain = preparation != Preparation(1.0, "crop")
    assert (result.brain_mm3 is not None) == knows_brain


def test_a_crop_around_named_structures_is_cut_around_their_middle(session):
    sides = ("Left-Thalamus", "Right-Thalamus")
    result, model, _ = session(Preparation(1.0, "crop", (40, 30, 30), around=sides))
    middle = np.array(result.posteriors[0].grid.corners()).mean(axis=0)
    np.testing.assert_allclose(middle, (0, 4, 2), atol=1)
    assert len(model.seen) == 1  # it was right at once


def test_a_crop_around_what_deepbrain_does_not_know_is_an_error_that_lists_what_it_knows(session):
    with pytest.raises(SegmentationError, match=r"Left-Nose.*it segments Left-Thalamus, Right"):
        session(Preparation(1.0, "crop", (16, 16, 16), around=("Left-Nose",)))
