"""The intracranial volume of raw heads beside the volume of the brain mask.

    python benchmarks/intracranial.py SAMPLES.tsv [--every N]

SAMPLES.tsv holds raw heads (`training_tables.py` writes ``brain.tsv``); of the rows with a T1w
every N-th is taken. Prints a line for each head, then ratio and correlation of both volumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from deepmrseg_bids.imaging.nifti import read_volume
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.tasks.brain import brain_of
from deepmrseg_bids.tasks.pipeline import SessionContext
from deepmrseg_bids.train.samples import load_samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    pool = PredictorPool()
    heads = [sample for sample in load_samples(options.samples) if "T1w" in sample.images]
    found = []
    for sample in heads[:: options.every]:
        brain = brain_of(SessionContext({"T1w": read_volume(sample.images["T1w"])}, pool))
        if brain.icv_mm3 is None:
            print(f"{sample.sample_id}: skull-stripped")
            continue
        found.append((brain.volume_mm3 / 1000, brain.icv_mm3 / 1000))
        print(f"{sample.sample_id}: brain {found[-1][0]:.0f} ml, inside {found[-1][1]:.0f} ml")
    brains, insides = np.array(found).T
    ratio = insides / brains
    print(f"{len(found)} heads: ratio {ratio.mean():.3f} ({ratio.min():.3f} to {ratio.max():.3f}), "
          f"correlation {np.corrcoef(brains, insides)[0, 1]:.3f}")  # fmt: skip


if __name__ == "__main__":
    main()
