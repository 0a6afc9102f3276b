"""The volumes of all sessions in one table: long and wide, and what is odd in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.bids import names
from deepmrseg_bids.bids.tables import MorphRow, write_morph
from deepmrseg_bids.group.volumes import TaskVolumes, read_volumes
from deepmrseg_bids.tasks.registry import find_task


def structure(index: int, name: str, volume: float, percent: float | None = None) -> MorphRow:
    return MorphRow(index, name, volume, None, None, percent, None)


def volumes_of(out: Path, sessions: dict[str, list[MorphRow]]) -> TaskVolumes:
    for stem, rows in sessions.items():
        write_morph(out / names.morph_path(f"{stem}_T1w.nii.gz", "deepbrain"), rows)
    return read_volumes(out, find_task("deepbrain"))


def test_sessions_and_structures_are_in_order_whatever_the_files_say(tmp_path: Path) -> None:
    a, b = structure(1, "A", 10.0), structure(2, "B", 20.0)
    volumes = volumes_of(tmp_path, {"sub-2_ses-1": [b, a], "sub-1": [a], "sub-10": [b]})
    assert list(volumes.sources) == [("sub-1", ""), ("sub-10", ""), ("sub-2", "ses-1")]
    assert volumes.names == ["A", "B"] and volumes.structures == {1: "A", 2: "B"}
    wide = volumes.wide("volume_mm3")
    np.testing.assert_array_equal(wide, [[10, np.nan], [np.nan, 20], [10, 20]])
    assert volumes.long(wide).tolist() == volumes.table["volume_mm3"].tolist()


def test_a_session_without_a_structure_has_its_place(tmp_path: Path) -> None:
    volumes = volumes_of(tmp_path, {"sub-1": [], "sub-2": [structure(1, "A", 3.0)]})
    assert list(volumes.sources) == [("sub-1", ""), ("sub-2", "")]
    np.testing.assert_array_equal(volumes.wide("volume_mm3"), [[np.nan], [3.0]])


def test_no_session_at_all_is_an_empty_table(tmp_path: Path) -> None:
    volumes = read_volumes(tmp_path, find_task("deepbrain"))
    assert volumes.names == [] and volumes.wide("volume_mm3").shape == (0, 0)
    assert volumes.wholes("intracranial").empty


def test_an_index_that_changed_its_name_is_two_structures(tmp_path: Path) -> None:
    sessions = {"sub-1": [structure(1, "Old", 1.0)], "sub-2": [structure(1, "New", 2.0)]}
    volumes = volumes_of(tmp_path, sessions)
    assert volumes.names == ["Old", "New"] and volumes.structures == {1: "New"}
    np.testing.assert_array_equal(volumes.wide("volume_mm3"), [[1, np.nan], [np.nan, 2]])


def test_the_brain_comes_from_the_largest_structure_whose_share_is_known(tmp_path: Path) -> None:
    rows = [structure(1, "A", 100.0), structure(2, "B", 50.0, 5.0), structure(3, "C", 10.0, 2.0)]
    volumes = volumes_of(tmp_path, {"sub-1": rows, "sub-2": [structure(1, "A", 1.0)]})
    assert volumes.wholes("intracranial").tolist() == pytest.approx([1000.0, np.nan], nan_ok=True)
