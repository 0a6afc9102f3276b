"""``.bidsignore`` of the raw data set: files that its owner does not count as part of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pathspec import GitIgnoreSpec

__all__ = ["BidsIgnore"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BidsIgnore:
    """The patterns of ``.bidsignore``, with the meaning of those of ``.gitignore``."""

    root: Path

    @cached_property
    def _patterns(self) -> GitIgnoreSpec | None:
        path = self.root / ".bidsignore"
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("%s: cannot be read (%s), so it is not used", path, error)
            return None
        try:
            return GitIgnoreSpec.from_lines(line for line in lines if line.strip())
        except ValueError as error:
            _log.warning("%s: not used, %s", path, error)
            return None

    def matches(self, place: str) -> bool:
        """Whether a file is excluded.

        Args:
            place: relative to the data set, with ``/``; a folder ends in one.
        """
        return self._patterns is not None and self._patterns.match_file(place)
