"""The brain mask drawn at 2 mm and its outline at 1 mm, against reference labels.

    python benchmarks/brain_outline.py SAMPLES.tsv ... [--write] [--threads N]

Any label above 0 is brain in the references. Scans that are brain-extracted are taken as they are:
the 2 mm network finds the mask in what is left of them, and its own mask is not used. Prints a line
for each scan, then means: Dice, and volume as a share of the reference's. ``--write`` puts the 90 %
interval of the outline's volume, from the scans of the first table, into the shipped model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.metrics.overlap import StructureAgreement, confusion, f1
from deepmrseg_bids.tasks import brain
from deepmrseg_bids.tasks.outline import find_outline
from deepmrseg_bids.train.evaluation import Evaluated, volume_intervals
from deepmrseg_bids.train.samples import Sample, load_samples

LINE = "{}: 2 mm {:.4f} ({:.3f}), 1 mm {:.4f} ({:.3f})"


def judge(sample: Sample, pool: PredictorPool) -> tuple[float, float, float, float]:
    """Dice and share of the volume of the mask at 2 mm, and of the outline."""
    volume, labels = read_volume(sample.images["T1w"]), read_labels(sample.dseg)
    reference = labels.data > 0
    found = brain.find_brain(volume, pool("brain"), given=False)
    outline = find_outline(
        volume, found.probability, found.grid, found.mask_on, pool("outline")
    )  # fmt: skip
    values = []
    for part in (found, outline or found):
        mask = brain.carried(part.probability, part.grid, labels.grid)
        values += [f1(confusion(mask, reference)), float(mask.sum()) / float(reference.sum())]
    return values[0], values[1], values[2], values[3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("samples", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    pool = PredictorPool()
    for number, table in enumerate(options.samples):
        rows = []
        for sample in load_samples(table):
            rows.append(judge(sample, pool))
            print(LINE.format(sample.sample_id, *rows[-1]), flush=True)
        print(LINE.format(f"{table.name}: mean of {len(rows)}", *np.mean(rows, axis=0)))
        if options.write and number == 0:
            write(pool("outline").bundle.path, [share for *_, share in rows])


def write(bundle: Path, shares: Sequence[float]) -> None:
    """State the interval in the facts of a bundle."""
    rows = [
        Evaluated(str(k), "Brain", StructureAgreement(1, *[np.nan] * 4, share, 1.0, "both"), None)
        for k, share in enumerate(shares)
    ]
    tree = json.loads((bundle / "bundle.json").read_text())
    tree["facts"] |= {
        "volume_interval": volume_intervals(rows),
        "volume_interval_samples": len(rows),
    }
    (bundle / "bundle.json").write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
