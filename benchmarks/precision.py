"""Do float32 and bfloat16 give the same labels?

    python benchmarks/precision.py T1W... [--task deepbrain] [--threads N]

Segments each raw head in both precisions and prints, for each structure, the Dice between the two
label maps: the mean over heads and the lowest. The aim is 0.995 everywhere. Where the processor has
no bfloat16 arithmetic, PyTorch computes the same numbers slowly.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from deepmrseg_bids.imaging.nifti import read_volume
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.metrics.overlap import confusion, f1
from deepmrseg_bids.system import prepare_process
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.results import Segmentation


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("heads", nargs="+", type=Path)
    parser.add_argument("--task", action="append", choices=("brain", "deepbrain", "hippocampus"))
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    prepare_process()
    set_threads(args.threads)
    tasks = args.task or ["brain", "deepbrain", "hippocampus"]
    exact = PredictorPool(precision="float32")
    fast = PredictorPool(precision="bfloat16")
    scores: dict[str, list[float]] = {}
    for path in args.heads:
        images = {"T1w": read_volume(path)}
        for (task, a), (_, b) in zip(
            run(images, tasks, exact), run(images, tasks, fast), strict=True
        ):
            if not isinstance(a, Segmentation) or not isinstance(b, Segmentation):
                raise SystemExit(f"{path}: {task}: {a} / {b}")
            for label in a.table:
                dice = f1(confusion(a.labels.data == label.index, b.labels.data == label.index))
                scores.setdefault(f"{task}: {label.name}", []).append(dice)
        print(f"{path.name} done", flush=True)
    print("| structure | heads | Dice, mean | lowest |\n| --- | --- | --- | --- |")
    for name, found in scores.items():
        print(f"| {name} | {len(found)} | {np.mean(found):.4f} | {np.min(found):.4f} |")


if __name__ == "__main__":
    main()
