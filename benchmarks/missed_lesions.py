"""The lesions that a model of lesions misses in scans with few of them.

    python benchmarks/missed_lesions.py SAMPLES.tsv ... [--below ML] [--model BUNDLE ...]

Of each sample, which must not be of the training set of the model (of its table, where there are
several): the volumes of reference and prediction, and
that of the reference lesions (26-connected) of which no voxel was found. The last line is the upper
end of a 90 % interval of that volume in another scan, from the samples with a reference volume
below ``--below``: Student's t prediction interval of its logarithm. A bundle states it as
``volume_if_none``: what a scan may have in which no lesion was found.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from scipy import ndimage, stats

from deepmrseg_bids.imaging.grid import Array, resample
from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.inference.predictor import PredictorPool
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.registry import find_task
from deepmrseg_bids.tasks.wml import LesionSegmentation
from deepmrseg_bids.train.samples import Sample, load_samples


def missed(sample: Sample, pool: PredictorPool) -> tuple[float, float, float]:
    """Volumes of the reference, of the prediction, and of missed lesions, in mm3."""
    task = find_task("wml")
    images = {mode: read_volume(path) for mode, path in task.images(sample.images).items()}
    ((_, found),) = run(images, [task], pool)
    assert isinstance(found, LesionSegmentation), found
    reference, labels = read_labels(sample.dseg), found.on_flair
    data: Array = labels.data
    if labels.grid != reference.grid:
        data = resample(data, labels.grid, reference.grid, order=0)
    lesions, count = ndimage.label(reference.data > 0, structure=np.ones((3, 3, 3)))
    voxels = np.bincount(lesions.ravel(), minlength=count + 1)
    hit = np.bincount(lesions[data > 0].ravel(), minlength=count + 1) > 0
    volume = reference.grid.voxel_volume
    return (
        float(voxels[1:].sum() * volume),
        float((data > 0).sum() * volume),
        float(voxels[1:][~hit[1:]].sum() * volume),
    )


def upper_end(volumes: list[float], *, level: float = 0.9) -> float:
    """The upper end of the prediction interval of volumes in mm3; a volume of 0 counts as 1."""
    logs, n = np.log(np.maximum(volumes, 1.0)), len(volumes)
    reach = stats.t.ppf(0.5 + level / 2, n - 1) * np.std(logs, ddof=1) * math.sqrt(1 + 1 / n)
    return float(np.exp(logs.mean() + reach))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", nargs="+", type=Path)
    parser.add_argument("--below", type=float, default=10.0, help="ml of the reference")
    parser.add_argument("--model", type=Path, nargs="+", default=[],
                        help="instead of the shipped one; several: one for each table")  # fmt: skip
    args = parser.parse_args()
    pools = [PredictorPool({"wml": model}) for model in args.model] or [PredictorPool()]
    few = []
    for place, table in enumerate(args.samples):
        for sample in load_samples(table):
            reference, predicted, lost = missed(sample, pools[place % len(pools)])
            print(f"{sample.sample_id}\t{reference:.1f}\t{predicted:.1f}\t{lost:.1f}", flush=True)
            if reference < 1000 * args.below:
                few.append(lost)
    print(f"upper end of the 90 % interval, from {len(few)} samples: {upper_end(few):.0f} mm3")


if __name__ == "__main__":
    main()
