"""The page of what the app survives: whole, and of tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.robustness.rows import NOT_TESTED_YET, ROWS
from tests.robustness.table import PAGE, Finding, read, render, tidy

TESTS = Path(__file__).parents[1]


def test_every_row_has_a_test_or_is_known_to_have_none_yet() -> None:
    tested = set(read(PAGE.read_text(encoding="utf-8")))
    assert {row.name for row in ROWS} - tested == NOT_TESTED_YET


def test_every_test_that_the_page_names_is_marked_with_its_row() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")}
    for name, finding in read(PAGE.read_text(encoding="utf-8")).items():
        file, test = re.fullmatch(r"`(.+?)::(\w+).*`", finding.test).groups()
        assert f"def {test}(" in sources.get(file, ""), finding.test
        assert f'robustness("{name}"' in re.sub(r"\(\s+", "(", sources[file]), name


def test_the_page_is_what_its_rows_make() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert render(read(text)) == text


@pytest.mark.parametrize("cell", ["a | b", "<script>", "&lt;", "| x", "\\"])
def test_a_page_reads_as_it_was_written(cell: str) -> None:
    odd = next(row.name for row in ROWS if "<script>" in row.name)
    findings = {ROWS[0].name: Finding(cell, f"{cell}{cell}", "`test_x.py::test_x`"),
                odd: Finding("t", cell, "x")}  # fmt: skip
    assert read(render(findings)) == findings


def test_temporary_folders_are_cut_off() -> None:
    text = "/tmp/p-0/test_x0/out/sub-01: cannot\n be written"
    assert tidy(text, Path("/tmp/p-0")) == "out/sub-01: cannot be written"
