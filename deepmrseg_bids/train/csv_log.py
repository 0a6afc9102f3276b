"""The tables that a run keeps beside its weights, and their repair after a kill."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.files import write_text

__all__ = ["append", "network_share", "read", "trim"]


def append(path: Path, columns: Sequence[str], row: Sequence[Any]) -> None:
    """Add a row; a table that is not there, or empty, gets its header first.

    Raises:
        DatasetError: the disk is full, or the table cannot be written.
    """
    fresh = not path.exists() or path.stat().st_size == 0
    try:
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if fresh:
                writer.writerow(columns)
            writer.writerow(row)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be written ({error.strerror or error})") from error


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def trim(path: Path, step: int) -> None:
    """Drop the rows after ``step``, which are about to be done again, and what is torn.

    A process that is killed while it writes may leave an empty table, half a header or half
    a row. A table without a whole header is removed.
    """
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    header, *rows = [line.rstrip("\r\n") for line in lines if line.endswith("\n")] or [""]
    if not header.startswith("step,"):
        path.unlink()
        return
    kept = [row for row in rows if _whole(row, header) and int(row.split(",")[0]) <= step]
    write_text(path, "".join(f"{line}\n" for line in (header, *kept)))


def _whole(row: str, header: str) -> bool:
    return row.count(",") == header.count(",") and row.split(",")[0].isdecimal()


def network_share(rows: Sequence[dict[str, str]]) -> float:
    """The part of the steps' time that was not spent to make crops; nan without a step."""
    seconds = sum(float(row["seconds"]) for row in rows)
    data = sum(float(row["data_seconds"]) for row in rows)
    return 1 - data / seconds if seconds > 0 else float("nan")
