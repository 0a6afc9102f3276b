"""How long `wml` takes a session, weights loaded, and how much of it is registration.

python benchmarks/speed_wml.py T1W FLAIR [T1W FLAIR ...] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from deepmrseg_bids.imaging.nifti import read_volume
from deepmrseg_bids.imaging.registration import register_rigid
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.system import peak_memory_mib, prepare_process
from deepmrseg_bids.tasks import coregistration
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.results import Segmentation


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("scans", nargs="+", type=Path, metavar="SCAN")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if len(args.scans) % 2:
        parser.error("give pairs of T1W and FLAIR")
    prepare_process()
    set_threads(args.threads)
    pool = PredictorPool()
    pool("brain"), pool("wml")
    spent = 0.0

    def timed(*scans: Any, **options: Any) -> Any:
        nonlocal spent
        start = time.perf_counter()
        fit = register_rigid(*scans, **options)
        spent = time.perf_counter() - start
        return fit

    coregistration.register_rigid = timed
    print("| FLAIR | voxels | session | registration | peak memory |")
    print("| --- | --- | --- | --- | --- |")
    for place in range(0, len(args.scans), 2):
        t1w, flair = (read_volume(path) for path in args.scans[place : place + 2])
        start, spent = time.perf_counter(), 0.0
        result = dict(run({"T1w": t1w, "FLAIR": flair}, ["wml"], pool))["wml"]
        seconds = time.perf_counter() - start
        if not isinstance(result, Segmentation):
            raise SystemExit(f"{flair.source}: {result}")
        size = " x ".join(map(str, flair.grid.shape))
        print(f"| {args.scans[place + 1].name} | {size} | {seconds:.1f} s | {spent:.1f} s | "
              f"{peak_memory_mib():.0f} MiB |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
