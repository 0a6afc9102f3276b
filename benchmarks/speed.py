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
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np

from deepmrseg_bids.system import give_back_memory, peak_memory_mib, prepare_process

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


@dataclass(frozen=True)
class Times:
    """What a head takes, medians of several runs.

    Attributes:
        whole, reading, networks, around, writing: seconds; ``around``: resampling and labels.
        rate, ceiling: GFLOP/s of the networks, and of a matrix product of the same type.
        peak: memory of the process in MiB.
        kind: in what the networks compute.
    """

    whole: float
    reading: float
    networks: float
    around: float
    writing: float
    rate: float
    ceiling: float
    peak: float
    kind: str


def measure(
    *, threads: int = 2, precision: str = "auto", runs: int = 3, tasks: Sequence[str] = TASKS
) -> Times:
    """Segment the head several times, and write the label maps."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

    from deepmrseg_bids.imaging.nifti import read_volume, write_labels
    from deepmrseg_bids.inference.predictor import PredictorPool, resolve_precision, set_threads
    from deepmrseg_bids.tasks.pipeline import run
    from deepmrseg_bids.tasks.results import Segmentation

    set_threads(threads)
    pool = PredictorPool(precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sub-01_T1w.nii.gz"
        nib.save(head(), path)
        rows = []
        for turn in range(runs + 1):
            pool_start, start = pool.seconds, time.perf_counter()
            volume = read_volume(path)
            read = time.perf_counter()
            results = list(run({"T1w": volume}, tasks, pool))
            computed = time.perf_counter()
            for task, result in results:
                assert isinstance(result, Segmentation), result
                write_labels(Path(folder) / f"{task}.nii.gz", result.labels)
            end = time.perf_counter()
            if turn:  # the first loads the weights
                inside = pool.seconds - pool_start
                around = computed - read - inside
                rows.append((end - start, read - start, inside, around, end - computed))
            del volume, results, result  # as a worker does between two sessions
            give_back_memory()
        peak = peak_memory_mib()

        def flops(x: Sequence[int], w: Sequence[int], *_: object, out_shape: Sequence[int]) -> int:
            return int(conv_flop_count(list(x), list(w), list(out_shape)))

        own = {torch.ops.aten.mkldnn_convolution: flops}  # float32, see predictor.use_onednn
        counter = FlopCounterMode(display=False, custom_mapping=own)
        with counter:
            list(run({"T1w": read_volume(path)}, tasks, pool))
    whole, reading, networks, around, writing = map(float, np.median(np.array(rows), axis=0))
    kind = resolve_precision(precision, torch.device("cpu"))
    rate = counter.get_total_flops() / networks / 1e9
    ceiling = matrix_rate(kind)
    return Times(whole, reading, networks, around, writing, rate, ceiling, peak, str(kind))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    args = parser.parse_args()
    prepare_process()
    found = measure(
        threads=args.threads, precision=args.precision, runs=args.runs, tasks=args.tasks
    )
    share = 100 * found.networks / found.whole
    print(f"{os.cpu_count()} cores, {args.threads} threads, {found.kind}, "
          f"median of {args.runs} runs\n")  # fmt: skip
    print("| what | figure |\n| --- | --- |")
    print(f"| whole | {found.whole:.2f} s |")
    print(f"| reading the image | {found.reading:.2f} s |")
    print(f"| networks | {found.networks:.2f} s ({share:.0f} % of the whole) |")
    print(f"| resampling and labels | {found.around:.2f} s |")
    print(f"| writing the label maps | {found.writing:.2f} s |")
    print(f"| rate of the networks | {found.rate:.0f} GFLOP/s |")
    print(f"| matrix product 2048, same type | {found.ceiling:.0f} GFLOP/s |")
    print(f"| rate against matrix product | {100 * found.rate / found.ceiling:.0f} % |")
    print(f"| peak memory | {found.peak:.0f} MiB |")


if __name__ == "__main__":
    main()
