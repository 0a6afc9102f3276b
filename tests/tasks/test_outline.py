"""The outline of a brain at 1 mm: finer than the mask it starts from, and never wilder."""

from __future__ import annotations

import numpy as np
import pytest

from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.tasks.outline import find_outline, is_fine
from tests.tasks.phantom import ByLevel, box, dice, paint

MIDDLE = (5.0, -8.0, 11.0)
GREY, WHITE, SULCUS = 90, 140, 20
SCAN = box(150, 1.0, MIDDLE)
COARSE = box(80, 2.0, MIDDLE)
BRAIN = [(MIDDLE, (46, 52, 44), GREY), (MIDDLE, (38, 44, 36), WHITE)]
CUT = (np.add(MIDDLE, (0, 44, 20)), (3, 16, 16), SULCUS)  # between the halves, from above


def network(*windows, top=WHITE):
    labels = LabelTable((Label(1, "Brain"),))
    return ByLevel(labels, Preparation(1.0, "brain"), windows, (0, top))


def rough(radii=(47, 53, 45)):
    """The mask at 2 mm, without the sulcus."""
    return paint(COARSE, [(MIDDLE, radii, 1.0)])


def mask_on(grid):
    return paint(grid, [(MIDDLE, (47, 53, 45), 1.0)]) > 0


def outline(parts=(*BRAIN, CUT), probability=None):
    volume = Volume(paint(SCAN, parts), SCAN)
    start = rough() if probability is None else probability
    return find_outline(volume, start, COARSE, mask_on, network((55, 999)))


def test_the_outline_goes_into_a_sulcus_that_the_mask_fills() -> None:
    found = outline()
    truth = paint(found.grid, (*BRAIN, CUT))
    assert found.grid.spacing == pytest.approx((1, 1, 1))
    brain, fluid = truth > SULCUS, truth == SULCUS
    assert dice(found.probability > 0.5, brain) > 0.99
    assert (found.probability[fluid] > 0.5).mean() < 0.1
    assert found.confidence > 0.95


def test_what_lies_apart_from_the_brain_is_not_brain() -> None:
    apart = (np.add(MIDDLE, (0, 0, -45)), (3, 3, 1.5), WHITE)
    found = outline([(MIDDLE, (46, 52, 40), GREY), (MIDDLE, (38, 44, 36), WHITE), apart])
    places = found.grid.to_voxel([apart[0]]).round().astype(int)[0]
    assert found.probability[tuple(places)] == 0


def test_an_outline_that_is_much_smaller_or_larger_than_the_mask_is_none() -> None:
    assert outline([(MIDDLE, (38, 44, 36), WHITE)]) is None
    assert outline(probability=rough((42, 48, 40))) is None


@pytest.mark.parametrize(("spacing", "fine"), [(0.67, True), (1.5, True), (2.0, False)])
def test_only_fine_scans_are_outlined(spacing: float, fine: bool) -> None:
    assert is_fine(box(10, spacing)) is fine
