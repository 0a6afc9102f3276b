"""Which columns of the tables of people hold their age and sex. The report has the same rule."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from deepmrseg_bids.tsv import number_in

__all__ = ["age_column", "sex_column"]

_AGES = ("sessions_age", "age", "participants_age")
_AGE = re.compile(r"(^|_)age(_|$)", re.IGNORECASE)
_SEX = re.compile(r"(participants_)?(sex|gender)", re.IGNORECASE)


def age_column(columns: Mapping[str, Iterable[str]]) -> str:
    """The column with ages in years: the first with a likely title and a number; or empty.

    >>> age_column({"stage": ["2"], "age": ["n/a"], "age_at_scan": ["61,5"]})
    'age_at_scan'
    """
    named = [c for name in _AGES for c in columns if c.lower() == name]
    named += [c for c in columns if _AGE.search(c)]
    known = (c for c in named if any(number_in(cell) is not None for cell in columns[c]))
    return next(known, "")


def sex_column(columns: Iterable[str]) -> str:
    """The column with the sex; empty without one."""
    return next((c for c in columns if _SEX.fullmatch(c)), "")
