"""Label tables: what they accept, what they refuse, and a round trip through TSV."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepmrseg_bids.errors import LabelTableError
from deepmrseg_bids.imaging.labels import Label, LabelTable

names = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=20)
labels = st.builds(
    Label,
    index=st.integers(1, 2**20),
    name=names,
    abbreviation=st.from_regex(r"[A-Z]{0,4}", fullmatch=True),
    color=st.from_regex(r"#[0-9a-f]{6}", fullmatch=True),
)
tables = st.lists(
    labels, min_size=1, max_size=8, unique_by=(lambda x: x.index, lambda x: x.name)
).map(lambda rows: LabelTable(tuple(rows)))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@settings(max_examples=40, deadline=None)
@given(tables)
def test_a_table_written_and_read_is_the_same_table(
    tmp_path_factory: pytest.TempPathFactory, table: LabelTable
) -> None:
    path = tmp_path_factory.mktemp("labels") / "dseg.tsv"
    table.write(path)
    assert LabelTable.read(path) == table


@given(tables)
def test_labels_are_ordered_by_index(table: LabelTable) -> None:
    assert list(table.indices) == sorted(table.indices)
    assert [table[index].name for index in table.indices] == list(table.names)
    assert [label.index for label in table] == list(table.indices)
    assert len(table) == len(table.names)


def test_the_file_has_the_bids_columns_and_maps_each_label_to_itself(tmp_path: Path) -> None:
    LabelTable((Label(48, "Left-Hippocampus"),)).write(tmp_path / "dseg.tsv")
    assert (tmp_path / "dseg.tsv").read_bytes() == (
        b"index\tname\tabbreviation\tcolor\tmapping\n48\tLeft-Hippocampus\tn/a\t#e6194b\t48\n"
    )


def test_index_and_name_are_enough_and_colours_differ(tmp_path: Path) -> None:
    table = LabelTable.read(write(tmp_path / "t.tsv", "name\tindex\nA\t2\nB\t1\n"))
    assert table.names == ("B", "A")
    assert table[1].color != table[2].color


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(b"\xef\xbb\xbfindex\tname\r\n1\tA\r\n")
    assert LabelTable.read(path).names == ("A",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("index\tname\n", "is empty"),
        ("index\ttitle\n1\tA\n", "it has no column name"),
        ("index\tname\n1\tA\nx\tB\n", "line 3"),
        ("index\tname\n1\n", "line 2"),
        ("index\tname\n0\tA\n", "line 2.*at least 1"),
        ("index\tname\n-3\tA\n", "at least 1"),
        ("index\tname\n1\t\n", "no name"),
        ("index\tname\tcolor\n1\tA\tred\n", "#rrggbb"),
        ("index\tname\n1\tA\n1\tB\n", "once"),
        ("index\tname\n1\tA\n2\tA\n", "once"),
    ],
)
def test_a_broken_table_is_refused_by_file_and_reason(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(LabelTableError, match=told) as caught:
        LabelTable.read(write(tmp_path / "broken.tsv", text))
    assert "broken.tsv" in str(caught.value)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.tsv").write_bytes(b"\xff\xfe\x00\x80")
    for name in ("none.tsv", "b.tsv"):
        with pytest.raises(LabelTableError, match=name):
            LabelTable.read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "side"),
    [("Left-Caudate", "left"), ("right-X", "right"), ("Brain-Left", None), ("Leftover", None)],
)
def test_the_side_is_the_first_word_of_the_name(name: str, side: str | None) -> None:
    assert Label(1, name).side == side


def test_rgb_reads_the_colour_byte_by_byte() -> None:
    assert Label(1, "A", color="#01fe80").rgb == (1, 254, 128)


def test_an_unknown_index_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        LabelTable((Label(1, "A"),))[2]
