"""How far do the volumes of `hippocampus` move when `deepbrain` is some millimetres off?

    python benchmarks/hippocampus_shift.py HEAD... [--only ERROR] [--model TASK=BUNDLE]
                                           [--threads N] [--tsv OUT.tsv]

For each raw T1w head `brain` and `deepbrain` run once. Then `hippocampus` runs on what
`deepbrain` found, moved by 2, 4 and 6 mm along each axis, 6 mm along and 6 mm a side of each
diagonal (10 mm in all), and with both hippocampi shrunk or grown by a voxel. Prints, as a
Markdown table, the largest change of each volume in per cent of the volume without the error,
how many of the label maps were equal to the last voxel, and how often the network was asked.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from deepmrseg_bids.cli.common import model_paths
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import read_volume
from deepmrseg_bids.inference.predictor import Predictor, PredictorPool, set_threads
from deepmrseg_bids.system import prepare_process
from deepmrseg_bids.tasks import hippocampus
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.results import Posteriors, Segmentation

COLUMNS = ("L anterior", "L posterior", "R anterior", "R posterior", "L whole", "R whole")


class Remembering:
    """A predictor that is asked about the same images once, and counts its calls."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.bundle = predictor, predictor.bundle
        self.kept: dict[str, Any] = {}
        self.calls = 0

    def many(self, images: Sequence[Any]) -> list[Any]:
        """As :meth:`Predictor.many`."""
        self.calls += 1
        keys = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        if any(key not in self.kept for key in keys):
            self.kept.update(zip(keys, self.predictor.many(images), strict=True))
        return [self.kept[key] for key in keys]


def moved(deep: Segmentation, step: Sequence[float]) -> Segmentation:
    """The same posteriors, somewhere else in the world."""
    found = deep.posteriors[0]
    affine = found.grid.affine.copy()
    affine[:3, 3] += step
    grid = Grid(found.grid.shape, affine)
    return replace(deep, posteriors=(replace(found, grid=grid),))


def resized(deep: Segmentation, voxels: int) -> Segmentation:
    """Both hippocampi shrunk or grown."""
    found = deep.posteriors[0]
    data, likely = found.data.copy(), found.labels()
    for number, label in enumerate(deep.table, start=1):
        if not label.name.endswith("-Hippocampus"):
            continue
        old = likely == number
        new = ndimage.binary_dilation(old) if voxels > 0 else ndimage.binary_erosion(old)
        data[:, old | new] = 0
        data[0, old & ~new] = 1
        data[number, new] = 1
    return replace(deep, posteriors=(Posteriors(data, found.grid, found.indices),))


def errors(deep: Segmentation) -> Iterator[tuple[str, Segmentation]]:
    """What `deepbrain` could have found, by the kind of its error."""
    for size, axis, sign in product((2.0, 4.0, 6.0), range(3), (1, -1)):
        yield f"{size:.0f} mm along an axis", moved(deep, sign * size * np.eye(3)[axis])
    for corner in product((1, -1), repeat=3):
        yield "6 mm along a diagonal", moved(deep, 6 * np.array(corner) / np.sqrt(3))
    for corner in product((1, -1), repeat=3):
        yield "10 mm along a diagonal", moved(deep, 6 * np.array(corner))
    for voxels in (-1, 1):
        yield f"{voxels:+d} voxel", resized(deep, voxels)


def volumes(result: Segmentation) -> Any:
    """(6,) the four parts and both wholes, mm3."""
    parts = np.array([row.volume_mm3 for row in result.measures])
    return np.concatenate([parts, [parts[:2].sum(), parts[2:].sum()]])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("heads", nargs="+", type=Path)
    parser.add_argument("--model", action="append", default=[], metavar="TASK=BUNDLE")
    parser.add_argument("--only", default="", help="errors whose name holds this")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tsv", type=Path, help="a row for each error of each head")
    args = parser.parse_args()
    prepare_process()
    set_threads(args.threads)
    pool = PredictorPool(model_paths(args.model))
    rows = []
    print(f"| head | error of deepbrain | {' | '.join(COLUMNS)} | equal | calls |")
    print("| --- | --- |" + " --- |" * (len(COLUMNS) + 2))
    for path in args.heads:
        volume = read_volume(path)
        ((_, deep),) = run({"T1w": volume}, ["deepbrain"], pool)
        if not isinstance(deep, Segmentation):
            print(f"| {path.name} | {deep} |")
            continue
        predictor: Any = Remembering(pool("hippocampus"))
        truth = hippocampus.segment(volume, deep, predictor)
        base = volumes(truth)
        worst: dict[str, list[Any]] = {"none (mm3)": [(base, True, predictor.calls)]}
        for kind, wrong in errors(deep):
            if args.only not in kind:
                continue
            predictor.calls = 0
            result = hippocampus.segment(volume, wrong, predictor)
            change = 100 * np.abs(volumes(result) / np.maximum(base, 1e-9) - 1)
            equal = np.array_equal(result.labels.data, truth.labels.data)
            worst.setdefault(kind, []).append((change, equal, predictor.calls))
            rows.append([path.name, kind, *change.round(2), equal, predictor.calls,
                         "; ".join(f.message for f in result.findings)])  # fmt: skip
        for kind, found in worst.items():
            most = np.max([change for change, _, _ in found], axis=0)
            figures = " | ".join(f"{figure:.0f}" if "mm3" in kind else f"{figure:.1f}"
                                 for figure in most)  # fmt: skip
            equal = f"{sum(same for _, same, _ in found)} of {len(found)}"
            calls = np.mean([calls for _, _, calls in found])
            print(f"| {path.name} | {kind} | {figures} | {equal} | {calls:.1f} |", flush=True)
    if args.tsv:
        with args.tsv.open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t")
            writer.writerow(["head", "error", *COLUMNS, "equal", "calls", "warnings"])
            writer.writerows(rows)


if __name__ == "__main__":
    main()
