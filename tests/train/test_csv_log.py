"""The tables of a run: whole again after whatever a kill left behind."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from deepmrseg_bids.files import write_text
from deepmrseg_bids.train.csv_log import append, network_share, read, trim

HEADER = "step,loss"
WHOLE = "step,loss\n1,0.5\n2,0.4\n3,0.3\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


def test_a_table_begins_with_its_columns_once(table: Path) -> None:
    table.touch()  # as a kill may leave it
    for step in (1, 2):
        append(table, ("step", "loss"), (step, 0.5))
    assert table.read_text() == "step,loss\n1,0.5\n2,0.5\n"
    assert read(table) == [{"step": "1", "loss": "0.5"}, {"step": "2", "loss": "0.5"}]


def test_no_table_has_no_rows(table: Path) -> None:
    assert read(table) == []
    trim(table, 3)
    assert not table.exists()


@pytest.mark.parametrize("step", range(5))
def test_rows_after_the_step_are_dropped(table: Path, step: int) -> None:
    table.write_text(WHOLE)
    trim(table, step)
    assert [int(row["step"]) for row in read(table)] == list(range(1, min(step, 3) + 1))


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_wherever_the_writing_was_torn_only_whole_rows_are_left(table: Path, ends: str) -> None:
    text = WHOLE.replace("\n", ends)
    for length in range(len(text) + 1):
        table.write_bytes(text[:length].encode())
        trim(table, 99)
        whole = text[:length].count(ends[0])  # the rest of a line's end is no loss
        if whole == 0:
            assert not table.exists()
        else:
            assert table.read_text().splitlines() == WHOLE.splitlines()[:whole]


@pytest.mark.parametrize("row", ["2", "2,0.4,7", ",0.4", "two,0.4", "\x00\x00,", "-1,0.4"])
def test_a_row_that_is_none_is_dropped(table: Path, row: str) -> None:
    table.write_text(f"{HEADER}\n1,0.5\n{row}\n3,0.3\n")
    trim(table, 99)
    assert [row["step"] for row in read(table)] == ["1", "3"]


def test_the_share_of_the_networks_is_what_the_crops_leave() -> None:
    rows = [{"seconds": "2.0", "data_seconds": "0.5"}, {"seconds": "2.0", "data_seconds": "0.1"}]
    assert network_share(rows) == pytest.approx(0.85)
    assert math.isnan(network_share([]))


def test_a_text_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    for text in ("one", "two"):
        write_text(path, text)
        assert path.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["a.toml"]
