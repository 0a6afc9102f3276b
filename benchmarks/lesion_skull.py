"""Lesion volumes of the same scans with and without the skull.

    python benchmarks/lesion_skull.py SAMPLES.tsv ... [--model BUNDLE] [--threads N]

SAMPLES.tsv holds raw pairs of T1w and FLAIR. Each scan is brain-extracted with the mask that the
model ``brain`` draws in it, as a user would do before; then the pair is segmented again. Prints a
line for each pair, and the median change of the volume.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from lesion_rescans import lesions_of

from deepmrseg_bids.imaging.nifti import Volume, read_volume
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.metrics.overlap import confusion, f1
from deepmrseg_bids.tasks.brain import find_brain
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.train.samples import load_samples


def stripped(volume: Volume, pool: PredictorPool) -> Volume:
    """The scan with nothing but its brain."""
    inside = find_brain(volume, pool("brain")).mask_on(volume.grid)
    return replace(volume, data=np.where(inside, volume.data, 0).astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("samples", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, help="instead of the shipped one")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    set_threads(args.threads)
    pool = PredictorPool({"wml": args.model} if args.model else {})
    changes = []
    for sample in (sample for table in args.samples for sample in load_samples(table)):
        images = {mode: read_volume(path, force_header=True)
                  for mode, path in find_task("wml").images(sample.images).items()}  # fmt: skip
        raw = lesions_of(images, pool).on_flair
        bare = lesions_of({mode: stripped(v, pool) for mode, v in images.items()}, pool).on_flair
        before, after = (
            float(m.data.astype(bool).sum()) * m.grid.voxel_volume for m in (raw, bare)
        )
        changes.append(abs(after - before) / max(before, 1.0))
        dice = f1(confusion(bare.data > 0, raw.data > 0))
        print(f"{sample.sample_id}: {before / 1000:.2f} ml with, {after / 1000:.2f} ml without the "
              f"skull: {changes[-1]:.1%}, Dice {dice:.3f}", flush=True)  # fmt: skip
    print(f"{len(changes)} pairs: median {np.median(changes):.1%}, worst {max(changes):.1%}")


if __name__ == "__main__":
    main()
