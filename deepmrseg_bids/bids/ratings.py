"""Ratings of quality: what raters say of each result, as the reports export it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deepmrseg_bids.bids.keyed_tables import listed
from deepmrseg_bids.bids.names import strip_prefix
from deepmrseg_bids.bids.participants import SessionKey
from deepmrseg_bids.errors import DatasetError, UsageError
from deepmrseg_bids.tsv import NOT_KNOWN, read_foreign_tsv

__all__ = ["LEVELS", "RATING_COLUMNS", "Rating", "Ratings", "read_ratings", "unknown_sessions"]

LEVELS = ("pass", "doubtful", "fail")
"""The ratings, the best first."""
RATING_COLUMNS = {
    "participant_id": {"Description": "Participant, with sub-"},
    "session_id": {"Description": "Session, with ses-; n/a if the data set has no sessions"},
    "task": {"Description": "Task whose result was rated; n/a: all tasks of the session"},
    "rating": {
        "Description": "Quality of the result",
        "Levels": {
            "pass": "can be used",
            "doubtful": "has flaws; kept in statistics",
            "fail": "cannot be used; excluded from statistics",
        },
    },
    "comment": {"Description": "Comment of the rater"},
    "rater": {"Description": "Name or initials of the rater"},
    "time": {"Description": "Time of the rating, ISO 8601, UTC"},
}
"""The columns of ``ratings.tsv``, and what its JSON says of them."""
_NEEDED = ("participant_id", "rating")


@dataclass(frozen=True)
class Rating:
    """What one rater says of one result.

    Attributes:
        session: participant_id and session_id; the latter is empty without sessions.
        task: empty for all tasks of the session.
        rating: of ``LEVELS``.
        time: text that sorts by time; empty if not known.
    """

    session: SessionKey
    task: str
    rating: str
    comment: str = ""
    rater: str = ""
    time: str = ""


@dataclass(frozen=True)
class Ratings:
    """All ratings that were given: of each rater the latest about each result.

    Attributes:
        notes: what is odd in the files, one line each.
    """

    ratings: tuple[Rating, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def raters(self) -> list[str]:
        """Who has rated, in alphabetical order."""
        return sorted({one.rater for one in self.ratings})

    def by(self, rater: str, task: str) -> dict[SessionKey, Rating]:
        """What a rater says of a task: one about the task goes before one about all tasks."""
        own = [one for one in self.ratings if one.rater == rater and one.task in ("", task)]
        return {one.session: one for one in sorted(own, key=lambda one: one.task)}

    def of(self, task: str) -> dict[SessionKey, str]:
        """The rating of each session: of several raters the most severe one counts."""
        found: dict[SessionKey, str] = {}
        for rater in self.raters:
            for session, one in self.by(rater, task).items():
                known = found.get(session, LEVELS[0])
                found[session] = max(known, one.rating, key=LEVELS.index)
        return found

    def comments(self, task: str) -> dict[SessionKey, str]:
        """The comments on a task, with their raters where there are several."""
        found: dict[SessionKey, list[str]] = {}
        for rater in self.raters:
            for session, one in self.by(rater, task).items():
                if one.comment:
                    who = f"{rater}: " if rater and len(self.raters) > 1 else ""
                    found.setdefault(session, []).append(who + one.comment)
        return {session: "; ".join(texts) for session, texts in found.items()}


def read_ratings(paths: Sequence[Path]) -> Ratings:
    """Read tables of ratings; without the column ``rater`` a rater is called like the file.

    Raises:
        UsageError: a table is missing or has no such columns, or a rating is no such word.
    """
    latest: dict[tuple[SessionKey, str, str], Rating] = {}
    notes: list[str] = []
    unnamed: list[str] = []
    for path in paths:
        try:
            table = read_foreign_tsv(path)
            table.require(*_NEEDED)
        except DatasetError as error:
            raise UsageError(f"--ratings: {error}") from error
        notes += table.notes
        for line, row in zip(table.lines, table.rows, strict=True):
            one = _rating(row, f"{path}, line {line}", path.stem)
            key = (one.session, one.task, one.rater)
            if one.rating and (key not in latest or latest[key].time <= one.time):
                latest[key] = one
            if one.rating and not one.rater:
                unnamed.append(str(path))
    if len(files := list(dict.fromkeys(unnamed))) > 1:
        notes.append(f"--ratings: {listed(files)}: ratings without a rater are taken for those of "
                     "one person; write names into the column rater to see how far raters agree"
                     )  # fmt: skip
    return Ratings(tuple(latest.values()), tuple(notes))


def _rating(row: Mapping[str, str], where: str, file: str) -> Rating:
    def cell(column: str) -> str:
        text = row.get(column, NOT_KNOWN).strip()
        return "" if text == NOT_KNOWN else text

    rating = cell("rating").lower()
    if rating not in ("", *LEVELS):
        raise UsageError(
            f"--ratings: {where}: a rating is {', '.join(LEVELS)} or {NOT_KNOWN}, got "
            f"{row['rating']!r}"
        )
    subject, session = strip_prefix(cell("participant_id"), "sub"), cell("session_id")
    key = (f"sub-{subject}", f"ses-{strip_prefix(session, 'ses')}" if session else "")
    rater = cell("rater") or ("" if "rater" in row else file)
    return Rating(key, cell("task"), rating, cell("comment"), rater, cell("time"))


def unknown_sessions(ratings: Ratings, known: Iterable[SessionKey]) -> list[SessionKey]:
    """The rated sessions that are not among the known ones."""
    there = set(known)
    return sorted({one.session for one in ratings.ratings} - there)
