"""A model of one's own, on images that are what its network sees."""

from types import SimpleNamespace

import numpy as np
import pytest

from deepmrseg_bids.errors import SignalError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.intensity import OUTSIDE
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.tasks.custom import task_of
from tests.support import stored_as
from tests.tasks.phantom import ByLevel

TABLE = LabelTable((Label(4, "Left-Nut"), Label(9, "Right-Nut")))
DARK, TISSUE, LEFT, RIGHT = 10.0, 20.0, 30.0, 40.0


def predictor(mode, shape=(0, 0, 0), spacing=1.0):
    model = ByLevel(
        TABLE,
        Preparation(spacing=spacing, intensity=mode, shape=shape),
        [(25, 35), (35, 45)],
        (DARK, RIGHT),
    )
    model.bundle.task = "nuts"
    model.bundle.network = SimpleNamespace(spatial_dims=3)
    return model


def prepared(volume, model):
    """What the task of the model's bundle makes of an image."""
    return task_of(model.bundle).segment_prepared({"T1w": volume}, model)


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
