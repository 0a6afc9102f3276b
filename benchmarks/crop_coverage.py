"""Does the crop that `brain` chooses hold every deep structure of heads it never saw?

    python benchmarks/crop_coverage.py SAMPLES.tsv [--model BUNDLE]

Prints, for each raw head of the table, the share of its deep-structure voxels inside the crop,
and the smallest distance between a structure and the crop's edge.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from deepmrseg_bids.bundle import ModelBundle
from deepmrseg_bids.geometry import centred_grid
from deepmrseg_bids.image import read_labels, read_volume
from deepmrseg_bids.inference import Predictor
from deepmrseg_bids.runtime import prepare_process
from deepmrseg_bids.tasks.brain import find_brain
from deepmrseg_bids.train.samples import load_samples


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("samples", type=Path)
    parser.add_argument("--model", type=Path)
    args = parser.parse_args()
    prepare_process()
    bundle = ModelBundle.open(args.model) if args.model else ModelBundle.shipped("brain")
    predictor = Predictor(bundle)
    deep = ModelBundle.shipped("deepbrain")
    shares = []
    for sample in load_samples(args.samples):
        volume, labels = read_volume(sample.t1w or ""), read_labels(sample.dseg)
        brain = find_brain(volume, predictor)
        if brain.centre is None:
            print(f"{sample.sample_id}: not found")
            shares.append(0.0)
            continue
        grid = centred_grid(brain.centre, deep.preparation.shape, deep.preparation.spacing)
        points = labels.grid.to_world(np.argwhere(np.isin(labels.data, deep.labels.indices)))
        voxels = grid.to_voxel(points)
        room = np.minimum(voxels, np.array(grid.shape) - 1 - voxels).min(axis=1)
        shares.append(float((room >= 0).mean()))
        print(f"{sample.sample_id}: {shares[-1]:.4f} inside, {room.min():.1f} mm to the edge")
    whole = sum(share == 1 for share in shares)
    print(f"all deep structures inside the crop in {whole} of {len(shares)} heads")


if __name__ == "__main__":
    main()
