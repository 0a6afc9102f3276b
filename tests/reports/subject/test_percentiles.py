"""Where a session stands in its study."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepmrseg_bids.reports.subject.percentiles import read_standing


def write(folder: Path, count: int) -> None:
    rows = [f"sub-{k}\tn/a\t{100 * k}" for k in range(1, count + 1)]
    table = folder / "group_seg-deepbrain_morph.tsv"
    table.write_text("\n".join(["participant_id\tsession_id\tStem", *rows]) + "\n")


def test_the_percentile_is_the_share_of_other_sessions_below(tmp_path: Path) -> None:
    write(tmp_path, 11)
    place = read_standing(tmp_path, "deepbrain", "sub-4", None)["Stem"]
    assert place.percentile == pytest.approx(30) and place.of == 11 and place.deviation is None


def test_the_deviation_comes_from_the_table_of_structures(tmp_path: Path) -> None:
    write(tmp_path, 6)
    (tmp_path / "group_seg-deepbrain_structures.tsv").write_text(
        "participant_id\tsession_id\tname\tdeviation\nsub-2\tn/a\tStem\t-1.5\n"
    )
    assert read_standing(tmp_path, "deepbrain", "sub-2", None)["Stem"].deviation == -1.5


def test_few_sessions_other_people_and_damaged_tables_say_nothing(tmp_path: Path) -> None:
    assert read_standing(tmp_path, "deepbrain", "sub-1", None) == {}
    write(tmp_path, 4)
    assert read_standing(tmp_path, "deepbrain", "sub-1", None) == {}
    write(tmp_path, 9)
    assert read_standing(tmp_path, "deepbrain", "sub-77", None) == {}
    (tmp_path / "group_seg-deepbrain_morph.tsv").write_bytes(b"\xff\x00\tx\n\n")
    assert read_standing(tmp_path, "deepbrain", "sub-1", None) == {}
