"""Networks of different shape, each trained for about four and a half minutes on two cores.

    python benchmarks/hippocampus_variants.py SAMPLES.tsv OUT [NAME ...]

Prints Dice on the fold kept back, on crops centred on the labels. It is how the network and the
crop of the preset ``hippocampus`` were chosen.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from pathlib import Path

from deepmrseg_bids.system import prepare_process
from deepmrseg_bids.train.config import load_config
from deepmrseg_bids.train.loop import TrainingRun, train
from deepmrseg_bids.train.samples import load_samples

VARIANTS = {
    "full-resolution": ({"width": 16, "depth": 3, "patch": 1}, (32, 48, 32), 500, 2, 0.003),
    "half-resolution-w32": ({"width": 32, "depth": 2, "patch": 2}, (40, 56, 40), 740, 2, 0.003),
    "half-resolution-w48": ({"width": 48, "depth": 2, "patch": 2}, (40, 56, 40), 480, 2, 0.003),
    "half-resolution-batch4": ({"width": 32, "depth": 2, "patch": 2}, (40, 56, 40), 450, 4, 0.004),
}
"""Name: network, crop, steps, batch, learning rate."""


def main() -> None:
    prepare_process()
    samples, out = load_samples(sys.argv[1]), Path(sys.argv[2])
    base = load_config("hippocampus", folds=4, fold=0)
    for name in sys.argv[3:] or VARIANTS:
        network, crop, steps, batch, rate = VARIANTS[name]
        config = replace(
            base,
            network=replace(base.network, **network),
            preparation=replace(base.preparation, shape=(40, 56, 40)),
            loop=replace(
                base.loop, crop=crop, steps=steps, batch=batch, learning_rate=rate,
                validate_every=steps,
            ),
            augment=replace(base.augment, shift_mm=2),
        )  # fmt: skip
        train(TrainingRun(samples, config, out / name, resume=True, cache=out / "cache"))
        with (out / name / "validation.csv").open(encoding="utf-8") as stream:
            scores = list(csv.DictReader(stream))[-1]
        with (out / name / "log.csv").open(encoding="utf-8") as stream:
            minutes = sum(float(row["seconds"]) for row in csv.DictReader(stream)) / 60
        scores = {key: value for key, value in scores.items() if key not in ("step", "mean")}
        print(f"{name:25s} {steps:5d} steps {minutes:5.1f} min  {scores}", flush=True)


if __name__ == "__main__":
    main()
