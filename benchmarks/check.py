"""Whether a change has made anything slower: ratios inside one run against their bounds.

    make bench-check        (or: python benchmarks/check.py)

A ratio compares two things that the same machine does one after the other, so it means the same
on a fast and on a slow one; seconds do not. Needs an otherwise idle machine for about two minutes.
The bounds leave room for other machines; whoever makes something faster moves its bound.
The exit code is 1 if a ratio is beyond its bound.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from speed import measure
from start import _PREDICT, BIDS, LIBRARY, TASKS, least, quietly

from deepmrseg_bids.system import prepare_process

# what, and the most that is allowed
BOUNDS = {
    "matrix product over networks, rates": 3.4,
    "whole head over networks": 2.6,
    "`predict` until it reads an image over `import torch`": 1.8,
    "`deepmrseg-bids --help` over an empty Python": 8.0,
    "`deepmrseg --help` over an empty Python": 8.0,
}


def ratios() -> dict[str, float]:
    """The ratios, by what they compare; those of starts are of processor time."""

    def processor(*words: object) -> float:
        return least(lambda: quietly(*words), 5)[1]

    empty = processor(sys.executable, "-c", "pass")
    torch = processor(sys.executable, "-c", "import torch")
    words = [word for task in TASKS for word in ("--task", task)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        predict = processor(sys.executable, "-c", _PREDICT, "-o", out, *words)
    starts = (predict / torch, processor(*BIDS, "--help") / empty,
              processor(*LIBRARY, "--help") / empty)  # fmt: skip
    prepare_process()
    head = measure(runs=3)
    return dict(
        zip(BOUNDS, (head.ceiling / head.rate, head.whole / head.networks, *starts), strict=True)
    )


def main() -> int:
    beyond = 0
    print("| ratio | found | at most |\n| --- | --- | --- |")
    for name, found in ratios().items():
        slow = found > BOUNDS[name]
        beyond += slow
        print(f"| {name} | {found:.2f} | {BOUNDS[name]:.2f}{' **exceeded**' if slow else ''} |")
    return 1 if beyond else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"a measured command failed: {error}")
