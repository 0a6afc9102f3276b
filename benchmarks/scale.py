"""Many sessions: throughput, memory, and how long it takes to find that nothing is to do.

    python benchmarks/scale.py throughput [--sessions 24] [--edge 2]
    python benchmarks/scale.py many [--sessions 2000] [--seconds 480]
    python benchmarks/scale.py finished [--sessions 1000]

The head is the MNI152 average inside nilearn at ``--edge`` mm; the task is `brain`.

- `throughput`: the same sessions with `--nprocs 1` and `--nprocs 2`, one thread each. Counted
  from the first session that ends to the last, so that starting up is left out.
- `many`: seconds a session, and the memory and open files of all processes, quarter by
  quarter of what was done in the time; the run is then interrupted.
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
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
from speed import head

Sample = tuple[float, int, float, float, int]  # seconds, sessions, main MiB, workers MiB, files


def dataset(root: Path, sessions: int, edge: int) -> None:
    """Equal heads, one a subject."""
    root.mkdir(parents=True)
    text = json.dumps({"Name": "b", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    (root / "dataset_description.json").write_text(text)
    image = head()
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


def sample(run: subprocess.Popen[str], out: Path, start: float) -> Sample:
    main = psutil.Process(run.pid)
    families = main.children(recursive=True)
    sizes, files = [], 0
    for process in (main, *families):
        with contextlib.suppress(psutil.Error):
            memory = process.memory_full_info().uss / 2**20
            sizes.append((process.pid == run.pid, memory))
            files += process.num_fds()
    own = sum(size for mine, size in sizes if mine)
    others = sum(size for mine, size in sizes if not mine)
    return time.monotonic() - start, done(out), own, others, files


def many(base: Path, sessions: int, edge: int, seconds: float) -> None:
    dataset(base / "raw", sessions, edge)
    out, start, samples = base / "out", time.monotonic(), []
    words = command(base / "raw", out, "--tasks", "brain", "-w", base / "work")
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, text=True) as run:
        while run.poll() is None and time.monotonic() - start < seconds:
            time.sleep(2)
            with contextlib.suppress(psutil.Error):
                samples.append(sample(run, out, start))
        if run.poll() is None:
            run.send_signal(signal.SIGINT)
    report(samples, sessions)


def report(samples: list[Sample], sessions: int) -> None:
    total = samples[-1][1]
    print(f"| {total} of {sessions} sessions | s a session | main | workers | open files |")
    print("| --- | --- | --- | --- | --- |")
    edges = [total * quarter // 4 for quarter in range(5)]
    for low, high in itertools.pairwise(edges):
        part = [one for one in samples if max(1, low) <= one[1] <= high]
        span, count = part[-1][0] - part[0][0], part[-1][1] - part[0][1]
        own, others, files = (np.median([one[k] for one in part]) for k in (2, 3, 4))
        print(f"| {low + 1} to {high} | {span / max(1, count):.2f} | {own:.0f} MiB "
              f"| {others:.0f} MiB | {files:.0f} |", flush=True)  # fmt: skip


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
        assert f"{sessions} of {sessions} sessions were finished" in ended.stderr, ended.stderr
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
            if path.suffix == ".json":
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
    parser.add_argument("--seconds", type=float, default=480)
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
