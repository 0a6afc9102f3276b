"""The lesions of a session in a subject's page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.bids.tables import MorphRow, read_lesions, write_lesions
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume, write_labels
from deepmrseg_bids.reports.subject.lesions import LesionView, lesion_view
from deepmrseg_bids.reports.subject.page import SessionResult, TaskResult, write_subject_report
from deepmrseg_bids.tasks.lesions import Lesion
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.tasks.spec import Figure
from tests.reports.subject.test_page import Page

GRID = Grid((24, 24, 30), np.diag([-2.0, 2.0, 3.0, 1.0]))
BOXES = ((slice(4, 10), slice(4, 10), slice(4, 7)), (slice(14, 16), slice(14, 16), slice(20, 21)))
TABLE = LabelTable((Label(1, "White-Matter-Lesion"),))
SOURCES = {"LocationSources": {"ventricles": "fluid of the FLAIR"}}


def marked() -> np.ndarray:
    data = np.zeros(GRID.shape, np.uint8)
    for box in BOXES:
        data[box] = 1
    return data


def lesions() -> list[Lesion]:
    """The two lesions of the map, as its table has them, and their places."""
    found = []
    for index, (box, place) in enumerate(zip(BOXES, ("periventricular", None), strict=True), 1):
        voxels = np.argwhere(np.ones([s.stop - s.start for s in box])) + [s.start for s in box]
        x, y, z = GRID.to_world(voxels).mean(axis=0).tolist()
        volume = len(voxels) * GRID.voxel_volume
        found.append(Lesion(index, volume, (x, y, z), place, 0.8, ""))
    return found


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "sub-01_seg-wml_lesions.tsv"
    write_lesions(path, lesions(), provenance=SOURCES)
    return path


def view(table: Path, data: np.ndarray) -> LesionView:
    scan = Volume(np.ones(GRID.shape, np.float32), GRID)
    found = lesion_view(table, SOURCES, scan, LabelMap(data, GRID), style=Figure())
    assert found is not None
    return found


def test_a_table_of_lesions_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "lesions.tsv"
    known = [replace(one, centre=tuple(round(mm, 1) for mm in one.centre)) for one in lesions()]
    known[0] = replace(known[0], place="infratentorial", region="Left-Cerebellum")
    write_lesions(path, known)
    assert read_lesions(path) == known
    text = path.read_text()
    path.write_text("".join(line.rpartition("\t")[0] + "\n" for line in text.splitlines()))
    assert [one.region for one in read_lesions(path)] == ["", ""]  # of an earlier version
    path.write_text(text.replace("infratentorial", "somewhere"))
    with pytest.raises(DatasetError, match="somewhere"):
        read_lesions(path)


def test_lesions_are_counted_by_place_and_by_size(table: Path) -> None:
    found = view(table, marked())
    first, *_, last = found.places
    assert (first.name, first.count, first.volume) == ("periventricular", 1, "1.30")
    assert (last.name, last.count, last.volume) == ("location unknown", 1, "0.05")
    assert [one.name for one in found.places][1:4] == ["juxtacortical", "deep", "infratentorial"]
    assert {one.name: one.count for one in found.sizes if one.count} == {
        "1000 to 3000": 1,
        "30 to 100": 1,
    }
    assert sum(one.count for one in found.sizes) == 2


def test_every_lesion_is_outlined_with_its_number_and_reached_by_one_of_its_voxels(
    table: Path,
) -> None:
    data = marked()
    found = view(table, data)
    assert 12 <= len(found.axial.slices) <= 20
    assert {line.index for one in found.axial.slices for line in one.outlines} == {1, 2}
    for row in found.rows:
        voxel = GRID.to_voxel([[float(mm) for mm in row.mm.split(",")]])[0]
        assert data[tuple(np.round(voxel).astype(int))] == 1
    data[BOXES[1]] = 0  # somebody took it out
    assert {line.index for one in view(table, data).axial.slices for line in one.outlines} == {1}


def test_a_session_without_lesions_has_its_slices_all_the_same(tmp_path: Path) -> None:
    write_lesions(tmp_path / "none.tsv", [])
    found = view(tmp_path / "none.tsv", np.zeros(GRID.shape, np.uint8))
    assert not found.rows and sum(one.count for one in found.places) == 0
    assert 12 <= len(found.axial.slices) <= 20


def test_the_page_lists_each_lesion_with_its_place_in_the_viewer(
    tmp_path: Path, table: Path
) -> None:
    scan, dseg = tmp_path / "sub-01_FLAIR.nii.gz", tmp_path / "sub-01_dseg.nii.gz"
    grey = (np.indices(GRID.shape).sum(axis=0) + 50).astype(np.uint8)
    write_labels(scan, LabelMap(grey, GRID))
    write_labels(dseg, LabelMap(marked(), GRID))
    rows = [MorphRow(1, "White-Matter-Lesion", 1344.0, None, None, None, 0.8, 2)]
    done = TaskResult(find_task("wml"), "done", "", scan, dseg, TABLE, rows, lesions=table)
    path = tmp_path / "sub-01.html"
    write_subject_report(path, [SessionResult("01", None, (done,))], version="1", command="x",
                         models={})  # fmt: skip
    page = Page(path)
    assert not page.broken
    listed = [tag for tag in page.all("tr") if "data-mm" in tag]
    assert [tag["data-index"] for tag in listed] == ["1", "2"]
    assert "ventricles: fluid of the FLAIR" in page.text
    table.unlink()
    write_subject_report(path, [SessionResult("01", None, (done,))], version="1", command="x",
                         models={})  # fmt: skip
    assert not [tag for tag in Page(path).all("tr") if "data-mm" in tag]


def test_the_sidecar_of_the_table_is_what_the_page_names(table: Path) -> None:
    tree = json.loads(table.with_suffix(".json").read_text())
    assert tree["LocationSources"] == SOURCES["LocationSources"]
    assert set(tree["location"]["Levels"]) == {
        "infratentorial", "periventricular", "juxtacortical", "deep",
    }  # fmt: skip
