"""The brain mask with more or less air around the head, and with a tilted header: the same?

    python benchmarks/brain_surroundings.py HEAD.nii.gz ...

Prints a table: by how many percent the volume of the brain mask changes in each head.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import Volume, read_volume
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.system import prepare_process
from deepmrseg_bids.tasks.brain import find_brain


def padded(volume: Volume, voxels: int, *, air: bool = False) -> Volume:
    """More voxels around a scan: of 0, or of values as dark as its own air."""
    data = np.pad(volume.data, voxels)
    if air:
        dark = volume.data[volume.data < 0.05 * np.percentile(volume.data, 99)]
        data = np.random.default_rng(0).choice(dark, data.shape)
        data[(slice(voxels, -voxels),) * 3] = volume.data
    grid = volume.grid.crop([-voxels] * 3, [edge + voxels for edge in volume.grid.shape])
    return replace(volume, data=data.astype(np.float32), grid=grid)


def without_air(volume: Volume) -> Volume:
    """The box around what is brighter than air."""
    there = np.argwhere(volume.data > 0.1 * np.percentile(volume.data, 99))
    start, stop = there.min(axis=0), there.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    grid = volume.grid.crop(start.tolist(), stop.tolist())
    return replace(volume, data=np.ascontiguousarray(volume.data[box]), grid=grid)


def tilted(volume: Volume, degrees: float, axis: int) -> Volume:
    """The same voxels under a header that is turned about a world axis."""
    angle = np.radians(degrees)
    turn = np.eye(4)
    a, b = (k for k in range(3) if k != axis)
    turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return replace(volume, grid=Grid(volume.grid.shape, turn @ volume.grid.affine))


VARIANTS: dict[str, Callable[[Volume], Volume]] = {
    "10 voxels of 0 around": lambda v: padded(v, 10),
    "20 voxels of 0 around": lambda v: padded(v, 20),
    "30 voxels of 0 around": lambda v: padded(v, 30),
    "20 voxels of air around": lambda v: padded(v, 20, air=True),
    "air cropped": without_air,
    "header tilted by 20 degrees to the side": lambda v: tilted(v, 20, 1),
    "header tilted by 20 degrees to the back, 20 voxels of 0": lambda v: tilted(
        padded(v, 20), 20, 0
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("heads", type=Path, nargs="+")
    args = parser.parse_args()
    prepare_process()
    set_threads(1)
    predictor = PredictorPool()("brain")

    def millilitres(volume: Volume) -> float:
        mask = find_brain(volume, predictor).mask_on(volume.grid)
        return float(mask.sum()) * volume.grid.voxel_volume / 1000

    changes: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for path in args.heads:
        volume = read_volume(path)
        usual = millilitres(volume)
        for name, change in VARIANTS.items():
            changes[name].append(100 * (millilitres(change(volume)) / usual - 1))
        print(f"{path.name}: {usual:.0f} ml", flush=True)
    print(
        "| change | heads | largest change of the volume, % | mean, % |\n| --- | --- | --- | --- |"
    )
    for name, percent in changes.items():
        largest = max(percent, key=abs)
        print(f"| {name} | {len(percent)} | {largest:+.2f} | {np.mean(percent):+.2f} |")


if __name__ == "__main__":
    main()
