"""Tables of other programs are used where their meaning is clear, and what is odd is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from deepmrseg_bids.bids.participants import People, read_people
from deepmrseg_bids.bids.visits import read_visits

PLAIN = "participant_id\tage\tsex\nsub-01\t70\tF\nsub-02\t71\tM\n"


def people(folder: Path, content: bytes | str, sessions: tuple[str, ...] = ("",)) -> People:
    folder.mkdir(parents=True, exist_ok=True)
    raw = content if isinstance(content, bytes) else content.encode()
    (folder / "participants.tsv").write_bytes(raw)
    keys = [(who, when) for who in ("sub-01", "sub-02") for when in sessions]
    index = pd.MultiIndex.from_tuples(keys, names=["participant_id", "session_id"])
    return read_people(folder, index, taken=())


ODD: dict[str, tuple[bytes | str, str]] = {
    "write.table of R": (
        '"participant_id" "age" "sex"\n"1" "sub-01" 70 "F"\n"2" "sub-02" 71 "M"\n',
        "separated by spaces",
    ),
    "write.table with tabs": (
        '"participant_id"\t"age"\t"sex"\n"1"\t"sub-01"\t70\t"F"\n"2"\t"sub-02"\t71\t"M"\n',
        "its number, is ignored",
    ),
    "quotes": (
        '"participant_id"\t"age"\t"sex"\n"sub-01"\t"70"\t"F"\n"sub-02"\t71\t"M"\n',
        "quotation marks are removed",
    ),
    "commas": (PLAIN.replace("\t", ","), "separated by commas"),
    "commas in quotes": (
        'participant_id,age,sex\nsub-01,"70",F\nsub-02,71,M\n', "separated by commas",
    ),
    "semicolons": (PLAIN.replace("\t", ";"), "separated by semicolons"),
    "a line for spreadsheets": (
        "sep=;\r\n" + PLAIN.replace("\t", ";").replace("\n", "\r\n"), "line 1 (sep=;) is ignored",
    ),
    "the same with commas": (
        '"sep=,"\n' + PLAIN.replace("\t", ","), 'line 1 ("sep=,") is ignored',
    ),
    "the same with tabs": ("sep=\t\n" + PLAIN, "line 1 (sep=) is ignored"),
    "Latin-1": (PLAIN.replace("sex\n", "sex\tKöln\n").encode("latin-1"), "read as Latin-1"),
    "a column twice": (
        "participant_id\tage\tage\tsex\nsub-01\t7\t70\tF\nsub-02\t8\t71\tM\n",
        "column age occurs 2 times",
    ),
    "surplus cells": (PLAIN.replace("F\n", "F\tx\ty\n"), "more than 3 cells"),
    "no sub-": (PLAIN.replace("sub-", ""), ""),
    "numbers of a spreadsheet": (PLAIN.replace("sub-0", ""), "1 as sub-01, 2 as sub-02"),
    "decimals of a spreadsheet": (
        PLAIN.replace("sub-01", "1.0").replace("sub-02", "2.0"), "1.0 as sub-01",
    ),
    "capitals": (PLAIN.replace("sub-01", "SUB-01"), "SUB-01 as sub-01"),
    "a long dash": (PLAIN.replace("sub-01", "sub\u201301"), "as sub-01"),
    "another title": (
        PLAIN.replace("participant_id", "Participant ID"),
        "column Participant ID is read as participant_id",
    ),
    "Windows": (PLAIN.replace("\n", "\r\n"), ""),
    "old Mac": (PLAIN.replace("\n", "\r"), ""),
    "a mark of UTF-8": (PLAIN.encode("utf-8-sig"), ""),
    "UTF-16": (PLAIN.encode("utf-16"), ""),
    "UTF-16 without a mark": (PLAIN.encode("utf-16-le"), ""),
    "UTF-32": (PLAIN.encode("utf-32"), ""),
    "spaces around": (PLAIN.replace("\t", " \t "), ""),
    "empty lines": (PLAIN.replace("\n", "\n\n"), ""),
    "no line end": (PLAIN[:-1], ""),
    "a row of nobody": (PLAIN + "sub-99\t1\tM\n\t5\tF\n", ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_a_table_of_another_program_is_used_and_what_is_odd_is_named(
    tmp_path: Path, kind: str
) -> None:
    content, note = ODD[kind]
    found = people(tmp_path, content)
    assert found.problems == ()
    assert found.table[["age", "sex"]].to_numpy().tolist() == [["70", "F"], ["71", "M"]]
    assert (note in "; ".join(found.notes)) if note else found.notes == ()


CELLS = {
    "decimal commas": (("70,5", "71"), ["70.5", "71"], "decimal commas"),
    "a limit of age": (("89+", "71"), ["89+", "71"], ""),
    "thousands": (("1,234", "5,678"), ["1,234", "5,678"], ""),
    "a list of codes and a word": (("1,2", "none"), ["1,2", "none"], ""),
    "NA of R": (("NA", "71"), ["n/a", "71"], "NA in column age is read as n/a"),
    "NaN of Python": (("NaN", "71"), ["n/a", "71"], "is read as n/a"),
    "nothing": (("", "71"), ["n/a", "71"], ""),
    "a tab in quotes": (('"a\tb"', "71"), ["a\tb", "71"], "quotation marks are removed"),
    "a line in quotes": (('"a\nb"', "71"), ["a\nb", "71"], "quotation marks are removed"),
    "inches": (('5"', "71"), ['5"', "71"], ""),
}


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_is_read_as_it_was_meant_or_kept(tmp_path: Path, kind: str) -> None:
    (one, two), expected, note = CELLS[kind]
    found = people(tmp_path, f"participant_id\tage\tsex\nsub-01\t{one}\tF\nsub-02\t{two}\tM\n")
    assert found.table["age"].tolist() == expected and found.problems == ()
    assert (note in "; ".join(found.notes)) if note else found.notes == ()


def test_a_short_row_lacks_its_last_cells_only(tmp_path: Path) -> None:
    found = people(tmp_path, PLAIN.replace("70\tF", "70"))
    assert found.table["sex"].tolist() == ["n/a", "M"]
    assert "line 2 has fewer than 3 cells" in found.notes[0]


USELESS: dict[str, tuple[bytes | str, str]] = {
    "a spreadsheet": (b"PK\x03\x04\x14\x00" + bytes(100), "save it as tab-separated text"),
    "no such column": (PLAIN.replace("participant_id", "name"), "no column participant_id"),
    "empty": (b"", "it is empty"),
    "commas of no shape": (PLAIN.replace("\t", ",") + "sub-03,1\n", "separated by commas"),
    "NUL": (PLAIN.replace("70", "7\0"), "line 2: it contains the character NUL"),
}


@pytest.mark.parametrize("kind", USELESS)
def test_what_cannot_be_used_costs_its_columns_alone_and_is_named(
    tmp_path: Path, kind: str
) -> None:
    content, problem = USELESS[kind]
    found = people(tmp_path, content)
    assert len(found.problems) == 1 and problem in found.problems[0]
    assert found.table.shape == (2, 0)


@pytest.mark.parametrize(
    ("rows", "folders"),
    [
        ("1\t70\tF\n01\t71\tM\n", ("sub-1", "sub-01")),  # the data set has both
        ("sub-1\t70\tF\nsub-001\t71\tM\n", ()),  # both may mean sub-01
    ],
)
def test_a_label_that_may_mean_another_participant_is_not_guessed(
    tmp_path: Path, rows: str, folders: tuple[str, ...]
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir()
    found = people(tmp_path, f"participant_id\tage\tsex\n{rows}")
    expected = "71" if folders else "n/a"
    assert found.table["age"].tolist() == [expected, "n/a"]


def test_sessions_and_scans_of_other_programs_are_read_in_the_same_way(tmp_path: Path) -> None:
    folder = tmp_path / "sub-01"
    (folder / "ses-02").mkdir(parents=True)
    (folder / "ses-01").mkdir()
    (folder / "sub-01_sessions.tsv").write_bytes(
        '"Session_ID";"age";"site"\r\n"2";"70,5";"Köln"\r\n"1";"72,5";"NA"\r\n'.encode("latin-1")
    )
    found = people(tmp_path, PLAIN, sessions=("ses-01", "ses-02"))
    ages = found.table.loc["sub-01"]
    assert ages["sessions_age"].tolist() == ["72.5", "70.5"]
    assert ages["site"].tolist() == ["n/a", "Köln"] and found.problems == ()
    sources = {"ses-01": "sub-01_ses-01", "ses-02": "sub-01_ses-02"}
    assert read_visits(tmp_path, "sub-01", sources).sessions == ("ses-02", "ses-01")
    for session, year in (("ses-01", 2001), ("ses-02", 2002)):
        path = folder / session / f"sub-01_{session}_scans.tsv"
        text = f'"filename"\t"acq_time"\n"anat\\sub-01_{session}_T1w.nii.gz"\t"{year}-01-01"\n'
        path.write_bytes(text.encode("utf-16"))
    visits = read_visits(tmp_path, "sub-01", sources)
    assert (visits.sessions, visits.source) == (("ses-01", "ses-02"), "scans.tsv")


@pytest.mark.parametrize(
    ("titles", "source"),
    [("AGE\tSEX", "age"), ("Age\tsex", "age"), ("Acq_Time\tx", "sessions.tsv"),
     ("Age\tAGE", "")],
)  # fmt: skip
def test_the_title_of_a_column_may_be_in_capitals_unless_two_are(
    tmp_path: Path, titles: str, source: str
) -> None:
    cells = ("2002-01-01", "2001-01-01") if "Time" in titles else ("72", "71")
    lines = [f"ses-{number}\t{cell}\t{cell}" for number, cell in enumerate(cells, start=1)]
    path = _folder(tmp_path / "sub-01") / "sub-01_sessions.tsv"
    path.write_text("\n".join([f"session_id\t{titles}", *lines, ""]))
    found = read_visits(tmp_path, "sub-01", {f"ses-{n}": f"sub-01_ses-{n}" for n in (1, 2)})
    assert found.source == source
    assert found.sessions == (("ses-1", "ses-2") if not source else ("ses-2", "ses-1"))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_what_is_odd_in_the_tables_of_many_is_said_once(tmp_path: Path) -> None:
    for who in ("sub-01", "sub-02"):
        (tmp_path / who).mkdir()
        (tmp_path / who / f"{who}_sessions.tsv").write_text("session_id\tage\nses-1\tNA\n")
    found = people(tmp_path, PLAIN, sessions=("ses-1",))
    (note,) = found.notes
    assert "NA in column age is read as n/a (and 1 more like this)" in note


@pytest.mark.parametrize("content", [b"{", b"[]", "{}".encode("utf-16")])
def test_descriptions_that_cannot_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "participants.json").write_bytes(content)
    found = people(tmp_path, PLAIN)
    assert "participants.json: cannot be read as a JSON object" in found.notes[0]
    assert found.table["age"].tolist() == ["70", "71"]


@pytest.mark.robustness(
    "participants.tsv of R, of a spreadsheet, in other encodings",
    tried="quotes, spaces, commas or semicolons, Latin-1, UTF-16, labels without sub- or zeros",
)
def test_participants_of_all_kinds(tmp_path: Path, came_out: Callable[[str], None]) -> None:
    for number, (content, _) in enumerate(ODD.values()):
        found = people(tmp_path / str(number), content)
        assert found.table["age"].tolist() == ["70", "71"]
    came_out("read as meant; what is odd is named in a warning")
