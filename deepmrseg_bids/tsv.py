"""Tab-separated tables: the one place where they are read and written.

BIDS has no quoting and writes ``n/a`` for what is not known. Our own tables are so, and are read
strictly: whatever differs is damage. Tables of others are read as they were meant where that is
plain (quotes, numbers of rows, encodings, line ends), and what was odd is told; else the error
names the file and the line.

Cells are text. pandas comes with :meth:`Table.frame`, for those who calculate with columns: it
takes longer to import than label tables take to read, and those are read in every process.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.wording import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "NOT_KNOWN",
    "Table",
    "cell",
    "frame_text",
    "number_in",
    "number_of",
    "read_columns",
    "read_foreign_tsv",
    "read_tsv",
    "tsv_text",
]

NOT_KNOWN = "n/a"
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?\d{1,3},\d{3}", re.ASCII)
_SEPARATOR = re.compile(r'"?sep=.?"?[ ]*\n', re.IGNORECASE)
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_ZIP = b"PK\x03\x04"
_FIRST = 64  # bytes in which titles are ASCII
_LISTED = 3  # lines in a note
_Cells = list[tuple[int, list[str]]]  # the number of each row's (last) line, and its cells


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        path: where it stands.
        columns: their titles, each once.
        rows: the cells of each row by column; a row that is too short lacks its last ones.
        lines: the line of the file that each row stands in; that of the titles is 1.
        notes: what is odd in it, one line each.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    notes: tuple[str, ...] = ()

    def require(self, *columns: str) -> None:
        """See that it has these columns.

        Raises:
            DatasetError: one is missing.
        """
        if missing := [column for column in columns if column not in self.columns]:
            raise DatasetError(
                f"{self.path}: it has no column {' and no column '.join(missing)}"
                f"{'; it is empty' if not self.columns else self._other_separator()}"
            )

    def _other_separator(self) -> str:
        """A hint, where the whole line of titles is one title."""
        for separator, what in ((",", "commas"), (";", "semicolons")):
            if len(self.columns) == 1 and separator in self.columns[0]:
                return f"; its cells are separated by {what}, expected tabs"
        return ""

    def frame(self, numbers: Iterable[str] = ()) -> pd.DataFrame:
        """Its cells as text, ``n/a`` for those that a row lacks.

        Args:
            numbers: columns that become float64, with nan for ``n/a``; those that the table
                lacks are left out.

        Raises:
            DatasetError: a cell of them is no number.
        """
        import pandas as pd

        data: dict[str, object] = {
            column: [row.get(column, NOT_KNOWN) for row in self.rows] for column in self.columns
        }
        for column in set(numbers) & set(self.columns):
            data[column] = self._numbers(column)
        columns = {
            column: pd.Series(cells, dtype="float64" if column in set(numbers) else object)
            for column, cells in data.items()
        }
        return pd.DataFrame(columns, columns=list(self.columns))

    def _numbers(self, column: str) -> list[float]:
        values = []
        for line, row in zip(self.lines, self.rows, strict=True):
            try:
                value = number_of(row.get(column, NOT_KNOWN))
            except ValueError:
                raise DatasetError(
                    f"{self.path}, line {line}: {column} must be a number or {NOT_KNOWN}, got "
                    f"{row[column]!r}"
                ) from None
            values.append(math.nan if value is None else value)
        return values


def read_tsv(path: str | os.PathLike[str]) -> Table:
    """Read a table that this software wrote.

    Raises:
        DatasetError: missing, half-written, or rows of different lengths.
    """
    header, lines = _own_lines(Path(path))
    rows = tuple(dict(zip(header, line.split("\t"), strict=True)) for line in lines)
    return Table(Path(path), tuple(header), rows, tuple(range(2, len(lines) + 2)))


def read_columns(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """The same by column, which takes less time and memory with many rows.

    Raises:
        DatasetError: as of :func:`read_tsv`.
    """
    header, lines = _own_lines(Path(path))
    cells = "\t".join(lines).split("\t") if lines else []
    return {title: cells[place :: len(header)] for place, title in enumerate(header)}


def _own_lines(path: Path) -> tuple[list[str], list[str]]:
    """The titles of a table of ours, and its rows: each has as many cells as there are titles."""
    advice = "remove it and run again"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as a table ({error})") from error
    if not text.endswith("\n"):
        raise DatasetError(f"{path}: the table is empty or incomplete; {advice}")
    titles, *lines = text[:-1].split("\n")
    header = titles.split("\t")
    wanted = f"{counted(len(header), 'cell')} {'was' if len(header) == 1 else 'were'} expected"
    for number, line in enumerate(lines, start=2):
        if (found := line.count("\t") + 1) != len(header):
            raise DatasetError(f"{path}, line {number}: {wanted}, found {found}; {advice}")
    if len(set(header)) < len(header):
        raise DatasetError(f"{path}: a column occurs twice; {advice}")
    return header, lines


def read_foreign_tsv(path: str | os.PathLike[str], *, strip: bool = True) -> Table:
    """Read a table that somebody else wrote, as it was meant as far as that is plain.

    UTF-8, UTF-16 and UTF-32 are told by their marks or by their NULs, what is no UTF-8 is taken
    for Latin-1 (as Windows has it). Cells may stand in quotes, as R writes them, and rows may
    begin with a number that has no title. Commas, semicolons or spaces may stand in the place of
    all tabs. Empty rows, columns without a title and cells without a column are left out. Of
    columns with one title the last counts.

    Args:
        strip: take white space around cells away.

    Raises:
        DatasetError: it cannot be read.
    """
    path = Path(path)
    text, notes = _decoded(path)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DatasetError(f"{path}, line {line}: it contains the character NUL, expected text")
    text, more = _without_separator_line(text)
    notes += more
    cells, more = _tokenized(path, text)
    if cells and len(cells[0][1]) == 1:
        cells, more = _otherwise_separated(path, text, (cells, more))
    header = [title.strip() for title in cells[0][1]] if cells else []
    cells = cells[1:]
    more += _without_row_numbers(header, cells)
    more += _odd_widths(header, cells)
    counts = Counter(title for title in header if title)
    more += [
        f"column {title} occurs {counted(count, 'time')}; the last one is used"
        for title, count in counts.items()
        if count > 1
    ]
    rows = tuple(
        {
            title: text.strip() if strip else text
            for title, text in zip(header, row, strict=False)
            if title
        }
        for _, row in cells
    )
    notes = [f"{path}: {note}" for note in [*notes, *more]]
    return Table(path, tuple(counts), rows, tuple(line for line, _ in cells), tuple(notes))


def _decoded(path: Path) -> tuple[str, list[str]]:
    """The text of a file, its lines ended as on Linux; and what is odd."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror or error})") from error
    if raw.startswith(_ZIP):
        raise DatasetError(
            f"{path}: it is not a text (a spreadsheet?); save it as tab-separated text"
        )
    encoding, notes = _encoding(raw), []
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        if encoding != "utf-8-sig":
            named = encoding.removesuffix("-le").removesuffix("-be").upper()
            raise DatasetError(f"{path}, line {line}: not valid {named}") from error
        text = _latin(raw)
        notes = [f"line {line} is not UTF-8; the table is read as Latin-1"]
    return text.replace("\r\n", "\n").replace("\r", "\n"), notes


def _without_separator_line(text: str) -> tuple[str, list[str]]:
    """Empty the line ``sep=;`` by which spreadsheets are told the separator: it has no titles."""
    if (found := _SEPARATOR.match(text)) is None:
        return text, []
    return "\n" + text[found.end() :], [f"line 1 ({found[0].strip()}) is ignored"]


def _encoding(raw: bytes) -> str:
    """What a file is in: by its mark, or by the NULs that ASCII has in UTF-16."""
    if raw.startswith(_UTF32):
        return "utf-32"
    if raw.startswith(_UTF16):
        return "utf-16"
    first = raw[:_FIRST]
    for encoding, nuls, others in (("utf-16-le", 1, 0), ("utf-16-be", 0, 1)):
        if len(first) > 3 and not any(first[nuls::2]) and all(first[others::2]):
            return encoding
    return "utf-8-sig"


def _latin(raw: bytes) -> str:
    """Windows-1252, which has printable characters where Latin-1 has none."""
    try:
        return raw.decode("cp1252")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _tokenized(path: Path, text: str) -> tuple[_Cells, list[str]]:
    """The cells of all rows that are not empty."""
    plain = _rows(path, text, quoting=csv.QUOTE_NONE)
    if '"' not in text:
        return plain, []
    try:
        quoted = _rows(path, text, quoting=csv.QUOTE_MINIMAL)
    except DatasetError:
        return plain, []  # a lone quote in a cell is just a quote
    # two lone quotes in different lines are no cell that stretches over both, unless without
    # it the lines have no shape
    stretched = any("\n" in cell for _, row in quoted for cell in row)
    better = _misfits(plain) - _misfits(quoted)
    if quoted == plain or better < 0 or (stretched and better == 0):
        return plain, []
    return quoted, ["cells are in quotation marks, unlike in BIDS; the quotation marks are removed"]


def _otherwise_separated(
    path: Path, text: str, by_tabs: tuple[_Cells, list[str]]
) -> tuple[_Cells, list[str]]:
    """The cells of a table without tabs, if one separator gives all rows the same shape."""
    found = []
    for separator, what in ((",", "commas"), (";", "semicolons"), (" ", "spaces")):
        try:
            rows = _rows(path, text, quoting=csv.QUOTE_MINIMAL, separator=separator)
        except DatasetError:
            continue
        width = len(rows[0][1])
        widths = {len(row) for _, row in rows[1:]}
        if width > 1 and len(widths) == 1 and widths <= {width, width + 1}:
            note = f"the cells are separated by {what}, expected tabs; it is read as meant"
            found.append((rows, [note]))
    return found[0] if len(found) == 1 else by_tabs


def _rows(path: Path, text: str, *, quoting: Literal[0, 3], separator: str = "\t") -> _Cells:
    reader = csv.reader(
        io.StringIO(text),
        delimiter=separator,
        quoting=quoting,
        strict=True,
        skipinitialspace=separator == " ",
    )
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}") from error


def _misfits(cells: _Cells) -> int:
    """How many rows are not as long as the titles."""
    return sum(len(row) != len(cells[0][1]) for _, row in cells)


def _without_row_numbers(header: Sequence[str], cells: _Cells) -> list[str]:
    """Take the numbers of rows away, to which R's ``write.table`` gives no title."""
    named = all(len(row) == len(header) + 1 and row[0].strip().isdigit() for _, row in cells)
    if not cells or not named:
        return []
    for _, row in cells:
        del row[0]
    return ["each row has one cell more than the header; the first, its number, is ignored"]


def _odd_widths(header: Sequence[str], cells: _Cells) -> list[str]:
    longer = [line for line, row in cells if any(cell.strip() for cell in row[len(header) :])]
    shorter = [line for line, row in cells if len(row) < len(header)]
    notes = []
    if longer:
        notes.append(
            f"{_numbered(longer)} more than {counted(len(header), 'cell')}; the rest is ignored"
        )
    if shorter:
        notes.append(
            f"{_numbered(shorter)} fewer than {counted(len(header), 'cell')}; the missing ones are "
            f"{NOT_KNOWN}"
        )
    return notes


def _numbered(lines: Sequence[int]) -> str:
    """``line 3 has``, ``lines 3, 4, 5 and 9 others have``."""
    if len(lines) == 1:
        return f"line {lines[0]} has"
    shown, rest = ", ".join(map(str, lines[:_LISTED])), len(lines) - _LISTED
    others = f" and {counted(rest, 'other')}" if rest > 0 else ""
    return f"lines {shown}{others} have"


def number_of(text: str) -> float | None:
    """A cell as a number; None for ``n/a``.

    Raises:
        ValueError: it is none.
    """
    return None if text == NOT_KNOWN else float(text)


def number_in(text: str) -> float | None:
    """The number in a cell that somebody else wrote; None if it is none, or not a plain one.

    A comma may stand for the decimal point, unless it could part thousands.

    >>> number_in("70,5"), number_in("1e3"), number_in("1,234"), number_in("89+")
    (70.5, 1000.0, None, None)
    """
    if _NUMBER.fullmatch(text) is None or _THOUSANDS.fullmatch(text):
        return None
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None


def cell(value: object, decimals: int | None = None) -> str:
    """A value as a cell: ``n/a`` for None, nan and infinity, yes or no for a bool."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return NOT_KNOWN
    if isinstance(value, bool):
        return "yes" if value else "no"
    if decimals is not None and isinstance(value, (int, float)):
        return f"{round(value, decimals) + 0.0:.{decimals}f}"  # + 0.0: no "-0.00"
    return str(value)


def tsv_text(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, quote: bool = False
) -> str:
    """A table as text; white space inside a cell becomes one space.

    Args:
        quote: leave white space as it is, and put what would break the table into quotes: for
            paths, and for tables that people write by hand.
    """
    if quote:
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n")
        writer.writerows((header, *rows))
        return stream.getvalue()
    return "".join(
        "\t".join([" ".join(str(cell).split()) for cell in cells]) + "\n"
        for cells in (header, *rows)
    )


def frame_text(table: pd.DataFrame, decimals: Mapping[str, int]) -> str:
    """A frame as text, as :func:`cell` and :func:`tsv_text` write each cell; empty ones as ``n/a``.

    Args:
        decimals: of the floats of a column.
    """
    columns = [_column(table[title], decimals.get(title)) for title in table.columns]
    titles = "\t".join(" ".join(str(title).split()) for title in table.columns)
    return "".join(f"{line}\n" for line in (titles, *map("\t".join, zip(*columns, strict=True))))


def _column(values: pd.Series, decimals: int | None) -> list[str]:
    """The cells of a column."""
    cells = values.tolist()
    if values.dtype.kind == "f" and decimals is not None:
        # as `cell`, for many at once
        texts = "\n".join([f"%.{decimals}f"] * len(cells)) % tuple(cells)
        plain = {f"{-0.0:.{decimals}f}": f"{0.0:.{decimals}f}",
                 **dict.fromkeys(("nan", "inf", "-inf"), NOT_KNOWN)}  # fmt: skip
        return [plain.get(text, text) for text in texts.split("\n")] if cells else []
    known: dict[str, str] = {}  # names and sessions occur again and again
    found = []
    for value in cells:
        if not isinstance(value, str):
            value = cell(value, decimals if isinstance(value, float) else None)
        if value not in known:
            known[value] = " ".join(value.split()) or NOT_KNOWN
        found.append(known[value])
    return found
