"""Pictures: sides, proportions, colours, empty maps, size."""

from __future__ import annotations

import io
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from deepmrseg_bids.imaging.grid import Array, Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume, read_labels, read_volume
from deepmrseg_bids.reports.figures import contour_figure, to_ras
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.tasks.spec import Figure

ORIENTATIONS = ("RAS", "LAS", "LPS", "PSR", "AIL", "SLP", "RSA")
SHAPE = (48, 56, 40)
SPACING = (2.0, 2.0, 2.5)
TABLE = LabelTable(
    (Label(1, "Left-Thing", color="#ff0000"), Label(2, "Right-Thing", color="#0000ff"))
)
RED, BLUE = (255, 0, 0), (0, 0, 255)
BRAIN, LESIONS = find_task("brain").figure, find_task("wml").figure
TILE = 1600 / (5 + 4 * 0.02)
SHARED = Path(
    os.environ.get("DEEPMRSEG_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)


def ras_grid(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Grid:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -(np.array(shape) - 1) * np.array(spacing) / 2
    return Grid(shape, affine)


def stored_as(orientation: str, data: Array, grid: Grid) -> tuple[Array, Grid]:
    """The same RAS+ scan, stored in another order: each voxel keeps its place in the world."""
    axes = ["RAS".find(c) if c in "RAS" else "LPI".find(c) for c in orientation]
    affine = grid.affine.copy()
    affine[:3, :3] = affine[:3, axes]
    data = data.transpose(axes)
    for axis, code in enumerate(orientation):
        if code in "LPI":
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1
            data = np.flip(data, axis)
    moved = Grid((data.shape[0], data.shape[1], data.shape[2]), affine)
    assert moved.orientation == orientation
    return data, moved


def scan_of(grid: Grid) -> NDArray[np.float32]:
    """A smooth grey ball."""
    places = grid.to_world(np.indices(grid.shape).reshape(3, -1).T)
    grey = 100 * np.exp(-((np.linalg.norm(places, axis=1) / 60) ** 4))
    return grey.reshape(grid.shape).astype(np.float32)


def ball(grid: Grid, centre: tuple[float, float, float], radius: float) -> NDArray[np.bool_]:
    places = grid.to_world(np.indices(grid.shape).reshape(3, -1).T)
    inside: NDArray[np.bool_] = np.linalg.norm(places - np.array(centre), axis=1) < radius
    return inside.reshape(grid.shape)


def two_sided(orientation: str) -> tuple[Volume, LabelMap]:
    """Label 1 on the subject's left and in front, label 2 on the right and behind."""
    grid = ras_grid(SHAPE, SPACING)
    labels = np.zeros(SHAPE, np.uint8)
    labels[ball(grid, (-22, 15, 5), 12)] = 1
    labels[ball(grid, (22, -15, 5), 12)] = 2
    data, moved = stored_as(orientation, scan_of(grid), grid)
    return Volume(data, moved), LabelMap(stored_as(orientation, labels, grid)[0], moved)


def pixels(data: bytes) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)


def like(picture: NDArray[np.int16], colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    near: NDArray[np.bool_] = np.abs(picture - np.array(colour)).max(axis=2) < 100
    return near


def ink(picture: NDArray[np.int16], row: int, column: int) -> NDArray[np.bool_]:
    """The white letter around a pixel, cut to its own box."""
    part = picture[row - 16 : row + 16, max(column - 18, 0) : column + 18].min(axis=2) > 225
    found = ndimage.find_objects(part.astype(np.uint8))[0]
    letter: NDArray[np.bool_] = part[found]
    return letter


@pytest.fixture(scope="module")
def drawn() -> dict[str, NDArray[np.int16]]:
    return {
        name: pixels(contour_figure(*two_sided(name), TABLE, style=BRAIN)) for name in ORIENTATIONS
    }


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_label_on_the_subjects_left_is_drawn_on_the_left_of_every_axial_cut(
    drawn: dict[str, NDArray[np.int16]], orientation: str
) -> None:
    picture = drawn[orientation]
    axial = slice(int(0.75 * len(picture)), None)
    for colour, on_left in ((RED, True), (BLUE, False)):
        columns = np.flatnonzero(like(picture, colour)[axial].any(axis=0)) % (1.02 * TILE) / TILE
        assert columns.size > 20
        assert (columns < 0.5).all() if on_left else (columns > 0.5).all()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_left_of_the_picture_is_marked_l_and_the_right_r(
    drawn: dict[str, NDArray[np.int16]], orientation: str
) -> None:
    picture = drawn[orientation]
    depth = 1.0 * SHAPE[1] * SPACING[1] / (SHAPE[0] * SPACING[0]) * TILE
    middle = round(len(picture) - depth / 2)
    left = ink(picture, middle, round(0.02 * TILE) + 8)
    right = ink(picture, middle, round(0.98 * TILE) - 8)
    # the upper right of an L is empty, that of an R is not
    assert not left[: left.shape[0] // 2, left.shape[1] // 2 :].any()
    assert left[-3:, left.shape[1] // 2 :].any()
    assert right[: right.shape[0] // 2, right.shape[1] // 2 :].any()


@pytest.mark.parametrize("orientation", ORIENTATIONS[1:])
def test_the_order_of_the_array_does_not_change_the_picture(
    drawn: dict[str, NDArray[np.int16]], orientation: str
) -> None:
    assert np.array_equal(drawn[orientation], drawn["RAS"])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turning_to_ras_keeps_each_voxel_in_its_place_in_the_world(orientation: str) -> None:
    grid = ras_grid((3, 4, 5), (1.0, 2.0, 3.0))
    data = np.arange(60).reshape(3, 4, 5)
    turned, turned_grid = to_ras(*stored_as(orientation, data, grid))
    assert np.array_equal(turned, data)
    assert np.allclose(turned_grid.affine, grid.affine)


def test_an_oblique_scan_near_45_degrees_is_turned_with_one_axis_for_each_direction() -> None:
    angle = np.radians(45)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    data = np.arange(24).reshape(2, 3, 4)
    turned, grid = to_ras(data, Grid((2, 3, 4), turn))
    for voxel in product(range(2), range(2), range(2)):
        place = grid.to_world([voxel])
        old = np.round(Grid((2, 3, 4), turn).to_voxel(place)[0]).astype(int)
        assert turned[voxel] == data[tuple(old)]


@pytest.mark.parametrize("spacing", [(0.72, 0.72, 3.0), (3.0, 0.8, 0.8), (1.0, 1.0, 1.0)])
def test_a_ball_is_round_whatever_the_shape_of_the_voxels(
    spacing: tuple[float, float, float],
) -> None:
    shape = tuple(round(90 / edge) for edge in spacing)
    grid = ras_grid((shape[0], shape[1], shape[2]), spacing)
    labels = LabelMap(ball(grid, (0, 0, 0), 24).astype(np.uint8), grid)
    picture = pixels(contour_figure(Volume(scan_of(grid), grid), labels, TABLE, style=Figure()))
    thick = ndimage.binary_dilation(like(picture, RED), iterations=4)
    contours = ndimage.find_objects(ndimage.label(thick)[0])
    large = [part for part in contours if part[0].stop - part[0].start > 60]
    assert len(large) >= 9
    step = max(spacing) / 48  # a slice more or less at both ends
    for rows, columns in large:
        ratio = (rows.stop - rows.start) / (columns.stop - columns.start)
        assert ratio == pytest.approx(1, abs=0.1 + 2 * step)


def test_an_empty_label_map_is_drawn_with_a_note_and_without_contours() -> None:
    volume, labels = two_sided("LPS")
    empty = LabelMap(np.zeros_like(labels.data), labels.grid)
    picture = pixels(contour_figure(volume, empty, TABLE, style=LESIONS))
    assert not like(picture, RED).any()
    height, width, _ = picture.shape
    note = picture[height // 2 - 20 : height // 2 + 20, width // 2 - 200 : width // 2 + 200]
    assert (note.min(axis=2) > 225).sum() > 500


def test_a_single_labelled_voxel_is_drawn() -> None:
    volume, labels = two_sided("RAS")
    one = np.zeros_like(labels.data)
    one[10, 10, 10] = 1
    assert like(
        pixels(contour_figure(volume, LabelMap(one, labels.grid), TABLE, style=LESIONS)),
        RED,
    ).any()


def test_a_label_that_the_table_lacks_is_drawn_too() -> None:
    volume, labels = two_sided("RAS")
    only_left = LabelTable(TABLE.labels[:1])
    a, b = (pixels(contour_figure(volume, labels, t, style=Figure())) for t in (TABLE, only_left))
    assert not like(b, BLUE).any()
    assert np.abs(a - b).max(axis=2)[like(a, BLUE)].mean() > 50


def test_labels_on_another_grid_are_brought_to_the_scans() -> None:
    volume, labels = two_sided("RAS")
    data, grid = stored_as("PSR", labels.data, labels.grid)
    one = contour_figure(volume, labels, TABLE, style=Figure())
    assert contour_figure(volume, LabelMap(data, grid), TABLE, style=Figure()) == one


def test_a_limit_in_bytes_is_kept_to() -> None:
    volume, labels = two_sided("RAS")
    data = contour_figure(volume, labels, TABLE, style=BRAIN, limit=20_000)
    assert len(data) <= 20_000
    assert pixels(data).shape[1] >= 500


def test_a_flat_or_negative_scan_is_drawn() -> None:
    volume, labels = two_sided("RAS")
    for data in (np.full(SHAPE, -5, np.float32), np.zeros(SHAPE, np.float32)):
        picture = contour_figure(Volume(data, volume.grid), labels, TABLE, style=Figure())
        assert like(pixels(picture), RED).any()


def test_a_real_psr_head_is_drawn_small_and_with_left_structures_on_the_left() -> None:
    heads = SHARED / "heads"
    if not heads.is_dir():
        pytest.skip(f"the real scans are not at {heads} (set DEEPMRSEG_SHARED_DATA)")
    scan = sorted(heads.glob("sub-*/anat/*_T1w.nii.gz"))[0]
    maps = heads / "derivatives" / "dlmuse" / scan.parts[-3] / "anat"
    labels = read_labels(next(maps.glob("*_dseg.nii.gz")))
    both = np.zeros(labels.data.shape, np.uint8)
    both[labels.data == 58] = 1  # left putamen
    both[labels.data == 57] = 2
    volume = read_volume(scan)
    data = contour_figure(volume, LabelMap(both, labels.grid), TABLE, style=Figure())
    assert len(data) < 300_000
    picture = pixels(data)
    axial = slice(int(0.75 * len(picture)), None)
    columns = [
        np.flatnonzero(like(picture, colour)[axial, : int(TILE)].any(axis=0))
        for colour in (RED, BLUE)
    ]
    assert columns[0].max() < TILE / 2 < columns[1].min()
