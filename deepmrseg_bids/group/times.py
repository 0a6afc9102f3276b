"""The sessions of a study in the order of time, participant by participant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepmrseg_bids.bids.keyed_tables import listed
from deepmrseg_bids.bids.participants import SessionKey
from deepmrseg_bids.bids.visits import Visits, natural, read_visits
from deepmrseg_bids.group.volumes import TaskVolumes
from deepmrseg_bids.wording import once

__all__ = ["Times"]


@dataclass(frozen=True)
class Times:
    """When the sessions of each participant were.

    Attributes:
        visits: by participant; of those that are not here the labels alone are known.
    """

    visits: Mapping[str, Visits] = field(default_factory=dict)

    @classmethod
    def read(
        cls, bids_dir: Path, volumes: Iterable[TaskVolumes], more: Iterable[SessionKey] = ()
    ) -> Times:
        """The times of all sessions that have volumes, and of more."""
        stems: dict[str, dict[str, str]] = {}
        for subject, session in more:
            stems.setdefault(subject, {})[session] = f"{subject}_{session}"
        for task in volumes:
            for (subject, session), stem in task.sources.items():
                stems.setdefault(subject, {})[session] = stem
        return cls({who: read_visits(bids_dir, who, of) for who, of in sorted(stems.items())})

    def of(self, subject: str, sessions: Iterable[str]) -> Visits:
        """The sessions of one participant."""
        return self.visits.get(subject) or Visits.of(sessions)

    def in_order(self, keys: Iterable[SessionKey]) -> list[SessionKey]:
        """Sessions by participant and time."""
        places = {
            (subject, session): place
            for subject, visits in self.visits.items()
            for place, session in enumerate(visits.sessions)
        }
        return sorted(set(keys), key=lambda key: (key[0], places.get(key, 0), natural(key[1])))

    def places(self, keys: Sequence[SessionKey]) -> list[tuple[int | None, float | None]]:
        """Of each session its number among those of its person, and years since the first.

        None where the order is not known, or a date.
        """
        sessions: dict[str, list[str]] = {}
        for subject, session in self.in_order(keys):
            sessions.setdefault(subject, []).append(session)
        known = {who: self.of(who, of).among(of) for who, of in sessions.items()}
        found = []
        for subject, session in keys:
            visits, of = known[subject], sessions[subject]
            years = [visits.years[one] for one in of if one in visits.years]
            place = of.index(session) + 1 if visits.known else None
            since = visits.years[session] - min(years) if session in visits.years else None
            found.append((place, since))
        return found

    @property
    def notes(self) -> list[str]:
        """What is odd in the times, and whose order is not known, one line each."""
        alike: dict[str, list[str]] = {}
        for who, reason in self.unknown.items():
            alike.setdefault(reason, []).append(who)
        odd = [note for visits in self.visits.values() for note in visits.notes]
        return once(odd) + [f"{listed(people)}: {reason}" for reason, people in alike.items()]

    @property
    def unknown(self) -> dict[str, str]:
        """By participant, why the order of the sessions is not known."""
        return {who: of.reason for who, of in self.visits.items() if not of.known}
