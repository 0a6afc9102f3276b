"""What `deepmrseg-bids --dry-run` predicts, and what then happens.

    python benchmarks/predictions.py [--large] [HEAD.nii.gz ...]

Each head (those given, with the FLAIR beside a file that is named as in BIDS, or the MNI152 average
inside nilearn at 1 mm, 2 mm and in slices of 3 mm; with `--large` also at 0.5 mm in 512^3 voxels)
becomes a data set of one session. Prints seconds of the session (`logs/sessions.tsv`), seconds of
the whole command, and the peak memory, predicted and found. Wanted: each within a factor of 1.5.
The machine must do nothing else meanwhile: a prediction is made from its speed at that moment.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from speed import head

from deepmrseg_bids.imaging.grid import Grid, resample

_SECONDS = {"s": 1, "min": 60, "h": 3600}


def made_up(folder: Path, *, large: bool) -> Iterator[Path]:
    """The average at several voxel sizes."""
    image = head()
    data, source = np.asarray(image.dataobj, np.float32), Grid(image.shape, image.affine)
    sizes = {"1mm": (1, 1, 1), "2mm": (2, 2, 2), "3mm-slices": (1, 1, 3)}
    if large:
        sizes["512"] = (0.5, 0.5, 0.5)
    for name, edges in sizes.items():
        step = np.diag([*edges, 1.0])
        shape = tuple(round(256 / edge) for edge in edges)
        target = Grid(shape, source.affine @ step)
        voxels = resample(data, source, target) / data.max() * 1000
        voxels += np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
        path = folder / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(np.clip(voxels, 0, 4000).astype(np.int16), target.affine), path)
        yield path


def dataset(root: Path, scan: Path) -> Path:
    (root / "sub-01" / "anat").mkdir(parents=True)
    text = json.dumps({"Name": "b", "BIDSVersion": "1.10.0", "DatasetType": "raw"})
    (root / "dataset_description.json").write_text(text)
    ending = ".nii.gz" if scan.name.endswith(".gz") else ".nii"
    (root / "sub-01" / "anat" / f"sub-01_T1w{ending}").write_bytes(scan.read_bytes())
    flair = scan.with_name(scan.name.replace("_T1w.", "_FLAIR."))
    if flair != scan and flair.exists():
        (root / "sub-01" / "anat" / f"sub-01_FLAIR{ending}").write_bytes(flair.read_bytes())
    return root


def command(*words: object) -> str:
    return subprocess.run(
        [sys.executable, "-m", "deepmrseg_bids.cli.deepmrseg_bids", *map(str, words)],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip


def predicted(raw: Path, out: Path) -> tuple[float, float, float]:
    """Seconds of the session and of the command, MiB."""
    header, row, total = command(raw, out, "participant", "--dry-run").splitlines()
    plan = dict(zip(header.split("\t"), row.split("\t"), strict=True))
    value, unit = re.search(r"about ([\d.]+) (s|min|h)", total).groups()
    return float(plan["seconds"]), float(value) * _SECONDS[unit], float(plan["memory_mib"])


def happened(raw: Path, out: Path) -> tuple[float, float, float]:
    start = time.perf_counter()
    command(raw, out, "participant")
    whole = time.perf_counter() - start
    with (out / "logs" / "sessions.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    seconds = sum(float(row["seconds"]) for row in rows)
    return seconds, whole, max(float(row["peak_mib"]) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("heads", nargs="*", type=Path)
    parser.add_argument("--large", action="store_true")
    args = parser.parse_args()
    print("| head | voxels | session | command | memory |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for number, scan in enumerate(args.heads or made_up(base, large=args.large)):
            raw = dataset(base / f"raw-{number}", scan)
            out = base / f"out-{number}"
            before, after = predicted(raw, out), happened(raw, out)
            units = ("s", "s", "MiB")
            cells = [
                f"{one:.0f} / {other:.0f} {unit} ({one / other:.2f})"
                for one, other, unit in zip(before, after, units, strict=True)
            ]
            shape = " x ".join(map(str, nib.load(scan).shape))
            print(f"| {scan.name} | {shape} | {' | '.join(cells)} |", flush=True)
    print("\nPredicted / found (ratio).")


if __name__ == "__main__":
    main()
