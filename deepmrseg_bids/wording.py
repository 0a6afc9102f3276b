"""Messages: numbers with their noun; an error as one line; lines that are alike as one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from deepmrseg_bids.errors import DeepMRSegError

__all__ = ["counted", "once", "why"]

_NAMES = re.compile(r"\bsub-[^\s:,;]+")

_MEMORY = "out of memory: request more memory, or run fewer sessions in parallel"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    Args:
        noun: in the singular.
        plural: unless the noun takes an s.

    >>> counted(1, "session"), counted(0, "session"), counted(2, "entry", "entries")
    ('1 session', '0 sessions', '2 entries')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def why(error: BaseException) -> str:
    """An error as one line that says what to do.

    >>> why(OSError(28, "No space left on device", "out/a.tsv"))
    'out/a.tsv: No space left on device; free some space, or check the permissions'
    """
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "can't allocate memory" in said:  # torch's own
        return _MEMORY
    if isinstance(error, DeepMRSegError):
        return said
    if isinstance(error, UnicodeEncodeError):
        return f"{error.object!r} is not UTF-8: rename the folder or file, or use a UTF-8 locale"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; free some space, or check the permissions"
    return f"unexpected {type(error).__name__}: {said}"


def once(lines: Iterable[str]) -> list[str]:
    """Lines that differ only in the names of participants and their files as one line.

    >>> once(["sub-1: no age", "sub-2: no age", "a line"])
    ['sub-1: no age (and 1 more like this)', 'a line']
    """
    alike: dict[str, list[str]] = {}
    for line in lines:
        alike.setdefault(_NAMES.sub("", line), []).append(line)
    return [
        same[0] + (f" (and {len(same) - 1} more like this)" if same[1:] else "")
        for same in alike.values()
    ]
