"""Many sessions: throughput, memory, and how long it takes to find that nothing is to do.

    python benchmarks/scale.py throughput [--sessions 24] [--edge 2]
    python benchmarks/scale.py many [--sessions 2000] [--seconds 9000]
    python benchmarks/scale.py finished [--sessions 1000]

The head is the MNI152 average inside nilearn at ``--edge`` mm, as it is (99 x 117 x 95 voxels at
2 mm); the task is `brain`, with its pages.

- `throughput`: the same sessions with `--nprocs 1` and `--nprocs 2`, one thread each. Counted
  from the first session that ends to the last, so that starting up is left out.
- `many`: seconds a session, and the memory and open files of all processes, tenth by tenth of
  what was done in the time; a run that takes longer is then ended.
- `finished`: a run on a data set of which an earlier run has done everything, with all three
  tasks: with its table of checksums, and without it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import psutil


class Sample(NamedTuple):
    """What all processes of a run had taken so far, and had at that time."""

    seconds: float
    sessions: int
    processor: float  # seconds
    main: float  # MiB
    workers: float
    files: int


def dataset(root: Path, sessions: int, edge: int) -> None:
    """Equal heads, one a subject."""
    root.mkdir(parents=True)
    text = json.dumps({"Name": "b", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    (root / "dataset_description.json").write_text(text)
    folder = files("nilearn.datasets") / "data"
    image = nib.load(str(folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"))
    data = np.ascontiguousarray(np.asarray(image.dataobj)[::edge, ::edge, ::edge])
    small = nib.Nifti1Image(data, image.affine @ np.diag([edge, edge, edge, 1.0]))
    first = root / "head.nii.gz"
    nib.save(small, first)
    for number in range(1, sessions + 1):
        anat = root / f"sub-{number:04d}" / "anat"
        anat.mkdir(parents=True)
        shutil.copyfile(first, anat / f"sub-{number:04d}_T1w.nii.gz")
    first.unlink()


def command(raw: Path, out: Path, *flags: object) -> list[str]:
    words = [sys.executable, "-m", "deepmrseg_bids.cli.deepmrseg_bids", raw, out, "participant"]
    return [*map(str, words), *map(str, flags)]


def done(out: Path) -> int:
    return sum(1 for _ in out.glob("sub-*/anat/*_mask.json"))


def throughput(base: Path, sessions: int, edge: int) -> None:
    dataset(base / "raw", sessions, edge)
    rates = []
    for nprocs in (1, 2):
        out = base / f"out{nprocs}"
        words = command(base / "raw", out, "--tasks", "brain", "--nprocs", nprocs)
        subprocess.run(words, check=True, stderr=subprocess.DEVNULL)
        ends = sorted(path.stat().st_mtime for path in out.glob("sub-*/anat/*_mask.json"))
        rates.append((sessions - 1) / (ends[-1] - ends[0]))
        print(f"| --nprocs {nprocs} | {1 / rates[-1]:.2f} s a session |", flush=True)
    print(f"| throughput, 2 against 1 | {rates[1] / rates[0]:.2f} |")


def sample(run: subprocess.Popen[str], out: Path, start: float, taken: Counter[int]) -> Sample:
    """Look at all processes; ``taken`` remembers the processor time of those that ended."""
    main = psutil.Process(run.pid)
    sizes, opened = [], 0
    for process in (main, *main.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            taken[process.pid] = times.user + times.system
            memory = process.memory_full_info().uss / 2**20
            sizes.append((process.pid == run.pid, memory))
            opened += process.num_fds()
    own = sum(size for mine, size in sizes if mine)
    others = sum(size for mine, size in sizes if not mine)
    return Sample(time.monotonic() - start, done(out), sum(taken.values()), own, others, opened)


def many(base: Path, sessions: int, edge: int, seconds: float) -> None:
    dataset(base / "raw", sessions, edge)
    out, start, samples = base / "out", time.monotonic(), []
    taken: Counter[int] = Counter()
    words = command(base / "raw", out, "--tasks", "brain", "-w", base / "work")
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, text=True) as run:
        while run.poll() is None and time.monotonic() - start < seconds:
            time.sleep(5)
            with contextlib.suppress(psutil.Error):
                samples.append(sample(run, out, start, taken))
        if run.poll() is None:
            run.terminate()
    report(samples, sessions)
    print(f"\nexit code {run.returncode} after {time.monotonic() - start:.0f} s")


def report(samples: list[Sample], sessions: int) -> None:
    total = samples[-1].sessions
    print(f"| {total} of {sessions} sessions | s a session | processor, s a session "
          "| main | workers | open files |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- |")
    edges = [total * tenth // 10 for tenth in range(11)]
    for low, high in itertools.pairwise(edges):
        part = [one for one in samples if max(1, low) <= one.sessions <= high]
        if not part:  # a short run: no look fell into it
            continue
        first, last = part[0], part[-1]
        count = max(1, last.sessions - first.sessions)
        own, others, opened = (
            np.median([getattr(one, name) for one in part]) for name in ("main", "workers", "files")
        )
        print(f"| {low + 1} to {high} | {(last.seconds - first.seconds) / count:.2f} "
              f"| {(last.processor - first.processor) / count:.2f} | {own:.0f} MiB "
              f"| {others:.0f} MiB | {opened:.0f} |", flush=True)  # fmt: skip


def finished(base: Path, sessions: int, edge: int) -> None:
    dataset(base / "raw", sessions, edge)
    out = base / "out"
    words = command(base / "raw", out)
    subprocess.run([*words, "--participant-label", "0001", "-q"], check=True)
    copy_results(out, sessions)
    for name in ("without", "with"):
        start = time.monotonic()
        ended = subprocess.run(words, check=True, stderr=subprocess.PIPE, text=True)
        seconds = time.monotonic() - start
        assert f"{sessions} of {sessions} sessions completed" in ended.stderr, ended.stderr
        print(f"| {sessions} finished sessions, {name} table of checksums | {seconds:.1f} s |")


def copy_results(out: Path, sessions: int) -> None:
    """Give every subject the results of the first, which has the same scan."""
    first = "sub-0001"
    files = [path for path in (out / first).rglob("*") if path.is_file()]
    page = out / f"{first}.html"
    for number in range(2, sessions + 1):
        subject = f"sub-{number:04d}"
        for path in [*files, page]:
            target = Path(str(path).replace(first, subject))
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix in (".json", ".html"):  # they name their subject
                target.write_text(path.read_text().replace(first, subject))
            else:
                os.link(path, target)
        os.utime(out / f"{subject}.html")
    (out / "logs" / "inputs.tsv").unlink()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("throughput", "many", "finished"))
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--edge", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=9000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        if args.what == "throughput":
            throughput(base, args.sessions or 24, args.edge)
        elif args.what == "many":
            many(base, args.sessions or 2000, args.edge, args.seconds)
        else:
            finished(base, args.sessions or 1000, args.edge)


if __name__ == "__main__":
    main()
