"""The figures of speed on one page: run on an idle machine, before and after a change.

    python benchmarks/table.py [--wml T1W FLAIR] [--quick]

Prints a Markdown table, row by row, in about 20 minutes on two cores; `--quick` leaves out the
rows of many sessions. Each row is measured in processes of its own:

- a head of 256^3 with three tasks (`speed.py`), in the precision of the machine and in float32,
- the start of both commands (`start.py`),
- finding the sessions of 500 subjects x 2 (`index_bids.py`),
- a run of 2,000 completed sessions (`scale.py finished`),
- the page of a subject with three tasks, processor time (`stages.py page`),
- a session of the app over the library alone, ten sessions (`app_overhead.py`),
- a session of `wml` (`speed_wml.py`), for a T1w and a FLAIR of yours.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from app_overhead import dataset, seconds
from start import rows as starts

_HERE = Path(__file__).parent
_SPEED = """
import json, sys
from dataclasses import asdict
from deepmrseg_bids.system import prepare_process
prepare_process()
from speed import measure
print(json.dumps(asdict(measure(precision=sys.argv[1]))))
"""
_PAGE = """
import sys, tempfile, time
from pathlib import Path
from deepmrseg_bids.system import prepare_process
prepare_process()
from stages import page_work
with tempfile.TemporaryDirectory() as folder:
    work = page_work(Path(folder))
    start = time.process_time()
    work()
    print(time.process_time() - start)
"""


def said(*words: object) -> str:
    """What a command prints."""
    command = [sys.executable, *map(str, words)]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=_HERE)
    return ended.stdout


def heads() -> Iterator[tuple[str, str]]:
    for precision in ("auto", "float32"):
        found = json.loads(said("-c", _SPEED, precision))
        kind = found["kind"].removeprefix("torch.")
        rest = found["around"] + found["writing"]
        yield f"a head, {kind}", f"{found['whole']:.2f} s"
        yield f"networks over matrix product, {kind}", f"{found['rate'] / found['ceiling']:.2f}"
        yield f"resampling, labels, writing, {kind}", f"{rest:.2f} s"
        yield f"peak memory, {kind}", f"{found['peak']:.0f} MiB"


def beginnings() -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        for name, wall, processor in starts(Path(folder), 5):
            yield name, f"{wall:.2f} s (processor time {processor:.2f} s)"


def page() -> Iterator[tuple[str, str]]:
    yield "page of a subject, processor time", f"{float(said('-c', _PAGE)):.2f} s"


def many() -> Iterator[tuple[str, str]]:
    for line in said("index_bids.py").splitlines():
        name, _, text = line.partition(": ")
        yield f"index, {name}", text
    for line in said("scale.py", "finished", "--sessions", 2000).splitlines():
        name, text = line.strip("| ").split(" | ")
        yield name, text


def app(sessions: int = 10) -> Iterator[tuple[str, str]]:
    """A session of a run with pages, those after the first, over the library alone."""
    alone = json.loads(said("-c", _SPEED, "auto"))["whole"]
    tasks = ("--tasks", "brain", "deepbrain", "hippocampus")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        dataset(base / "one", 1)
        dataset(base / "all", sessions)
        one = seconds(base / "one", base / "out1", *tasks)
        every = seconds(base / "all", base / "out2", *tasks)
    ratio = (every - one) / (sessions - 1) / alone
    yield f"a session of the app over the library alone, {sessions} sessions", f"{ratio:.2f}"


def lesions(t1w: Path, flair: Path) -> Iterator[tuple[str, str]]:
    for line in said("speed_wml.py", t1w.absolute(), flair.absolute()).splitlines():
        cells = line.strip("| ").split(" | ")
        if cells[0] == flair.name:
            for name, text in zip(("session", "registration", "memory"), cells[2:], strict=True):
                yield f"`wml`, {name}", text


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--wml", nargs=2, type=Path, metavar=("T1W", "FLAIR"))
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    parts = [heads(), beginnings(), page()]
    if args.wml:
        parts.append(lesions(*args.wml))
    if not args.quick:
        parts += [many(), app()]
    begun = time.monotonic()
    print("| figure | value |\n| --- | --- |")
    for part in parts:
        for name, text in part:
            print(f"| {name} | {text} |", flush=True)
    print(f"\n{time.monotonic() - begun:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
