"""``docs/robustness.md``, written by the tests that fill its rows.

A test says which row it fills, what it tries, and, at its end, what came out::

    @pytest.mark.robustness("empty file", tried="a T1w of 0 bytes beside a good one")
    def test_an_empty_file_is_told(came_out):
        ...
        came_out(f"exit code 3; failed: {reason}")

Such a test fails while the page says something else; ``pytest --write-robustness`` writes what
came out of the tests that ran and keeps the other rows. So what came out must be the same in
every run: no times, no random names (temporary folders are cut off).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.robustness.rows import ROWS

PAGE = Path(__file__).parents[2] / "docs" / "robustness.md"
_NOTHING = "not tested yet"
_INTRO = """\
# Robustness

How the app handles faulty inputs and interruptions. A failed session does not affect other
sessions, completed results are never lost, a file under its final name is always complete, and
every failure is reported in one line in the terminal, in `logs/sessions.tsv` and in the report.

The tests write this page (`pytest --write-robustness`), one test per row. A test fails if its row
differs from the result.
"""
_HEADER = ("input or fault", "expected", "test input", "result", "test")


class Finding(NamedTuple):
    """What a test tried and what came out."""

    tried: str
    came_out: str
    test: str


def render(findings: Mapping[str, Finding]) -> str:
    """The page: a table an area, its lines in the order of ``ROWS``."""
    page, area = _INTRO, ""
    for row in ROWS:
        if row.area != area:
            area = row.area
            page += f"\n## {area}\n\n{_line(*_HEADER)}{_line(*['---'] * len(_HEADER))}"
        found = findings.get(row.name) or Finding(_NOTHING, "-", "-")
        page += _line(row.name, row.promise, *found)
    return page


def read(page: str) -> dict[str, Finding]:
    """The lines that tests have filled; the inverse of :func:`render`."""
    lines = [line[2:-2].split(" | ") for line in page.splitlines() if line.startswith("| ")]
    known = {_escaped(row.name): row.name for row in ROWS}
    return {
        known[cells[0]]: Finding(*map(_plain, cells[2:]))
        for cells in lines
        if cells[0] in known and cells[2] != _NOTHING
    }


def tidy(text: str, temporary: Path) -> str:
    """One line without the temporary folders of this run."""
    inside = re.compile(rf"{re.escape(str(temporary))}/[^/\s]+/?")
    return " ".join(inside.sub("", text).split())


def _line(*cells: str) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |\n"


def _escaped(cell: str) -> str:
    return cell.replace("&", "&amp;").replace("|", "&#124;").replace("<", "&lt;")


def _plain(cell: str) -> str:
    return cell.replace("&lt;", "<").replace("&#124;", "|").replace("&amp;", "&")
