"""Tables of strangers are read as they were meant, or refused by file and line; ours strictly."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.tsv import (
    Table,
    cell,
    frame_text,
    read_columns,
    read_foreign_tsv,
    read_tsv,
    tsv_text,
)

PLAIN = "participant_id\tage\tsite\nsub-01\t34\tKöln\nsub-02\tn/a\tParis\n"
MEANT = (
    {"participant_id": "sub-01", "age": "34", "site": "Köln"},
    {"participant_id": "sub-02", "age": "n/a", "site": "Paris"},
)


def foreign(folder: Path, content: bytes | str) -> Table:
    path = folder / "participants.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_foreign_tsv(path)


# -- tables of others


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_line_ends_and_marked_encodings_of_any_system_make_no_difference(
    tmp_path: Path, ends: str, encoding: str
) -> None:
    table = foreign(tmp_path, PLAIN.replace("\n", ends).encode(encoding))
    assert table.columns == ("participant_id", "age", "site")
    assert table.rows == MEANT and table.lines == (2, 3) and table.notes == ()


def test_utf_16_of_either_byte_order_is_read(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        for mark in ("\ufeff", ""):
            assert foreign(tmp_path, f"{mark}{PLAIN}".encode(encoding)).rows == MEANT
    assert foreign(tmp_path, PLAIN.encode("utf-32")).rows == MEANT


def test_latin_1_is_that_of_windows_where_it_differs(tmp_path: Path) -> None:
    table = foreign(tmp_path, "a\tb\n1\t\u2019s \u20ac\n".encode("cp1252"))
    assert table.rows[0]["b"] == "\u2019s \u20ac"


def test_latin_1_is_read_and_told_with_its_line(tmp_path: Path) -> None:
    table = foreign(tmp_path, PLAIN.encode("latin-1"))
    assert table.rows == MEANT
    (note,) = table.notes
    assert "participants.tsv: line 2 is not UTF-8" in note and "Latin-1" in note


def test_quotes_as_r_writes_them_are_left_out_and_told(tmp_path: Path) -> None:
    text = '"participant_id"\t"age"\t"site"\n"sub-01"\t34\t"Köln"\n"sub-02"\t"n/a"\t"Paris"\n'
    table = foreign(tmp_path, text)
    assert table.columns == ("participant_id", "age", "site") and table.rows == MEANT
    assert ["quotation marks are removed" in note for note in table.notes] == [True]


def test_the_numbers_of_rows_that_r_writes_are_left_out_and_told(tmp_path: Path) -> None:
    text = (
        '"participant_id"\t"age"\t"site"\n'
        '"1"\t"sub-01"\t34\t"Köln"\n'
        '"2"\t"sub-02"\t"n/a"\t"Paris"\n'
    )
    table = foreign(tmp_path, text)
    assert table.rows == MEANT
    assert "than the header; the first, its number, is ignored" in table.notes[-1]


def test_a_cell_too_many_in_every_row_is_no_number_of_the_row(tmp_path: Path) -> None:
    table = foreign(tmp_path, "participant_id\tage\nsub-01\t1\tx\nsub-02\t2\ty\n")
    assert [row["participant_id"] for row in table.rows] == ["sub-01", "sub-02"]
    assert "lines 2, 3 have more than 2 cells" in table.notes[0]


def test_a_tab_inside_quotes_parts_no_cells(tmp_path: Path) -> None:
    table = foreign(tmp_path, 'participant_id\tsite\nsub-01\t"Köln\tMitte"\nsub-02\tBonn\n')
    assert [row["site"] for row in table.rows] == ["Köln\tMitte", "Bonn"]
    assert "quotation marks are removed" in table.notes[0]


@pytest.mark.parametrize("text", ['a "b', '"a', 'a"', "'a'", '5"', 'a "b" c'])
def test_a_quote_that_encloses_no_cell_is_just_a_quote(tmp_path: Path, text: str) -> None:
    table = foreign(tmp_path, f"participant_id\tsite\nsub-01\t{text}\nsub-02\tx\n")
    assert table.rows[0]["site"] == text and len(table.rows) == 2 and table.notes == ()


def test_two_lone_quotes_enclose_no_lines(tmp_path: Path) -> None:
    table = foreign(tmp_path, 'participant_id\tsite\nsub-01\t"a\nsub-02\tb"\nsub-03\tc\n')
    assert [row["site"] for row in table.rows] == ['"a', 'b"', "c"]


def test_of_columns_with_one_title_the_last_counts_and_this_is_told(tmp_path: Path) -> None:
    table = foreign(tmp_path, "participant_id\tage\tage\nsub-01\t1\t2\n")
    assert table.columns == ("participant_id", "age") and table.rows[0]["age"] == "2"
    assert "column age occurs 2 times; the last one is used" in table.notes[0]


def test_cells_without_a_column_are_left_out_and_told_with_their_line(tmp_path: Path) -> None:
    table = foreign(tmp_path, "participant_id\tage\nsub-01\t1\nsub-02\t2\tx\n")
    assert table.rows[1] == {"participant_id": "sub-02", "age": "2"}
    assert "line 3 has more than 2 cells" in table.notes[0]


def test_a_row_that_is_too_short_is_told_with_its_line(tmp_path: Path) -> None:
    table = foreign(tmp_path, "participant_id\tage\tsite\nsub-01\t1\tx\nsub-02\nsub-03\t3\ty\n")
    assert table.rows[1] == {"participant_id": "sub-02"}
    assert "line 3 has fewer than 3 cells; the missing ones are n/a" in table.notes[0]
    assert table.frame()["site"].tolist() == ["x", "n/a", "y"]


def test_of_many_odd_lines_the_first_are_named(tmp_path: Path) -> None:
    table = foreign(tmp_path, "a\tb\n" + "1\n" * 7)
    assert "lines 2, 3, 4 and 4 others have fewer than 2 cells" in table.notes[0]


def test_tabs_at_the_end_of_a_line_do_no_harm(tmp_path: Path) -> None:
    table = foreign(tmp_path, "participant_id\tage\nsub-01\t1\t\t\nsub-02\t2\t\n")
    assert [row["age"] for row in table.rows] == ["1", "2"] and table.notes == ()


def test_empty_lines_spaces_and_columns_without_a_title_do_no_harm(tmp_path: Path) -> None:
    table = foreign(tmp_path, "\n participant_id \t\tage\n\t\t\nsub-01 \tx\t 3\n\n")
    assert table.columns == ("participant_id", "age") and table.lines == (4,)
    assert table.rows == ({"participant_id": "sub-01", "age": "3"},) and table.notes == ()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a\tb\n1\t\x002\n", "line 2: .*NUL"),
        (b"\xff\xfea", "line 1: .*not valid UTF-16"),
        (b"a\n1\n" + b"x" * 200_000, "line 3: field larger"),
    ],
)
def test_what_is_no_table_is_refused_by_file_and_line(
    tmp_path: Path, content: bytes, told: str
) -> None:
    with pytest.raises(DatasetError, match=f"participants.tsv, {told}"):
        foreign(tmp_path, content)


def test_a_table_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none.tsv: cannot be read \(No such file"):
        read_foreign_tsv(tmp_path / "none.tsv")


SEPARATORS = [(",", "commas"), (";", "semicolons"), (" ", "spaces"), ("   ", "spaces")]


@pytest.mark.parametrize(("separator", "what"), SEPARATORS)
def test_other_separators_are_read_where_all_rows_have_one_shape_and_told(
    tmp_path: Path, separator: str, what: str
) -> None:
    table = foreign(tmp_path, PLAIN.replace("\t", separator))
    assert table.rows == MEANT
    assert f"separated by {what}, expected tabs" in table.notes[0]


def test_what_write_table_of_r_writes_without_any_argument_is_read(tmp_path: Path) -> None:
    table = foreign(tmp_path, '"participant_id" "age"\n"1" "sub-01" 34\n"2" "sub-02" NA\n')
    assert [row["participant_id"] for row in table.rows] == ["sub-01", "sub-02"]


def test_a_comma_in_a_table_of_one_column_parts_no_cells(tmp_path: Path) -> None:
    table = foreign(tmp_path, "participant_id\nsub-01,a\nsub-02,b\n")
    assert [row["participant_id"] for row in table.rows] == ["sub-01,a", "sub-02,b"]


@pytest.mark.parametrize(("separator", "what"), [(",", "commas"), (";", "semicolons")])
def test_a_table_with_other_separators_and_no_shape_is_told_as_such(
    tmp_path: Path, separator: str, what: str
) -> None:
    table = foreign(tmp_path, PLAIN.replace("\t", separator) + f"sub-03{separator}1\n")
    with pytest.raises(DatasetError, match=f"no column participant_id; .* {what}, expected tabs"):
        table.require("participant_id")


def test_every_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"participants.tsv: it has no column x and no column y"):
        foreign(tmp_path, PLAIN).require("age", "x", "y")


def test_an_empty_file_is_a_table_without_columns(tmp_path: Path) -> None:
    table = foreign(tmp_path, b"")
    assert (table.columns, table.rows, table.notes) == ((), (), ())


# -- our own tables


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "incomplete"),
        ("a\tb\n1\t2", "incomplete"),
        ("a\tb\n1\t2\n3\n", "line 3: 2 cells were expected, found 1"),
        ("a\tb\n1\t2\t3\n", "line 2: 2 cells were expected, found 3"),
    ],
)
def test_damage_to_a_table_of_ours_is_an_error(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.tsv").write_text(text)
    with pytest.raises(DatasetError, match=told) as caught:
        read_tsv(tmp_path / "a.tsv")
    assert "a.tsv" in str(caught.value)
    with pytest.raises(DatasetError, match=told):
        read_columns(tmp_path / "a.tsv")


@pytest.mark.parametrize("text", [PLAIN, "a\tb\n", "a\n\n", "a\tb\n\t\n1\t\n"])
def test_columns_of_our_tables_are_those_of_their_rows(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.tsv").write_text(text, encoding="utf-8")
    table, columns = read_tsv(tmp_path / "a.tsv"), read_columns(tmp_path / "a.tsv")
    assert tuple(columns) == table.columns
    assert columns == {title: [row[title] for row in table.rows] for title in table.columns}


cells = st.text(max_size=6) | st.sampled_from(["n/a", '"', "a b", "Köln", "1.5", "'x'"])
few = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(st.lists(st.tuples(cells, cells), max_size=5))
def test_what_is_written_is_read_again(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    (tmp_path / "a.tsv").write_text(tsv_text(("a", "b"), rows), "utf-8", newline="")
    meant = [{"a": " ".join(a.split()), "b": " ".join(b.split())} for a, b in rows]
    assert list(read_tsv(tmp_path / "a.tsv").rows) == meant


paths = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), min_size=1)


@few
@given(st.lists(paths, max_size=4))
def test_paths_with_tabs_and_quotes_are_read_again(tmp_path: Path, names: list[str]) -> None:
    rows = [(str(number), name) for number, name in enumerate(names)]
    (tmp_path / "a.tsv").write_text(tsv_text(("a", "b"), rows, quote=True), "utf-8", newline="")
    table = read_foreign_tsv(tmp_path / "a.tsv")
    assert [row["b"] for row in table.rows] == [name.strip() for name in names]


def test_paths_keep_their_spaces() -> None:
    text = tsv_text(("a", "b"), [("x  y", "p\tq")], quote=True)
    assert text == 'a\tb\nx  y\t"p\tq"\n'


# -- frames


def test_a_frame_holds_text_and_numbers_where_asked_for(tmp_path: Path) -> None:
    frame = foreign(tmp_path, PLAIN).frame(numbers=["age", "height"])
    assert frame["participant_id"].tolist() == ["sub-01", "sub-02"]
    assert frame["age"].dtype == np.float64 and frame["age"].isna().tolist() == [False, True]
    assert foreign(tmp_path, PLAIN).frame()["age"].tolist() == ["34", "n/a"]


def test_a_cell_that_is_no_number_is_refused_with_its_line(tmp_path: Path) -> None:
    table = foreign(tmp_path, "a\tage\nx\t1\n\ny\told\n")
    with pytest.raises(DatasetError, match=r"participants.tsv, line 4: age must be .* got 'old'"):
        table.frame(numbers=["age"])


values = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from([-0.001, 0.005, 0.125, 2.675, 1e15 + 0.3, -0.0])
)  # fmt: skip


@given(st.lists(st.floats()), st.lists(values), st.sampled_from([2, 5]))
def test_a_frame_is_written_as_cell_by_cell(
    numbers: list[float], anything: list[object], decimals: int
) -> None:
    for column, kind in ((numbers, "float64"), (anything, object)):
        frame = pd.DataFrame({"a b": pd.Series(column, dtype=kind)})
        texts = [cell(value, decimals if isinstance(value, float) else None) for value in column]
        alone = [[text if text.split() else "n/a"] for text in texts]
        assert frame_text(frame, {"a b": decimals}) == tsv_text(["a b"], alone)


def test_text_is_read_without_pandas(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(PLAIN)
    code = (
        "import sys; from deepmrseg_bids.tsv import read_foreign_tsv, read_tsv\n"
        f"read_foreign_tsv({str(tmp_path / 'a.tsv')!r}); read_tsv({str(tmp_path / 'a.tsv')!r})\n"
        "assert not {'pandas', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
