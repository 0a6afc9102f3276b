"""Time and memory of `deepmrseg predict` on a raw 1 mm head of 256^3, weights loaded.

    python benchmarks/speed.py [--threads 2] [--precision auto] [--runs 3]

The head is the MNI152 average inside nilearn, padded to 256^3. Prints, as a Markdown table,
the time of each part, the share of the networks, their rate against a large matrix product
measured in the same run, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np

from deepmrseg_bids.system import peak_memory_mib, prepare_process

TASKS = ("brain", "deepbrain", "hippocampus")


def head() -> nib.Nifti1Image:
    """The MNI152 average in the middle of 256^3 voxels of 1 mm."""
    folder = files("nilearn.datasets") / "data"
    image = nib.load(str(folder / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"))
    data = np.asarray(image.dataobj)
    room = [(256 - n) // 2 for n in data.shape]
    out = np.zeros((256, 256, 256), data.dtype)
    out[tuple(slice(r, r + n) for r, n in zip(room, data.shape, strict=True))] = data
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ room
    return nib.Nifti1Image(out, affine)


def matrix_rate(dtype: object) -> float:
    """GFLOP/s of a product of two 2048 x 2048 matrices."""
    import torch

    a, b = (torch.randn(2048, 2048).to(dtype) for _ in range(2))
    a @ b
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 2:
        a @ b
        count += 1
    return 2 * 2048**3 * count / (time.perf_counter() - start) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    args = parser.parse_args()
    prepare_process()
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from deepmrseg_bids.imaging.nifti import read_volume, write_labels
    from deepmrseg_bids.inference.predictor import PredictorPool, resolve_precision, set_threads
    from deepmrseg_bids.tasks.pipeline import run
    from deepmrseg_bids.tasks.results import Segmentation

    set_threads(args.threads)
    pool = PredictorPool(precision=args.precision)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sub-01_T1w.nii.gz"
        nib.save(head(), path)
        rows = []
        for turn in range(args.runs + 1):
            pool_start, start = pool.seconds, time.perf_counter()
            volume = read_volume(path)
            read = time.perf_counter()
            results = list(run({"T1w": volume}, args.tasks, pool))
            computed = time.perf_counter()
            for task, result in results:
                assert isinstance(result, Segmentation), result
                write_labels(Path(folder) / f"{task}.nii.gz", result.labels)
            end = time.perf_counter()
            if turn:  # the first loads the weights
                inside = pool.seconds - pool_start
                around = computed - read - inside
                rows.append((end - start, read - start, inside, around, end - computed))
        peak = peak_memory_mib()
        counter = FlopCounterMode(display=False)
        with counter:
            list(run({"T1w": volume}, args.tasks, pool))
    total, reading, networks, around, writing = np.median(np.array(rows), axis=0)
    kind = resolve_precision(args.precision, torch.device("cpu"))
    rate, ceiling = counter.get_total_flops() / networks / 1e9, matrix_rate(kind)
    print(f"{os.cpu_count()} cores, {args.threads} threads, {kind}, median of {args.runs} runs\n")
    print("| what | figure |\n| --- | --- |")
    print(f"| whole | {total:.2f} s |")
    print(f"| reading the image | {reading:.2f} s |")
    print(f"| networks | {networks:.2f} s ({100 * networks / total:.0f} % of the whole) |")
    print(f"| resampling and labels | {around:.2f} s |")
    print(f"| writing the label maps | {writing:.2f} s |")
    print(f"| rate of the networks | {rate:.0f} GFLOP/s |")
    print(f"| matrix product 2048, same type | {ceiling:.0f} GFLOP/s |")
    print(f"| rate against matrix product | {100 * rate / ceiling:.0f} % |")
    print(f"| peak memory | {peak:.0f} MiB |")


if __name__ == "__main__":
    main()
