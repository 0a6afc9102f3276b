"""Slices of a subject report: sides, proportions, colours, empty maps, size."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from deepmrseg_bids.imaging.grid import Array, Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume
from deepmrseg_bids.reports.subject.slices import PlaneSlices, Slice, SliceSet, draw_slices
from deepmrseg_bids.tasks.spec import Figure
from tests.support import ORIENTATIONS, stored_as

TABLE = LabelTable(
    (Label(1, "Left-Thing", color="#ff0000"), Label(2, "Right-Thing", color="#0000ff"))
)
SHAPE = (30, 36, 24)
GRID = Grid(SHAPE, np.diag([2.0, 2.0, 3.0, 1.0]))
STYLE = Figure(margin_mm=6.0)


def labels_ras() -> Array:
    """Label 1 on the left, in front and below; label 2 on the right, behind and above."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:12, 20:30, 4:10] = 1
    labels[18:26, 6:16, 12:20] = 2
    return labels


def scan_ras() -> Array:
    """Brightest where the labels are."""
    return (labels_ras() > 0) * 100.0 + 50.0


def drawn(codes: str = "RAS", labels: Array | None = None, **options: int) -> SliceSet:
    data, grid = stored_as(scan_ras().astype(np.float32), GRID, codes)
    marked, _ = stored_as(labels_ras() if labels is None else labels, GRID, codes)
    return draw_slices(Volume(data, grid), LabelMap(marked, grid), TABLE, style=STYLE, **options)


def mask(plane: PlaneSlices, one: Slice, index: int) -> Array:
    """The area of a label in a slice, in half voxels, from its path alone."""
    image = Image.new("1", plane.box)
    for outline in one.outlines:
        for x, y, steps in re.findall(r"M(\d+) (\d+)l([^z]*)z", outline.path):
            moves = np.array(re.findall(r"-?\d+", steps), dtype=int).reshape(-1, 2)
            points = np.cumsum([(int(x), int(y)), *moves], axis=0)
            if outline.index == index:
                ImageDraw.Draw(image).polygon([tuple(p) for p in points.tolist()], fill=1)
    return np.asarray(image)


@pytest.mark.parametrize("codes", ORIENTATIONS[::5])
def test_outlines_lie_on_the_scan_and_sides_are_where_the_marks_say(codes: str) -> None:
    found = drawn(codes)
    assert [plane.title for plane in found.planes] == ["Sagittal", "Coronal", "Axial"]
    for plane in found.planes:
        assert sum(one.first for one in plane.slices) == 3 and len(plane.slices) == 9
        for one in plane.slices:
            picture = Image.open(io.BytesIO(one.scan)).convert("L")
            assert picture.width / picture.height == pytest.approx(
                plane.size_mm[0] / plane.size_mm[1], rel=0.02
            )
            bright = np.asarray(picture.resize(plane.box)) > 128
            area = mask(plane, one, 1) | mask(plane, one, 2)
            assert (bright == area).mean() > 0.9
            for index, mark in ((1, "LAI"), (2, "RPS")):
                rows, columns = np.nonzero(mask(plane, one, index))
                if columns.size:
                    side = columns.mean() > plane.box[0] / 2
                    assert plane.marks[int(side)] in mark
                    assert plane.marks[2 + int(rows.mean() < plane.box[1] / 2)] in mark
    everything = {line.colour for p in found.planes for one in p.slices for line in one.outlines}
    assert everything == {"#ff0000", "#0000ff"}


def test_positions_are_those_of_the_scanner() -> None:
    axial = drawn().planes[2]
    heights = [int(re.fullmatch(r"z = ([+-]\d+) mm", one.position)[1]) for one in axial.slices]  # type: ignore[index]
    assert heights == sorted(heights) and min(heights) >= 12 and max(heights) <= 57


def test_an_empty_map_and_a_single_voxel_are_drawn() -> None:
    empty = drawn(labels=np.zeros(SHAPE, np.uint8))
    assert empty.empty and all(not one.outlines for p in empty.planes for one in p.slices)
    one = np.zeros(SHAPE, np.uint8)
    one[10, 10, 10] = 1
    single = drawn(labels=one)
    assert not single.empty
    assert [len(plane.slices) for plane in single.planes] == [1, 1, 1]
    assert all(s.first and s.outlines for plane in single.planes for s in plane.slices)


def test_a_label_that_the_table_lacks_is_white() -> None:
    labels = labels_ras()
    labels[labels == 2] = 9
    colours = {
        line.colour for one in drawn(labels=labels).planes[0].slices for line in one.outlines
    }
    assert colours == {"#ff0000", "#ffffff"}


def test_a_limit_in_bytes_costs_the_slices_on_demand_first() -> None:
    noise = np.random.default_rng(1).normal(size=(90, 90, 90)).astype(np.float32)
    grid = Grid((90, 90, 90), np.diag([2.0, 2.0, 2.0, 1.0]))
    marked = np.ones((90, 90, 90), np.uint8)
    volume, labels = Volume(noise, grid), LabelMap(marked, grid)

    def size(limit: int) -> int:
        found = draw_slices(volume, labels, TABLE, style=replace(STYLE), limit=limit)
        for plane in found.planes:
            assert sum(one.first for one in plane.slices) == 3
        return sum(len(one.scan) for plane in found.planes for one in plane.slices)

    assert size(60_000) < 80_000 < size(2_000_000) <= 2_000_000
