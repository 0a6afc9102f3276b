"""Runs of the real commands that begin with everything imported, so that many take little time.

What a test claims of the process itself (its home, its environment, its signals) needs a process
of its own; all other runs may begin here.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Ended", "warm_run"]


@dataclass(frozen=True)
class Ended:
    """A run that ended: its exit code (negative: the signal that killed it) and what it said."""

    code: int
    out: str
    err: str


class _Server:
    """The process that forks the runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm_server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        if self._line() != "ready":
            raise RuntimeError("tests/warm_server.py does not start")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(self, request: Mapping[str, object], meanwhile: Callable[[int], None]) -> int:
        """Fork one run; its exit code."""
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        meanwhile(int(self._line()))
        return int(self._line())

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@cache
def _server() -> _Server:
    """One for all tests of this process."""
    server = _Server()
    atexit.register(server.stop)
    return server


def warm_run(
    arguments: Sequence[object],
    *,
    command: str = "deepmrseg_bids",
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    kill_after: float | None = None,
) -> Ended:
    """Run one of our commands to its end, or kill all of it after some seconds.

    Args:
        command: deepmrseg_bids or deepmrseg.
        environment: all variables of the run; None: those of the tests.
        folder: where it runs.
    """

    def meanwhile(pid: int) -> None:
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    with tempfile.TemporaryDirectory(prefix="warm-") as name:
        out, err = Path(name) / "out", Path(name) / "err"
        request = {
            "command": command,
            "arguments": [str(word) for word in arguments],
            "environment": dict(os.environ if environment is None else environment),
            "folder": str(folder or Path.cwd()),
            "out": str(out),
            "err": str(err),
        }
        code = _server().run(request, meanwhile)
        said = [path.read_text(encoding="utf-8") if path.exists() else "" for path in (out, err)]
    return Ended(code, *said)
