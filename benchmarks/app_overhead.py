"""What the app adds to a session: everything but the networks and reading and writing.

    python benchmarks/app_overhead.py [--sessions 4]

Runs `deepmrseg-bids` on one session and on several equal ones (the MNI152 average inside
nilearn, one process), and subtracts what `benchmarks/speed.py` calls the whole. Prints the
seconds a session after the first, and those without pages.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
from speed import head


def describe(root: Path) -> None:
    """A new data set without subjects."""
    root.mkdir(parents=True)
    text = json.dumps({"Name": "b", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    (root / "dataset_description.json").write_text(text)


def dataset(root: Path, sessions: int) -> None:
    describe(root)
    image = head()
    for number in range(1, sessions + 1):
        anat = root / f"sub-{number:02d}" / "anat"
        anat.mkdir(parents=True)
        nib.save(image, anat / f"sub-{number:02d}_T1w.nii.gz")


def seconds(root: Path, out: Path, *flags: str) -> float:
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "deepmrseg_bids.cli.deepmrseg_bids", root, out, "participant",
         "--nprocs", "2", "--omp-nthreads", "2", "-q", *flags],
        check=True,
    )  # fmt: skip
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=4)
    sessions = parser.parse_args().sessions
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        dataset(base / "one", 1)
        dataset(base / "many", sessions)
        print("| | one session | a session after the first |\n| --- | --- | --- |")
        for name, flags in (("with pages", ()), ("without pages", ("--no-reports",))):
            one = seconds(base / "one", base / f"o1-{name}", *flags)
            many = seconds(base / "many", base / f"o2-{name}", *flags)
            print(f"| {name} | {one:.1f} s | {(many - one) / (sessions - 1):.1f} s |", flush=True)


if __name__ == "__main__":
    main()
