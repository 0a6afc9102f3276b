"""How long it takes until work begins.

    python benchmarks/start.py [--runs 5]

Prints, as a Markdown table, wall time and processor time (the least of several runs, since
other programs only add to them) of:

- `--help` of both commands and of every subcommand (the slowest),
- `import torch` alone, to compare with,
- `deepmrseg predict` with three tasks until it opens the first image: networks are loaded,
- `deepmrseg-bids` until a worker begins the first session. Processor time is that of its main
  process alone, to the end of a run whose only scan cannot be read.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from app_overhead import describe

BIDS = [sys.executable, "-m", "deepmrseg_bids.cli.deepmrseg_bids"]
LIBRARY = [sys.executable, "-m", "deepmrseg_bids.cli.deepmrseg"]
COMMANDS = ("predict", "train", "crossval", "evaluate", "models", "export")
_PREDICT = """
import os, sys
from deepmrseg_bids.cli import deepmrseg
deepmrseg._predict_one = lambda *_: os._exit(0)
deepmrseg.main(["predict", "x_T1w.nii", "-q", *sys.argv[1:]])
"""
TASKS = ("brain", "deepbrain", "hippocampus")


def taken(work: Callable[[], float | None]) -> tuple[float, float]:
    """Seconds of wall time (or those that it returns), and processor time of its processes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    own = work()
    wall = time.perf_counter() - start if own is None else own
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def least(work: Callable[[], float | None], runs: int) -> tuple[float, float]:
    """The least wall time and the least processor time of several runs."""
    walls, processor = zip(*(taken(work) for _ in range(runs)), strict=True)
    return min(walls), min(processor)


def quietly(*words: object) -> None:
    subprocess.run([*map(str, words)], check=True, stdout=subprocess.DEVNULL)


def until_a_session_begins(folder: Path) -> float:
    """Seconds until nipype has made the folder of the session's node, in a worker."""
    work = Path(tempfile.mkdtemp(dir=folder))
    words = [*BIDS, folder / "raw", work / "out", "participant", "-w", work, "-qq", "--no-reports",
             "--tasks", *TASKS]  # fmt: skip
    start = time.perf_counter()
    with subprocess.Popen([*map(str, words)], stderr=subprocess.DEVNULL) as run:
        while run.poll() is None and not any(work.glob("run-*/*/*/segment_*")):
            time.sleep(0.002)
        seconds = time.perf_counter() - start
        assert run.wait() == 4, "the scan cannot be read: nothing could be done"
    return seconds


def rows(folder: Path, runs: int) -> list[tuple[str, float, float]]:
    """What was measured: name, wall time, processor time."""
    describe(folder / "raw")
    anat = folder / "raw" / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (anat / "sub-01_T1w.nii").write_bytes(bytes(400))
    helps = [(*BIDS, "--help"), (*LIBRARY, "--help")]
    helps += [(*LIBRARY, name, "--help") for name in COMMANDS]
    slowest = max(least(lambda words=words: quietly(*words), runs) for words in helps)
    torch = least(lambda: quietly(sys.executable, "-c", "import torch"), runs)
    words = ["-o", folder / "o", *(word for task in TASKS for word in ("--task", task))]
    predict = least(lambda: quietly(sys.executable, "-c", _PREDICT, *words), runs)
    app = least(lambda: until_a_session_begins(folder), runs)
    return [
        ("`--help`, the slowest", *slowest),
        ("`import torch`", *torch),
        ("`deepmrseg predict` until it reads an image", *predict),
        ("`deepmrseg-bids` until a session begins", *app),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print("| | wall time | processor time |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name, wall, processor in rows(Path(folder), runs):
            print(f"| {name} | {wall:.2f} s | {processor:.2f} s |", flush=True)


if __name__ == "__main__":
    main()
