"""Tab-separated tables, as BIDS has them: no quoting, ``n/a`` for what is not known."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepmrseg_bids.bids.names import sidecar_path
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import write_json, write_text

__all__ = ["cell", "number_of", "read_foreign_tsv", "read_tsv", "tsv_text", "write_table"]


def read_tsv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and rows of a table that this software wrote.

    Raises:
        DatasetError: missing, half-written, or rows of different lengths.
    """
    advice = "remove it and run again"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as a table ({error})") from error
    if not text.endswith("\n"):
        raise DatasetError(f"{path}: the table is empty or breaks off; {advice}")
    header, *lines = (line.split("\t") for line in text.splitlines())
    for number, cells in enumerate(lines, start=2):
        if len(cells) != len(header):
            raise DatasetError(
                f"{path}, row {number}: {len(header)} cells were expected, found {len(cells)}; "
                f"{advice}"
            )
    return header, [dict(zip(header, cells, strict=True)) for cells in lines]


def read_foreign_tsv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns and rows of a table that somebody else wrote, as far as they make sense.

    Cells are stripped; columns without a title and cells without a column are left out, and a
    row that is too short lacks its last keys.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        # tab-separated means no quoting: a lone quote in a cell is just a quote
        table = list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, csv.Error) as error:
        raise DatasetError(f"{path}: left out, it cannot be read ({error})") from error
    header = [title.strip() for title in table[0]] if table else []
    rows = [
        {key: value.strip() for key, value in zip(header, cells, strict=False) if key}
        for cells in table[1:]
        if any(cells)
    ]
    return list(dict.fromkeys(key for key in header if key)), rows


def write_table(
    path: Path,
    columns: Mapping[str, Any],
    rows: Iterable[Mapping[str, object]],
    **more: Any,
) -> None:
    """Write a table, and beside it the JSON that describes its columns.

    Volumes have two decimals, other fractions five; a value that a row lacks is ``n/a``.

    Args:
        columns: what the JSON says of each; None for nothing.
        more: what else it says.
    """
    places = {column: 2 if "mm3" in column else 5 for column in columns}
    lines = [
        [
            cell(value := row.get(key), digits if isinstance(value, float) else None)
            for key, digits in places.items()
        ]
        for row in rows
    ]
    write_text(path, tsv_text(list(columns), lines))
    described = {column: facts for column, facts in columns.items() if facts is not None}
    write_json(Path(sidecar_path(path)), {**described, **more})


def number_of(text: str) -> float | None:
    """A cell as a number; None for ``n/a``.

    Raises:
        ValueError: it is none.
    """
    return None if text == "n/a" else float(text)


def cell(value: object, decimals: int | None = None) -> str:
    """A value as a cell: ``n/a`` for None, nan and infinity, yes or no for a bool."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if decimals is not None and isinstance(value, (int, float)):
        return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no "-0.00"
    return str(value)


def tsv_text(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table as text; white space inside a cell becomes one space."""
    rows = [[" ".join(cell.split()) for cell in cells] for cells in (header, *lines)]
    return "".join("\t".join(cells) + "\n" for cells in rows)
