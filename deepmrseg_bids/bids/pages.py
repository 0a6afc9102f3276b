"""What the page of a subject tells of itself in its first lines, so that it is not read whole."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

__all__ = ["TABLES_MARK", "page_shows"]

TABLES_MARK = "deepmrseg-tables"
"""The name of the ``meta`` element that lists the tables of volumes that a page shows."""

_MARK = re.compile(rf'<meta name="{TABLES_MARK}" content="([^"]*)">'.encode())
_HEAD = 2**16  # bytes at the beginning of a page that hold its marks
_TAIL = 64  # bytes at its end that tell that it is whole


def page_shows(page: Path, tables: Collection[str]) -> bool:
    """Whether a page has its end and shows these tables: those of another image are not them.

    Args:
        tables: names of files.

    Raises:
        OSError: the page cannot be read.
    """
    wanted = {table.encode() for table in tables}
    with page.open("rb") as stream:
        head = stream.read(_HEAD)
        mark = _MARK.search(head)
        if mark is None:  # of an earlier version, or of very many sessions
            head += stream.read()
        size = os.fstat(stream.fileno()).st_size
        stream.seek(max(0, size - _TAIL))
        whole = b"</html>" in stream.read()
    if mark is not None:
        return whole and wanted <= set(mark[1].split())
    return whole and all(table in head for table in wanted)
