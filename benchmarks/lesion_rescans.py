"""How much the border of a lesion moves from scan to scan, where nothing has changed.

    python benchmarks/lesion_rescans.py SAMPLES.tsv ... [--model BUNDLE]

The FLAIR of each sample is scanned again as far as a computer can: turned by 2 to 4 degrees,
shifted by half a voxel along each axis, with noise of 2 % of the brain's brightness. Lesions of
both are matched as those of two visits are. Printed are, for each group of lesions, the volumes
before and after; then the error of the border that explains 90 % of the changes (see ``interval``
of ``deepmrseg_bids.tasks.lesion_change``), by range of volume, and what is called new or gone.
Real scans differ more: the patient moves, the scanner is another one.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepmrseg_bids.imaging.grid import Grid, resample
from deepmrseg_bids.imaging.nifti import Volume, read_volume
from deepmrseg_bids.inference.predictor import PredictorPool
from deepmrseg_bids.tasks.lesion_change import Change, changes_between, interval
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.tasks.wml import LesionSegmentation
from deepmrseg_bids.train.samples import load_samples

RANGES = ((0, 30), (30, 100), (100, 300), (300, 1000), (1000, 1e9))  # mm3


def turned(grid: Grid, rng: np.random.Generator) -> Grid:
    """The same box, turned a little about its middle and shifted by half a voxel."""
    x, y, z = np.radians(rng.uniform(2, 4, 3) * rng.choice([-1, 1], 3))
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    middle = grid.corners().mean(axis=0)
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_y @ about_z @ grid.affine[:3, :3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2 + 0.5)
    return Grid(grid.shape, affine)


def again(flair: Volume, rng: np.random.Generator) -> Volume:
    """The scan once more."""
    grid = turned(flair.grid, rng)
    data = resample(flair.data, flair.grid, grid)
    noise = 0.02 * float(np.median(data[data > data.mean()]))
    noisy: NDArray[np.float32] = data + (data > 0) * rng.normal(0, noise, data.shape)
    return Volume(np.maximum(noisy, 0).astype(np.float32), grid)


def lesions_of(images: dict[str, Volume], pool: PredictorPool) -> LesionSegmentation:
    ((_, found),) = run(images, [find_task("wml")], pool)
    assert isinstance(found, LesionSegmentation), found
    return found


def border_mm(changes: list[Change]) -> float:
    """The error of the border with which 90 % of the changes lie in their interval around 0."""
    ratios = []
    for one in changes:
        low, high = interval([one.before_mm3], [one.after_mm3], border_mm=1.0)
        ratios.append(abs(one.change_mm3) / ((high - low) / 2))
    return float(np.quantile(ratios, 0.9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, help="instead of the shipped one")
    args = parser.parse_args()
    pool = PredictorPool({"wml": args.model} if args.model else {})
    rng = np.random.default_rng(1)
    every: list[Change] = []
    for sample in (sample for table in args.samples for sample in load_samples(table)):
        images = {mode: read_volume(path, force_header=True)
                  for mode, path in find_task("wml").images(sample.images).items()}  # fmt: skip
        before = lesions_of(images, pool).on_flair
        images["FLAIR"] = again(images["FLAIR"], rng)
        found = changes_between(before, lesions_of(images, pool).on_flair, np.eye(4))
        for one in found:
            print(f"{sample.sample_id}\t{one.before_mm3:.1f}\t{one.after_mm3:.1f}", flush=True)
        every += found
    for low, high in RANGES:
        part = [one for one in every if low <= max(one.before_mm3, one.after_mm3) < high]
        if part:
            kinds = Counter(one.status for one in part)
            print(f"{low:g} to {high:g} mm3: {len(part)} groups, border {border_mm(part):.2f} mm, "
                  f"{dict(kinds)}")  # fmt: skip
    print(f"all: {len(every)} groups, border {border_mm(every):.2f} mm")


if __name__ == "__main__":
    main()
