"""What the guard notices about scans, brains and structures, and what it lets pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pytest

from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid, centred_grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.tasks.qc import check_brain, check_hippocampus, check_image, check_structures
from deepmrseg_bids.tasks.results import Measure, Posteriors, Segmentation
from tests.support import stored_as
from tests.tasks.phantom import paint, tilted

HEAD = centred_grid((0, -10, 5), (77, 90, 77), 2.5)  # 192 x 225 x 192 mm
BRAIN = ((0, -10, 5), (66, 82, 64))  # half-axes of 1450 ml


def codes(found: Iterable[Finding]) -> dict[str, str]:
    return {one.code: one.severity for one in found}


def scan(grid: Grid = HEAD) -> Volume:
    rng = np.random.default_rng(0)
    return Volume(rng.normal(100, 30, grid.shape).clip(0).astype(np.float32), grid)


# --- scans


def test_a_sound_scan_is_let_pass_in_every_orientation(orientation: str) -> None:
    volume = scan()
    assert check_image(Volume(*stored_as(volume.data, volume.grid, orientation))) == ()


def test_tilted_slices_are_good_to_know() -> None:
    assert codes(check_image(scan(tilted(HEAD, 12)))) == {"oblique": "info"}
    assert check_image(scan(tilted(HEAD, 0.5))) == ()


@pytest.mark.parametrize(
    ("voxel", "expected"),
    [((1, 1, 5), {"thick-slices": "warning"}), ((0.7, 0.7, 2.4), {"uneven-voxels": "info"}),
     ((2, 2, 2), {}), ((0.9, 0.9, 1.5), {})],
)  # fmt: skip
def test_thick_slices_are_told(voxel: tuple[float, ...], expected: Mapping[str, str]) -> None:
    a, b, c = (round(200 / edge) for edge in voxel)
    assert codes(check_image(scan(Grid((a, b, c), np.diag([*voxel, 1]))))) == expected


@pytest.mark.parametrize(
    ("mm", "severity", "told"),
    [((200, 220, 20), "error", "20 mm from bottom to top"),
     ((100, 220, 200), "warning", "100 mm from left to right"),
     ((200, 80, 200), "error", "80 mm from back to front")],
)  # fmt: skip
@pytest.mark.parametrize("orientation", ["RAS", "PSR", "ILA"])
def test_a_slab_or_a_part_of_a_head_is_told(mm, severity, told, orientation) -> None:
    grid = centred_grid((0, 0, 0), tuple(edge // 2 for edge in mm), 2.0)
    volume = scan(grid)
    found = check_image(Volume(*stored_as(volume.data, volume.grid, orientation)))
    (view,) = (one for one in found if one.code == "small-view")
    assert view.severity == severity and told in view.message


def test_resampled_grids_are_good_to_know() -> None:
    grid = Grid((91, 109, 91), np.diag([-2.0, 2.0, 2.0, 1.0]))
    assert codes(check_image(scan(grid))) == {"not-scanner-space": "info"}


def test_few_values_are_told() -> None:
    volume = scan()
    labels = Volume((volume.data // 40).astype(np.float32), volume.grid)
    assert codes(check_image(labels)) == {"few-intensities": "warning"}


@pytest.mark.parametrize("labels", [3, 30, 140, 500])
def test_a_label_map_given_as_a_scan_is_told_whatever_the_number_of_its_labels(labels: int) -> None:
    volume = scan()
    blocks = np.indices(volume.data.shape) // 8
    numbers = (blocks[0] * 97 + blocks[1] * 31 + blocks[2]) % labels
    found = codes(check_image(Volume(numbers.astype(np.float32), volume.grid)))
    assert found["few-intensities"] == "warning"
    noise = np.random.default_rng(1).integers(0, labels + 30, volume.data.shape)
    assert "few-intensities" not in codes(
        check_image(Volume(noise.astype(np.float32), volume.grid))
    )


# --- brains


def brain(
    parts=(BRAIN,), *, grid: Grid = HEAD, view: Grid | None = None, confidence: float = 0.95,
    t1w: bool = True, skull: bool = True,
) -> dict[str, str]:  # fmt: skip
    mask = paint(grid, [(*part, 1) for part in parts]) > 0
    centre, radii = parts[0]
    inner = paint(grid, [(centre, np.array(radii) - 20, 1)]) > 0
    tissue = skull * np.random.default_rng(0).uniform(0, 30, grid.shape)
    image = np.where(mask, np.where(inner == t1w, 100, 60), tissue).astype(np.float32)
    return codes(check_brain(mask, image, grid, view or grid, confidence=confidence))


def check_brain_of(radii) -> dict[str, str]:
    """The messages about a brain of these radii, by code."""
    mask = paint(HEAD, [(BRAIN[0], radii, 1)]) > 0
    image = np.where(mask, 100, 30).astype(np.float32)
    found = check_brain(mask, image, HEAD, HEAD, confidence=None)
    return {one.code: one.message for one in found}


def test_a_sound_brain_is_let_pass() -> None:
    assert brain() == {}


@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_a_brain_of_an_unusual_size_is_told(scale: float) -> None:
    assert brain([(BRAIN[0], np.array(BRAIN[1]) * scale)]) == {"brain-volume": "warning"}


def test_an_unsure_brain_is_told() -> None:
    assert brain(confidence=0.7) == {"brain-unsure": "warning"}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("side", [0, 1])
def test_a_brain_that_is_cut_off_is_told(axis: int, side: int) -> None:
    """The field of view ends inside the brain, on each of its faces."""
    stop = list(HEAD.shape)
    start = [0, 0, 0]
    if side:
        stop[axis] -= 25
    else:
        start[axis] += 25
    view = HEAD.crop(start, stop)
    mask = paint(HEAD, [(*BRAIN, 1)]) > 0
    inside = np.zeros(HEAD.shape, bool)
    inside[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    image = np.where(mask, 100, 30).astype(np.float32)
    found = check_brain(mask & inside, image, HEAD, view, confidence=None)
    (cut,) = (one for one in found if one.code == "brain-cut")
    sides = (("left", "right"), ("back", "front"), ("bottom", "top"))
    assert f"the image: {sides[axis][side]} (" in cut.message


def test_the_brain_stem_may_leave_the_image() -> None:
    stem = ((0, -10, -75), (14, 14, 60))
    assert "brain-cut" not in brain([BRAIN, stem])


@pytest.mark.parametrize("turned", [(82, 66, 64), (64, 66, 82)])
def test_a_brain_that_is_not_longest_from_back_to_front_is_told(turned) -> None:
    assert brain([(BRAIN[0], turned)]) == {"brain-shape": "warning"}


@pytest.mark.parametrize("radii", [(64, 82, 45), (45, 84, 66)])
def test_a_brain_too_flat_for_its_length_is_told(radii) -> None:
    """A slice thickness or an edge of the voxels in the header that is too small."""
    found = check_brain_of(radii)
    assert "voxel size" in found["brain-shape"]


def test_another_contrast_is_told() -> None:
    assert brain(t1w=False) == {"contrast-doubtful": "warning"}


def test_a_stripped_brain_is_good_to_know() -> None:
    assert brain(skull=False) == {"skull-stripped": "info"}


# --- structures

TABLE = LabelTable(
    (Label(1, "Left-Hippocampus"), Label(2, "Right-Hippocampus"), Label(3, "Stem"))
)  # fmt: skip
CROP = centred_grid((0, 0, 0), (40, 20, 20), 2.0)


def structures(
    volumes=(3500.0, 3600.0, 20000.0), sure=(0.9, 0.9, 0.9), *, swapped=False, names=TABLE
) -> Segmentation:  # fmt: skip
    rows = tuple(
        Measure(label.index, label.name, volume, confidence=confidence if volume else None)
        for label, volume, confidence in zip(names, volumes, sure, strict=True)
    )
    labels = np.zeros(CROP.shape, np.uint8)
    left, right = (1, 2) if not swapped else (2, 1)
    labels[5:10, 5:15, 5:15] = left if volumes[left - 1] else 0
    labels[30:35, 5:15, 5:15] = right if volumes[right - 1] else 0
    posteriors = np.stack([(labels == k).astype(np.float32) for k in range(len(names) + 1)])
    return Segmentation(
        "deepbrain", LabelMap(labels, CROP), names, rows,
        (Posteriors(posteriors, CROP, (0, *names.indices)),),
    )  # fmt: skip


INSIDE = np.ones(CROP.shape, bool)


def test_sound_structures_are_let_pass() -> None:
    assert check_structures(structures(), INSIDE) == ()


@pytest.mark.parametrize("volumes", [(1000.0, 1100.0, 1.0), (9000.0, 9100.0, 1.0)])
def test_implausible_volumes_are_told_where_there_is_a_usual_one(volumes) -> None:
    (found,) = check_structures(structures(volumes), INSIDE)
    assert found.code == "structure-volume" and "Stem" not in found.message


def test_left_and_right_that_differ_are_told() -> None:
    assert codes(check_structures(structures((3000.0, 5000.0, 1.0)), INSIDE)) == {
        "structures-asymmetric": "warning"
    }


def test_a_side_that_is_missing_is_no_asymmetry() -> None:
    assert check_structures(structures((0.0, 3600.0, 1.0)), INSIDE) == ()


def test_an_unsure_structure_is_a_warning_and_most_of_them_an_error() -> None:
    assert codes(check_structures(structures(sure=(0.9, 0.5, 0.9)), INSIDE)) == {
        "structure-unsure": "warning"
    }
    assert codes(check_structures(structures(sure=(0.4, 0.5, 0.9)), INSIDE)) == {
        "structure-unsure": "error"
    }


def test_a_structure_outside_the_brain_is_told() -> None:
    mask = INSIDE.copy()
    mask[5:6] = False
    (found,) = check_structures(structures(), mask)
    assert found.code == "structures-outside" and "Left-Hippocampus" in found.message


def test_sides_that_are_crossed_are_an_error() -> None:
    assert codes(check_structures(structures(swapped=True), INSIDE)) == {"sides-crossed": "error"}


PARTS = LabelTable(
    tuple(
        Label(k, f"{side}-Hippocampus-{part}")
        for k, (side, part) in enumerate(
            [(s, p) for s in ("Left", "Right") for p in ("Anterior", "Posterior")], start=1
        )
    )
)


@pytest.mark.parametrize(
    ("volumes", "told"),
    [((1700, 1600, 1700, 1600), None), ((1000, 1000, 1700, 1600), "left 57 %"),
     ((1000, 1050, 1000, 1100), "left 59 %, right 58 %")],
)  # fmt: skip
def test_too_little_of_the_hippocampus_is_told(volumes, told: str | None) -> None:
    rows = tuple(Measure(label.index, label.name, float(mm3), confidence=0.9)
                 for label, mm3 in zip(PARTS, volumes, strict=True))  # fmt: skip
    labels = LabelMap(np.zeros(CROP.shape, np.uint8), CROP)
    found = check_hippocampus(Segmentation("hippocampus", labels, PARTS, rows), structures())
    small = [one.message for one in found if one.code == "hippocampus-small"]
    assert (told is None and not small) or told in small[0]
