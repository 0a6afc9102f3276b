"""Grammar of messages: numbers with the right form of a noun."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun.

    Args:
        noun: in the singular.
        plural: unless the noun takes an s.

    >>> counted(1, "session"), counted(0, "session"), counted(2, "entry", "entries")
    ('1 session', '0 sessions', '2 entries')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
