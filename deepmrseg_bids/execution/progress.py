"""One line of progress: sessions done, failed and remaining, and the remaining time."""

from __future__ import annotations

import logging
import time
from typing import TextIO

from deepmrseg_bids.wording import counted

__all__ = ["Progress", "spell"]

_log = logging.getLogger("deepmrseg-bids")


class Progress:
    """Counts sessions as they end; redraws a line on a terminal, logs lines elsewhere."""

    def __init__(
        self,
        sessions: int,
        *,
        stream: TextIO,
        quiet: bool = False,
        what: str = "session",
    ) -> None:
        """Count up to ``sessions``, or so many of something else."""
        self.sessions = sessions
        self._what = what
        self.done = 0
        self.failed = 0
        self.skipped = 0
        self._stream = stream
        self._quiet = quiet
        self._start = time.monotonic()
        self._drawn = False

    @property
    def ended(self) -> int:
        """How many have ended, whatever came of them."""
        return self.done + self.failed + self.skipped

    def count(self, *, good: bool, skipped: bool = False) -> None:
        """One more has ended, well or not, or nothing of it could be done."""
        if not good:
            self.failed += 1
        elif skipped:
            self.skipped += 1
        else:
            self.done += 1
        self._show()

    def close(self) -> None:
        """End the line that a terminal shows, when the run ends before all sessions have."""
        if self._drawn:
            print(file=self._stream, flush=True)
            self._drawn = False

    def line(self) -> str:
        """``3 of 10 sessions done, 0 failed, 7 remaining, about 2 min left``.

        Those of which nothing could be done are named only if there are some.
        """
        ended = self.ended
        left = self.sessions - ended
        text = (
            f"{self.done} of {counted(self.sessions, self._what)} done, {self.failed} failed, "
            + (f"{self.skipped} skipped, " if self.skipped else "")
            + f"{left} remaining"
        )
        if left and ended:
            seconds = (time.monotonic() - self._start) / ended * left
            text += f", about {spell(seconds)} left"
        return text

    def _show(self) -> None:
        if self._quiet:
            return
        if self._stream.isatty():
            self._drawn = self.ended < self.sessions
            end = "" if self._drawn else "\n"
            print(f"\r\033[K{self.line()}", end=end, file=self._stream, flush=True)
        else:
            _log.info("%s", self.line())


def spell(seconds: float) -> str:
    """A duration for people.

    >>> spell(80), spell(600), spell(9000)
    ('80 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
