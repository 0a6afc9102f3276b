"""From a head to its brain mask and to the middle of its deep structures."""

from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.errors import SegmentationError
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import Volume
from deepmrseg_bids.inference.bundle import Preparation
from deepmrseg_bids.tasks import brain
from tests.tasks.phantom import ByLevel, box, dice, paint, scan

MIDDLE = (7.0, -12.0, 20.0)  # of the field of view
DEEP = (4.0, -5.0, 23.0)  # off the middle of the head on every axis
GREY, WHITE, BRIGHT = 80, 140, 200
HEAD = [
    (MIDDLE, (46, 46, 46), GREY),
    (MIDDLE, (38, 38, 38), WHITE),
    (DEEP, (13, 15, 11), BRIGHT),
]


def predictor(spacing=2.0):
    labels = LabelTable((Label(1, "Brain"), Label(2, "Deep-Structures")))
    windows = ((40, 170), (170, 999))
    return ByLevel(labels, Preparation(spacing, "head"), windows, (0, BRIGHT))


def head(parts=HEAD, *, codes="RAS", edge=104, spacing=2.0):
    return scan(parts, box(edge, spacing, MIDDLE), codes=codes)


def test_the_middle_of_the_deep_structures_is_found_in_every_orientation(orientation):
    found = brain.find_brain(head(codes=orientation), predictor())
    np.testing.assert_allclose(found.centre, DEEP, atol=1)
    assert found.grid.orientation == "RAS"
    assert "no-deep-structures" not in {one.code for one in found.findings}


def test_the_middle_of_the_deep_structures_is_found_in_an_oblique_scan():
    found = brain.find_brain(head(codes="oblique"), predictor())
    np.testing.assert_allclose(found.centre, DEEP, atol=1)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRP", "oblique"])
def test_the_mask_lies_on_the_scans_own_grid(codes):
    volume = head(codes=codes)
    model = predictor()
    result = brain.segment(volume, brain.find_brain(volume, model), model)
    assert result.labels.grid == volume.grid
    assert set(np.unique(result.labels.data)) == {0, 1}
    truth = volume.data > 0
    assert dice(result.labels.data > 0, truth) > 0.98
    (row,) = result.measures
    assert (row.index, row.name) == (1, "Brain")
    assert row.volume_mm3 == pytest.approx(
        (result.labels.data > 0).sum() * volume.grid.voxel_volume
    )
    assert row.confidence > 0.95


class OfTwoMinds(ByLevel):
    """What is brain in the whole field of view begins at another level than in a cube."""

    def __init__(self, whole: int, cube: int) -> None:
        labels = LabelTable((Label(1, "Brain"), Label(2, "Deep-Structures")))
        super().__init__(labels, Preparation(2.0, "head"), (), (0, BRIGHT))
        self.lowest = (whole, cube)

    def __call__(self, image: np.ndarray, *, overlap: float = 0.5) -> np.ndarray:
        low = self.lowest[max(image.shape) <= 110]
        self.windows = ((low, 170), (170, 999))
        return super().__call__(image)


UP = np.array((0.0, 0.0, 70.0))
NECK = 30
LOWER = [(-UP, (43, 43, 43), GREY), (-UP, (32, 32, 32), WHITE)]
LARGE = [(UP, (60, 60, 60), GREY), (UP, (45, 45, 45), WHITE)]


@pytest.mark.parametrize(
    ("parts", "predictor", "several"),
    [
        (LOWER, OfTwoMinds(40, 40), True),
        ([(-UP, (43, 43, 43), NECK)], OfTwoMinds(NECK - 10, NECK + 10), False),
        ([*LARGE, (UP, (62, 62, 5), 50)], OfTwoMinds(60, 40), False),
    ],
    ids=["two heads", "a neck taken for brain at first", "one brain in two halves at first"],
)
def test_a_second_brain_is_one_that_is_found_like_the_first(parts, predictor, several):
    first = [(UP, (46, 46, 46), GREY), (UP, (38, 38, 38), WHITE)]
    deep = (np.add(UP, (0, 0, 14)), (13, 15, 8), BRIGHT)
    volume = scan([*first, *parts, deep], box(300, 2.0))
    found = brain.find_brain(volume, predictor)
    assert ("several-heads" in {one.code for one in found.findings}) is several


def test_the_mask_of_finer_voxels_has_the_same_place_and_size():
    found = brain.find_brain(head(), predictor())
    fine = box(104, 1.6, MIDDLE)
    assert dice(found.mask_on(fine), paint(fine, HEAD) > 0) > 0.97


def test_a_grid_far_from_the_brain_gets_an_empty_mask():
    found = brain.find_brain(head(), predictor())
    assert not found.mask_on(box(20, 2.0, (500, 0, 0))).any()


@pytest.mark.parametrize(
    ("radius", "edge", "spacing"), [(32, 104, 2.0), (100, 220, 5.0)], ids=["small", "large"]
)
def test_what_cannot_be_a_brain_is_an_error_that_names_the_limits(radius, edge, spacing):
    parts = [(MIDDLE, (radius,) * 3, GREY), (MIDDLE, (radius * 0.8,) * 3, WHITE)]
    parts.append((DEEP, (radius / 4,) * 3, BRIGHT))
    volume = head(parts, edge=edge, spacing=spacing)
    named = Volume(volume.data, volume.grid, source=Path("/data/sub-01_T1w.nii.gz"))
    size = 4 / 3 * np.pi * radius**3 / 1000
    with pytest.raises(SegmentationError, match="300 to 2800") as caught:
        brain.find_brain(named, predictor(spacing))
    message = str(caught.value)
    assert message.startswith("/data/sub-01_T1w.nii.gz: ")
    said = float(message.split(": ")[1].split(" ml")[0])
    assert said == pytest.approx(size, rel=0.05)


def test_holes_are_filled():
    hole = (MIDDLE[0] - 20, MIDDLE[1] - 10, MIDDLE[2])
    volume = head([*HEAD, (hole, (7, 7, 7), 0)])
    result = brain.segment(volume, brain.find_brain(volume, predictor()), predictor())
    place = tuple(np.round(volume.grid.to_voxel([hole])[0]).astype(int))
    assert volume.data[place] == 0
    assert result.labels.data[place] == 1
    assert dice(result.labels.data > 0, head().data > 0) > 0.98


def test_a_second_piece_is_dropped():
    apart = (MIDDLE[0], MIDDLE[1], MIDDLE[2] - 62)
    parts = [*HEAD, (apart, (10, 10, 10), WHITE)]
    volume = head(parts, edge=150, spacing=2.0)
    found = brain.find_brain(volume, predictor())
    mask = found.mask_on(volume.grid)
    place = tuple(np.round(volume.grid.to_voxel([apart])[0]).astype(int))
    assert volume.data[place] == WHITE
    assert not mask[place]
    assert found.volume_mm3 == pytest.approx(4 / 3 * np.pi * 46**3, rel=0.03)


def test_bright_spots_off_the_deep_structures_do_not_move_the_middle():
    spot = (MIDDLE[0] + 25, MIDDLE[1] + 20, MIDDLE[2] - 15)
    found = brain.find_brain(head([*HEAD, (spot, (5, 5, 5), BRIGHT)]), predictor())
    np.testing.assert_allclose(found.centre, DEEP, atol=1)


def test_a_brain_without_deep_structures_is_a_brain_with_a_warning():
    tiny = (DEEP, (5, 5, 5), BRIGHT)  # half a millilitre
    found = brain.find_brain(head([*HEAD[:2], tiny]), predictor())
    assert found.centre is None
    assert found.findings[0].code == "no-deep-structures"


def test_the_network_is_shown_no_less_than_its_window_whatever_the_field_of_view():
    volume = head(edge=104)  # 52 voxels of the network's
    model = predictor()
    model.bundle.preparation = Preparation(2.0, "head", window=(72, 40, 61))
    found = brain.find_brain(volume, model)
    assert model.seen[0].shape == (72, 52, 61)
    np.testing.assert_allclose(found.centre, DEEP, atol=1)
    assert dice(found.mask_on(volume.grid), volume.data > 0) > 0.98


class Dazzled(ByLevel):
    """Sees nothing in an image whose neighbouring voxels differ much."""

    limit = 0.3

    def __call__(self, image: np.ndarray, *, overlap: float = 0.5) -> np.ndarray:
        if np.abs(np.diff(image, axis=0)).mean() < self.limit:
            return super().__call__(image)
        self.seen.append(image.copy())
        nothing = np.zeros((3, *image.shape), np.float32)
        nothing[0] = 1
        return nothing


@pytest.mark.parametrize("strength", [0, 20])
def test_a_brain_that_noise_hides_is_found_at_the_second_look_and_the_finding_says_so(strength):
    volume = head()
    noise = np.random.default_rng(0).normal(0, strength, volume.data.shape)
    noisy = Volume(np.abs(volume.data + noise).astype(np.float32), volume.grid)
    model = predictor()
    dazzled = Dazzled(model.bundle.labels, model.bundle.preparation, model.windows, model.span)
    found = brain.find_brain(noisy, dazzled)
    # the whole view (again after smoothing), then the cube around the brain
    assert len(dazzled.seen) == (3 if strength else 2)
    assert ("brain-noisy" in {one.code for one in found.findings}) == bool(strength)
    assert dice(found.mask_on(volume.grid), volume.data > 0) > 0.9
