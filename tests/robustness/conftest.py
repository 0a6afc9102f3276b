"""Runs on tiny heads that are disturbed, killed and repeated."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.integration.conftest import read_tsv
from tests.warm import warm_run


@dataclass
class Started:
    """A run in a session of its own, so that all its processes can be found."""

    main: subprocess.Popen[str]

    def processes(self) -> list[psutil.Process]:
        """The main process and all that it has started, also those it has lost."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) == self.main.pid:
                    found.append(process)
        return found

    def kill_all(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.main.pid, signal.SIGKILL)

    def reaches(self, condition: Callable[[], object], seconds: float = 300.0) -> None:
        """Wait until a function says that it is so; a run that has ended will not come to it."""
        end = time.monotonic() + seconds
        while not condition():
            if self.main.poll() is not None and not condition():
                code, output = self.ends()
                pytest.fail(f"the run ended before it came so far, with exit code {code}: {output}")
            assert time.monotonic() < end, "it did not come so far"
            time.sleep(0.01)

    def ends(self, seconds: float = 300.0) -> tuple[int, str]:
        """Its exit code, and all it said."""
        output, _ = self.main.communicate(timeout=seconds)
        return self.main.returncode, output

    def is_gone(self, seconds: float = 10.0) -> bool:
        """Whether no process of it is left, after a while."""
        end = time.monotonic() + seconds
        while self.processes():
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True


@contextlib.contextmanager
def started(*arguments: object, prefix: tuple[str, ...] = (), **more: str) -> Iterator[Started]:
    """Start ``deepmrseg-bids`` and go on; nothing of it is left at the end of the block.

    It listens to Ctrl-C also where these tests run in the background of a script, which does not.
    """
    words = [
        "env",
        "--default-signal=INT",
        *prefix,
        sys.executable,
        "-m",
        "deepmrseg_bids.cli.deepmrseg_bids",
    ]
    main = subprocess.Popen(
        [*words, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **more},
        start_new_session=True,
    )
    run = Started(main)
    try:
        yield run
    finally:
        run.kill_all()
        main.communicate()


class Nursery:
    """Runs on one folder after another, that end well or are killed."""

    def run(self, arguments: list[object], *, until: float | None) -> float:
        """Run it to its end, or kill all of it after some seconds; how long it ran."""
        start = time.monotonic()
        ended = warm_run(arguments, kill_after=until)
        assert ended.code in ((0,) if until is None else (0, -signal.SIGKILL)), ended
        return time.monotonic() - start


def made(out: Path) -> dict[str, bytes]:
    """Every file of the data set but pages and logs, which tell of the run and not of the data."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix != ".html" and path.relative_to(out).parts[0] != "logs"
    }


@pytest.fixture(scope="session")
def asked(tiny_data: Path, tiny_model: Path) -> Callable[..., list[object]]:
    """The command line of a run into a folder, without pages unless they are wanted."""

    def make(out: Path, *more: object, pages: bool = False) -> list[object]:
        words = [tiny_data, out, "participant", "--tasks", "brain", "--nprocs", "2"]
        return [*words, "--model", f"brain={tiny_model}", *more] + ["--no-reports"] * (not pages)

    return make


@pytest.fixture(scope="session")
def whole(
    asked: Callable[..., list[object]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a run that nobody disturbs makes."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with started(*asked(out)) as run:
        code, output = run.ends()
    assert code == 0, output
    return made(out)


def rows(out: Path) -> dict[str, dict[str, str]]:
    return {row["participant_id"]: row for row in read_tsv(out / "logs" / "sessions.tsv")}


@pytest.fixture(scope="session")
def nursery() -> Nursery:
    """One for all tests."""
    return Nursery()
