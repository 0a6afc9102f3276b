"""Signals, kills and crowds: what is done stays, and the same command does the rest."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from deepmrseg_bids import files
from deepmrseg_bids.files import UNFINISHED
from tests.robustness.conftest import Nursery, Started, made, rows, started

Say = Callable[[str], None]
Asked = Callable[..., list[object]]
PEOPLE, WORKERS = 8, 2


def finished(out: Path) -> set[str]:
    """The sessions that have all sidecars, none of which is marked as unfinished."""
    sidecars = out.glob("sub-*/anat/*_mask.json")  # the first of its names comes last
    tables = {path.parent for path in out.glob("sub-*/anat/*_morph.json")}
    return {
        path.parts[-3]
        for path in sidecars
        if path.parent in tables and UNFINISHED not in path.read_text(encoding="utf-8")
    }


def is_marked(content: bytes, expected: bytes | None) -> bool:
    """Whether this is the sidecar of a task that is being replaced, complete and marked so."""
    try:
        tree = json.loads(content)
        return tree.pop(UNFINISHED, False) and tree == json.loads(expected or b"")
    except (ValueError, AttributeError, TypeError):
        return False


def kill_in_a_session(run: Started) -> bool:
    """Kill a worker if one is in the middle of a session, in whose folder it then works."""
    for process in run.processes():
        with contextlib.suppress(psutil.Error):
            process.suspend()
            if "segment_" in process.cwd():
                process.kill()
                return True
            process.resume()
    return False


def finishes(nursery: Nursery, command: list[object], out: Path, whole: dict[str, bytes]) -> None:
    """The same command again does what is left, with the same bytes."""
    nursery.run(command, until=None)
    assert made(out) == whole
    assert {row["status"] for row in rows(out).values()} <= {"done", "resumed"}


def test_a_run_that_has_ended_is_not_waited_for() -> None:
    with started("--version") as run, pytest.raises(pytest.fail.Exception, match="exit code 0"):
        run.reaches(lambda: False, seconds=60)


@pytest.mark.robustness("worker killed", tried="kill -9 of one of two workers in a session")
def test_a_killed_worker_costs_its_session_alone(
    asked: Asked, whole: dict[str, bytes], nursery: Nursery, tmp_path: Path, came_out: Say
) -> None:
    out = tmp_path / "out"
    with started(*asked(out, pages=True)) as run:
        run.reaches(lambda: kill_in_a_session(run))
        code, output = run.ends()
        assert run.is_gone()
    assert code == 3, output
    [failed] = [row for row in rows(out).values() if row["status"] == "failed"]
    assert f"{failed['participant_id']}: brain failed: {failed['reason']}" in output
    page = (out / f"{failed['participant_id']}.html").read_text(encoding="utf-8")
    assert "the worker was killed" in page
    assert sum(row["status"] == "done" for row in rows(out).values()) == PEOPLE - 1
    finishes(nursery, asked(out), out, whole)
    came_out(f"exit code {code}; its session failed: {failed['reason']}; the others were "
             "completed; the next run completed it, byte-identical")  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("SIGINT", marks=pytest.mark.robustness("SIGINT", tried="Ctrl-C in a run")),
        pytest.param("SIGTERM", marks=pytest.mark.robustness("SIGTERM", tried="kill of a run")),
    ],
)
def test_an_interrupted_run_ends_clean_and_is_finished_by_the_next(
    asked: Asked,
    whole: dict[str, bytes],
    nursery: Nursery,
    tmp_path: Path,
    came_out: Say,
    name: str,
) -> None:
    out, work = tmp_path / "out", tmp_path / "tmp"
    work.mkdir()
    with started(*asked(out), TMPDIR=str(work)) as run:
        # of the last session of each of two workers the run may not have heard yet
        run.reaches(lambda: len(finished(out)) >= 4)
        # what a worker leaves that is stopped while it writes
        (out / f".deepmrseg-{files._boot()}-0123456789ab.tmp").touch()
        if name == "SIGINT":
            os.killpg(run.main.pid, signal.SIGINT)  # as a terminal does
        else:
            run.main.send_signal(signal.SIGTERM)
        code, output = run.ends()
        assert run.is_gone()
    assert code == 130
    assert "Traceback" not in output
    assert output.endswith("interrupted\n")
    told = rows(out)
    done = {person for person, row in told.items() if row["status"] == "done"}
    assert 2 <= len(done) < PEOPLE == len(told)
    unheard = finished(out) - done  # completed as the run was stopped: the next run finds them
    assert done <= finished(out) and len(unheard) <= WORKERS
    left = {row["reason"] for row in told.values() if row["status"] != "done"}
    assert list(work.iterdir()) == [] and not list(out.rglob(".deepmrseg-*"))
    finishes(nursery, asked(out), out, whole)
    came_out(
        f"exit code {code}, no process left; sessions.tsv lists the completed sessions, and for "
        f"the rest: {' / '.join(left)}; the next run completed it, byte-identical"
    )


@pytest.mark.robustness(
    "power cut (SIGKILL at any instant)",
    tried="kill -9 of all processes of a run at 30 random instants, started again each time",
)
def test_a_run_killed_at_thirty_random_instants_makes_the_same_bytes(
    asked: Asked, whole: dict[str, bytes], nursery: Nursery, tmp_path: Path, came_out: Say
) -> None:
    three = {f"sub-{number:02d}" for number in (1, 2, 3)}
    expected = {name: data for name, data in whole.items()
                if not name.startswith("sub-") or name[:6] in three}  # fmt: skip
    people = ("--participant-label", *sorted(three))
    seed = int(os.environ.get("DEEPMRSEG_KILL_SEED", random.SystemRandom().randrange(10**9)))
    sys.stderr.write(f"DEEPMRSEG_KILL_SEED={seed}\n")  # pytest shows it if the test fails
    draw, out, kills = random.Random(seed), tmp_path / "out", 0
    seconds = nursery.run(asked(tmp_path / "timed", *people, "--force"), until=None)
    while kills < 30:
        nursery.run(asked(out, *people, "--force"), until=draw.uniform(0, seconds))
        kills += 1
        for name, content in made(out).items():
            whole_file = content == expected.get(name) or is_marked(content, expected.get(name))
            assert name.endswith(".tmp") or whole_file, f"{name} is broken"
    finishes(nursery, asked(out, *people), out, expected)
    came_out("each file under its final name was complete after every kill; the result of the "
             "last run was byte-identical to that of an uninterrupted run")  # fmt: skip
