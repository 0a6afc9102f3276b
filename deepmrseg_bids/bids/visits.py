"""The sessions of a participant in the order of time: one rule for every table and page.

The order is that of the dates of the raw data set (``acq_time`` in scans.tsv or sessions.tsv), or
of the ages in sessions.tsv. Where dates are missing it is that of the numbers in the labels, if all
labels are the same but for one number (``ses-2`` before ``ses-10``, ``ses-M00`` before
``ses-M12``). Else it is unknown: nothing is then called first or last, and no change has a sign.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from deepmrseg_bids.bids.keyed_tables import read_keyed
from deepmrseg_bids.bids.names import strip_prefix
from deepmrseg_bids.errors import DatasetError
from deepmrseg_bids.tsv import NOT_KNOWN, Table, number_in, read_foreign_tsv

__all__ = ["Visits", "natural", "read_visits"]

_YEAR = 365.25  # days
_LONGEST = 4  # digits of a number that counts visits, months or years; more are a date or an id
_LABEL = re.compile(r"(\D*)(\d+)(\D*)")
_LIFE = 120  # years that one person can have between two visits, at most
_EXPECTED = "expected as 2001-12-31T08:30:00"


@dataclass(frozen=True)
class Visits:
    """The sessions of one participant.

    Attributes:
        sessions: their labels with ``ses-``, in the order in which to show them.
        years: the time of those that have one, from any zero.
        source: where the times come from: scans.tsv, sessions.tsv or age; empty without any.
        numbers: by session, the number in its label, where these give the order.
        notes: times that cannot be read or contradict each other, one line each.
    """

    sessions: tuple[str, ...]
    years: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    numbers: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        sessions: Iterable[str],
        years: Mapping[str, float] | None = None,
        source: str = "",
        notes: Iterable[str] = (),
    ) -> Visits:
        """Put sessions into order.

        >>> Visits.of(["ses-10", "ses-2"]).sessions
        ('ses-2', 'ses-10')
        >>> Visits.of(["ses-pre", "ses-post"], {"ses-pre": 0.0, "ses-post": 0.5}).sessions
        ('ses-pre', 'ses-post')
        >>> Visits.of(["ses-pre", "ses-post"]).known
        False
        """
        names = sorted(set(sessions), key=natural)
        times = {name: years[name] for name in names if years and name in years}
        numbers = _numbers(names)
        by_number = sorted(names, key=lambda name: numbers.get(name, 0))
        dated = [times[name] for name in by_number if name in times]
        if dated != sorted(dated):
            numbers = {}  # the dates contradict the labels
        names.sort(key=lambda name: (times.get(name, math.inf), numbers.get(name, 0)))
        if numbers and len(times) < len(names):
            names = by_number
        return cls(tuple(names), times, source if times else "", numbers, tuple(notes))

    def before(self, one: str, other: str) -> bool | None:
        """Whether a session was earlier than another one; None where that is not known."""
        times = [self.years.get(session) for session in (one, other)]
        if None not in times and times[0] != times[1]:
            return bool(times[0] < times[1])  # type: ignore[operator]
        numbers = [self.numbers.get(session) for session in (one, other)]
        if None in numbers or numbers[0] == numbers[1]:
            return None
        return bool(numbers[0] < numbers[1])  # type: ignore[operator]

    def among(self, sessions: Iterable[str]) -> Visits:
        """What is known of some of the sessions."""
        wanted = set(sessions)
        return replace(self, sessions=tuple(one for one in self.sessions if one in wanted))

    @property
    def known(self) -> bool:
        """Whether the order of all sessions is known."""
        return all(self.before(one, other) for one, other in pairwise(self.sessions))

    @property
    def reason(self) -> str:
        """Why the order is not known; empty if it is."""
        if self.known:
            return ""
        undated = [session for session in self.sessions if session not in self.years]
        what = "the same time" if not undated else "no time"
        who = ", ".join(undated or self.sessions)
        return (
            f"the order of the sessions is unknown: {who} {_has(undated or self.sessions)} {what} "
            "in scans.tsv and sessions.tsv (acq_time), and the session labels do not give an "
            "order; add the dates to order them"
        )


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def natural(label: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts ``ses-2`` before ``ses-10``.

    >>> sorted(["ses-10", "ses-b", "ses-2", ""], key=natural)
    ['', 'ses-2', 'ses-10', 'ses-b']
    """
    parts = re.findall(r"\d+|\D+", label)
    key = tuple((0, int(p), "") if p.isdigit() else (1, 0, p.casefold()) for p in parts)
    return (*key, (2, 0, label)) if label else ()


def _numbers(sessions: Sequence[str]) -> dict[str, int]:
    """The number in each label, where they differ in one number alone; else nothing."""
    found = [_LABEL.fullmatch(strip_prefix(session, "ses")) for session in sessions]
    if not all(match and match[2].isascii() for match in found):
        return {}
    parts = [(match[1].casefold(), match[2], match[3].casefold()) for match in found if match]
    if len({(prefix, suffix) for prefix, _, suffix in parts}) > 1:
        return {}
    texts = [number for _, number, _ in parts]
    long = any(len(text.lstrip("0")) > _LONGEST for text in texts)
    if long and not all(_is_day(text) for text in texts):
        return {}  # numbers of scans or persons, or dates of which the layout is not known
    numbers = dict(zip(sessions, map(int, texts), strict=True))
    return numbers if len(set(numbers.values())) == len(sessions) else {}


def _is_day(text: str) -> bool:
    """Whether a number is a date as YYYYMMDD."""
    try:
        return len(text) == 8 and bool(date.fromisoformat(text))
    except ValueError:
        return False


def read_visits(bids_dir: Path, subject: str, sources: Mapping[str, str]) -> Visits:
    """The sessions of a subject in order, by the tables of the raw data set.

    Times are taken from one kind of table for all sessions: the one that tells most of them
    apart, in the order scans.tsv, sessions.tsv (their ``acq_time``), the ``age`` of sessions.tsv.

    Args:
        subject: with ``sub-``.
        sources: by session_id, the stem of the image that was segmented, as ``sub-01_ses-1``.
    """
    if len(sources) < 2:
        return Visits.of(sources)
    notes: list[str] = []
    path = bids_dir / subject / f"{subject}_sessions.tsv"
    visits = read_keyed(path, "session_id", "ses", sources).rows  # read_people says what is odd
    scans = {
        session: _scan_cell(bids_dir, subject, session, stem, notes)
        for session, stem in sources.items()
    }
    dates = {session: _named(visits.get(session, {}), "acq_time") for session in sources}
    known = {
        "scans.tsv": _in_years(_times(scans, "scans.tsv", notes)),
        "sessions.tsv": _in_years(_times(dates, "sessions.tsv", notes)),
        "age": {
            session: age
            for session in sources
            if (age := number_in(_named(visits.get(session, {}), "age"))) is not None
        },
    }
    # times that are all the same order nothing; of equals the first
    best = max(known, key=lambda table: (len(set(known[table].values())), len(known[table])))
    found = Visits.of(sources, known[best], best)
    for table in ("sessions.tsv", "age"):
        other = Visits.of(sources, known[table], table)
        if table != best and any(found.before(*pair) is False for pair in _dated_pairs(other)):
            notes.append(
                f"{best} and {table} disagree on the order of the sessions; {best} is used"
            )
    by_label = Visits.of(sources)
    if by_label.known and found.sessions != by_label.sessions:
        notes.append(
            f"the order by {best} is {', '.join(found.sessions)}, unlike the labels; it is used"
        )
    told = tuple(f"{subject}: {note}" for note in dict.fromkeys(notes))
    return replace(found, notes=told)


def _dated_pairs(visits: Visits) -> list[tuple[str, str]]:
    """Sessions of which the first is earlier, by times alone."""
    dated = [one for one in visits.sessions if one in visits.years]
    pairs = pairwise(dated)
    return [(one, two) for one, two in pairs if visits.years[one] < visits.years[two]]


def _foreign(path: Path, notes: list[str]) -> Table | None:
    if not path.is_file():
        return None
    try:
        return read_foreign_tsv(path)
    except DatasetError as error:
        notes.append(str(error))
        return None


def _named(row: Mapping[str, str], column: str) -> str:
    """A cell by the title of its column, in capitals too if no other is written so."""
    if column in row:
        return row[column]
    alike = [cell for title, cell in row.items() if title.casefold() == column]
    return alike[0] if len(alike) == 1 else ""


def _scan_cell(bids_dir: Path, subject: str, session: str, stem: str, notes: list[str]) -> str:
    """The ``acq_time`` of the segmented image, or else the earliest cell of its session."""
    places = (bids_dir / subject / session, bids_dir / subject)
    tables = [_foreign(path, notes) for place in places for path in place.glob("*_scans.tsv")]
    own: list[str] = []
    others: list[str] = []
    for row in (row for table in tables if table for row in table.rows):
        name = Path(_named(row, "filename").replace("\\", "/")).name
        when = _named(row, "acq_time")
        if when in ("", NOT_KNOWN) or f"_{session}_" not in name:
            continue
        (own if name.startswith((f"{stem}_T1w.", f"{stem}_FLAIR.")) else others).append(when)
    if len(set(own)) > 1:
        notes.append(f"{session} has several times in scans.tsv ({', '.join(own)}); none is used")
        return ""
    return own[0] if own else min(others, default="")


def _times(cells: Mapping[str, str], table: str, notes: list[str]) -> dict[str, datetime]:
    """The cells that are dates; those that are none are named."""
    times = {}
    for session, text in cells.items():
        if text in ("", NOT_KNOWN):
            continue
        try:
            times[session] = datetime.fromisoformat(text)
        except ValueError:
            notes.append(
                f"acq_time {text!r} of {session} in {table} is not a date, and is not used; "
                f"{_EXPECTED}"
            )
    if times and max(t.year for t in times.values()) - min(t.year for t in times.values()) > _LIFE:
        texts = ", ".join(f"{session} {cells[session]}" for session in times)
        notes.append(
            f"acq_time in {table} spans more than {_LIFE} years ({texts}), and is not used; were "
            "only some of the dates shifted to anonymise them?"
        )
        return {}
    return times


def _in_years(times: Mapping[str, datetime]) -> dict[str, float]:
    """Times as years from any zero.

    Days alone count where a time of day is missing (midnight stands for none), or where only
    some say in which zone they are.
    """
    zones = {time.tzinfo is not None for time in times.values()}
    days_only = len(zones) > 1 or any(not any(t.timetuple()[3:6]) for t in times.values())
    years = {}
    for session, time in times.items():
        days = float(time.toordinal())
        if not days_only:
            since = timedelta(hours=time.hour, minutes=time.minute, seconds=time.second)
            days += (since - (time.utcoffset() or timedelta())) / timedelta(days=1)
        years[session] = days / _YEAR
    return years
