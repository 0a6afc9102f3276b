"""How far volumes move when a good head gets a brightness field, blur, noise or a tilt.

    python benchmarks/image_faults.py HEAD... [--model TASK=PATH]...

For each fault: the change of the volumes of `deepbrain` and of the parts of `hippocampus` (mean of
the absolute changes over structures and heads, and the largest change), and in how many heads a
warning or an error was raised that the unchanged head does not have.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.imaging.air import find_air, with_air_at_zero
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import Volume, read_volume
from deepmrseg_bids.inference.predictor import PredictorPool
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.spec import T1W

TASKS = ("deepbrain", "hippocampus")
_FWHM = 2.355  # of a Gaussian, in standard deviations


@dataclass(frozen=True)
class Found:
    """Volumes in mm3 by structure, and the codes of warnings and errors; by task."""

    volumes: dict[str, dict[str, float]]
    doubts: dict[str, set[str]]


def field(head: Volume, axis: int) -> Volume:
    """Brightness from x0.5 to x2 along an axis of the world."""
    along = np.zeros(head.data.shape)
    for k, edge in enumerate(head.data.shape):
        steps = (np.arange(edge) - (edge - 1) / 2) * head.grid.affine[axis, k]
        along += np.expand_dims(steps, [other for other in range(3) if other != k])
    return replace(head, data=(head.data * 2 ** (along / np.abs(along).max())).astype(np.float32))


def blur(head: Volume, fwhm_mm: float) -> Volume:
    sigma = [fwhm_mm / _FWHM / edge for edge in head.grid.spacing]
    return replace(head, data=ndimage.gaussian_filter(head.data, sigma).astype(np.float32))


def noise(head: Volume, share: float) -> Volume:
    """Rician noise, its deviation a share of the 95th percentile of the scan."""
    level = share * np.percentile(head.data, 95)
    real, imaginary = np.random.default_rng(0).standard_normal((2, *head.data.shape)) * level
    noisy = np.hypot(head.data + real, imaginary).astype(np.float32)
    return replace(head, data=with_air_at_zero(noisy, find_air(noisy)))


def tilt(head: Volume, degrees: float, axis: int) -> Volume:
    """The same voxels under a header that is turned about the middle of the image."""
    angle = np.radians(degrees)
    turn = np.eye(4)
    i, j = [(1, 2), (0, 2), (0, 1)][axis]
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
    there, back = np.eye(4), np.eye(4)
    there[:3, 3] = head.grid.corners().mean(axis=0)
    back[:3, 3] = -there[:3, 3]
    return replace(head, grid=Grid(head.grid.shape, there @ turn @ back @ head.grid.affine))


FAULTS: dict[str, Callable[[Volume], Volume]] = {
    "brightness x0.5 to x2, left to right": lambda head: field(head, 0),
    "brightness x0.5 to x2, back to front": lambda head: field(head, 1),
    "brightness x0.5 to x2, bottom to top": lambda head: field(head, 2),
    "blur, 3 mm FWHM": lambda head: blur(head, 3),
    "blur, 5 mm FWHM": lambda head: blur(head, 5),
    "noise, 10 %": lambda head: noise(head, 0.1),
    "noise, 20 %": lambda head: noise(head, 0.2),
    "header tilted by 20 degrees (nodding)": lambda head: tilt(head, 20, 0),
    "header tilted by 30 degrees (nodding)": lambda head: tilt(head, 30, 0),
    "header tilted by 20 degrees (turned)": lambda head: tilt(head, 20, 2),
}


def segmented(head: Volume, pool: PredictorPool) -> Found:
    found = Found({}, {})
    for task, result in run({T1W: head}, TASKS, pool):
        if isinstance(result, DeepMRSegError):
            found.volumes[task], found.doubts[task] = {}, {"failed"}
            continue
        found.volumes[task] = {row.name: row.volume_mm3 for row in result.measures}
        found.doubts[task] = {f.code for f in result.findings if f.severity != "info"}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("heads", nargs="+", type=Path)
    parser.add_argument("--faults", nargs="+", choices=sorted(FAULTS), help="only these")
    parser.add_argument("--model", action="append", default=[], metavar="TASK=PATH")
    given = parser.parse_args()
    pool = PredictorPool({k: Path(v) for k, v in (one.split("=", 1) for one in given.model)})
    heads = [read_volume(path) for path in given.heads]
    plain = [segmented(head, pool) for head in heads]
    print("| fault | " + " | ".join(f"{task}: mean, largest | flagged" for task in TASKS) + " |")
    print("| --- |" + " --- |" * 2 * len(TASKS))
    for fault in given.faults or FAULTS:
        change = FAULTS[fault]
        changed = [segmented(change(head), pool) for head in heads]
        cells = []
        for task in TASKS:
            moves = [
                100 * (after.volumes[task].get(name, 0.0) / volume - 1)
                for before, after in zip(plain, changed, strict=True)
                for name, volume in before.volumes[task].items()
            ]
            flagged = sum(
                bool(after.doubts[task] - before.doubts[task])
                for before, after in zip(plain, changed, strict=True)
            )
            mean, largest = np.mean(np.abs(moves)), max(moves, key=abs)
            cells += [f"{mean:.1f} %, {largest:+.0f} %", f"{flagged} of {len(heads)}"]
        print(f"| {fault} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
