"""Sheets of small cuts: what is on them, and what is told of those that are not."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deepmrseg_bids.app.mosaics import draw_mosaics
from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.tables import MorphRow, write_morph
from deepmrseg_bids.group.volumes import read_volumes
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.labels import Label, LabelTable
from deepmrseg_bids.imaging.nifti import LabelMap, Volume, write_labels
from deepmrseg_bids.reports.figures import thumbnail
from deepmrseg_bids.reports.group.data import Cohort
from deepmrseg_bids.reports.group.mosaic import COLUMNS, EDGE
from deepmrseg_bids.tasks.registry import find_task
from tests.support import ORIENTATIONS, stored_as

TABLE = LabelTable((Label(1, "Left-Thing", "", "#ff0000"), Label(2, "Right-Thing", "", "#0000ff")))
GRID = Grid((24, 20, 22), np.diag([3.0, 3.0, 3.0, 1.0]))


def scan_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Grey everywhere, something red on the left, something blue on the right and above."""
    scan = np.full(GRID.shape, 100, np.uint8) + np.indices(GRID.shape)[2].astype(np.uint8)
    labels = np.zeros(GRID.shape, np.uint8)
    labels[3:9, 6:14, 4:9] = 1
    labels[15:21, 6:14, 12:18] = 2
    return scan, labels


def centre(picture: np.ndarray, channel: int) -> np.ndarray:
    """(row, column) of the middle of what is red (0) or blue (2)."""
    other = 2 - channel
    return np.argwhere(
        picture[..., channel].astype(int) - picture[..., other].astype(int) > 80
    ).mean(axis=0)


@pytest.mark.parametrize("codes", ORIENTATIONS[::7])
def test_a_coronal_thumbnail_has_right_on_the_right_and_up_above(codes: str) -> None:
    scan, labels = scan_and_labels()
    data, grid = stored_as(
        scan.astype(np.float32), Grid(GRID.shape, np.diag([3.0, 3, 3, 1])), codes
    )
    marked, _ = stored_as(labels, GRID, codes)
    picture = thumbnail(
        Volume(data, grid),
        LabelMap(marked, grid),
        TABLE,
        style=find_task("deepbrain").figure,
        edge=EDGE,
    )
    assert picture.shape == (EDGE, EDGE, 3) and picture.dtype == np.uint8
    red, blue = centre(picture, 0), centre(picture, 2)
    assert blue[1] > red[1] + 20  # the affine is RAS: small i is left
    assert blue[0] < red[0] - 20


def test_an_empty_label_map_still_has_its_scan() -> None:
    scan, labels = scan_and_labels()
    picture = thumbnail(
        Volume(scan.astype(np.float32), GRID), LabelMap(labels * 0, GRID), TABLE,
        style=find_task("wml").figure, edge=EDGE,
    )  # fmt: skip
    assert picture.max() > 100 and np.ptp(picture, axis=2).max() < 10


def add(folder: Path, source: str, task: str = "deepbrain", *, scan: bool = True) -> None:
    grey, labels = scan_and_labels()
    t1w = f"{source}_T1w.nii.gz"
    raw = folder / "raw" / names.anat_folder(t1w) / t1w
    dseg = folder / "out" / names.label_map_path(t1w, find_task(task).label_map)
    for path in (raw, dseg):
        path.parent.mkdir(parents=True, exist_ok=True)
    if scan:
        write_labels(raw, LabelMap(grey, GRID))
    write_labels(dseg, LabelMap(labels, GRID))
    reference = f"bids:raw:{names.anat_folder(t1w) / t1w}"
    dseg.with_name(dseg.name.replace(".nii.gz", ".json")).write_text(
        json.dumps({"SpatialReference": reference})
    )
    TABLE.write(folder / "out" / names.label_table_path(task))
    rows = [MorphRow(k.index, k.name, 1000.0, None, None, None, 0.9) for k in TABLE]
    write_morph(folder / "out" / names.morph_path(t1w, task), rows)


def cohort(confidence: list[str]) -> Cohort:
    keys = tuple((f"sub-{number + 1}", "") for number in range(len(confidence)))
    return Cohort(keys, {"confidence_worst": tuple(confidence)}, {}, ("",) * len(keys), ())


def drawn(folder: Path, confidence: list[str], nprocs: int = 1) -> dict[str, list[object]]:
    tasks = ("brain", "deepbrain", "wml")
    volumes = [read_volumes(folder / "out", find_task(task)) for task in tasks]
    return draw_mosaics(
        folder / "out", folder / "raw", cohort(confidence), volumes, nprocs=nprocs, quiet=True
    )  # type: ignore[return-value]


def tile(folder: Path, place: int, task: str = "deepbrain") -> np.ndarray:
    data = (folder / "out" / names.mosaic_path(task, 1)).read_bytes()
    sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert sheet.shape == (COLUMNS * EDGE, COLUMNS * EDGE, 3)
    row, column = divmod(place, COLUMNS)
    return sheet[row * EDGE : (row + 1) * EDGE, column * EDGE : (column + 1) * EDGE]


def test_the_least_confident_session_comes_first_and_each_has_its_picture(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        add(tmp_path, f"sub-{number}")
    tiles = drawn(tmp_path, ["0.9", "0.7", ""])["deepbrain"]
    assert [one.session for one in tiles] == [2, 1, 0]  # not known: nobody was sure
    assert not any(one.problem for one in tiles)
    for place in range(3):
        assert centre(tile(tmp_path, place), 0)[1] < centre(tile(tmp_path, place), 2)[1]
    assert tile(tmp_path, 3).max() < 20


def test_a_scan_that_is_gone_costs_its_own_picture_alone(tmp_path: Path) -> None:
    add(tmp_path, "sub-1")
    add(tmp_path, "sub-2", scan=False)
    first, second = drawn(tmp_path, ["0.8", "0.9"])["deepbrain"]
    assert not first.problem and "no such file" in second.problem
    assert tile(tmp_path, 0).max() > 100 and tile(tmp_path, 1).max() < 20


def test_lesions_are_shown_on_the_flair_where_there_is_one(tmp_path: Path) -> None:
    add(tmp_path, "sub-1", "wml")
    flair = tmp_path / "raw" / "sub-1" / "anat" / "sub-1_FLAIR.nii.gz"
    bright, labels = scan_and_labels()
    bright[:, 10:] += 120  # behind it is dark, unlike the T1w
    write_labels(flair, LabelMap(bright, GRID))
    dseg = tmp_path / "out" / names.native_label_map_path(find_task("wml"), {"FLAIR": flair})
    write_labels(dseg, LabelMap(labels, GRID))
    dseg.with_name(dseg.name.replace(".nii.gz", ".json")).write_text(
        json.dumps({"SpatialReference": "bids:raw:sub-1/anat/sub-1_FLAIR.nii.gz"})
    )
    drawn(tmp_path, ["0.8"])
    picture = tile(tmp_path, 0, "wml").astype(int).mean(axis=2)
    middle = picture[:, EDGE // 2]
    assert middle[EDGE // 4] > middle[3 * EDGE // 4] + 60


def test_a_task_has_tiles_for_the_sessions_that_have_it(tmp_path: Path) -> None:
    add(tmp_path, "sub-1")
    add(tmp_path, "sub-2")
    add(tmp_path, "sub-2", "brain")
    tiles = drawn(tmp_path, ["0.8", "0.9"])
    assert {task: [one.session for one in own] for task, own in tiles.items()} == {
        "brain": [1], "deepbrain": [0, 1],
    }  # fmt: skip


def test_sheets_of_an_earlier_larger_study_are_removed(tmp_path: Path) -> None:
    add(tmp_path, "sub-1")
    old = tmp_path / "out" / names.mosaic_path("deepbrain", 2)
    old.parent.mkdir(parents=True)
    old.touch()
    drawn(tmp_path, ["0.8"])
    assert not old.exists() and (old.parent / "group_seg-deepbrain_mosaic-001.webp").exists()


def test_processes_side_by_side_draw_the_same_sheets(tmp_path: Path) -> None:
    for number in range(1, COLUMNS * COLUMNS + 2):
        add(tmp_path, f"sub-{number}")
    confidence = ["0.9"] * (COLUMNS * COLUMNS + 1)
    alone = drawn(tmp_path, confidence)
    paths = sorted((tmp_path / "out" / "figures").iterdir())
    pictures = [path.read_bytes() for path in paths]
    assert len(paths) == 2
    assert drawn(tmp_path, confidence, nprocs=2) == alone
    assert [path.read_bytes() for path in paths] == pictures
