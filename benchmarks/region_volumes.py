"""Composite regions of `wholebrain` beside those of manual labels: volumes, and their intervals.

    python benchmarks/region_volumes.py SAMPLES.tsv OUT.json [--model NAME=BUNDLE ...]

SAMPLES.tsv holds brain-extracted scans with labels of the codes of `wholebrain` that the network
was not trained on. OUT.json receives the 90 % intervals, as factors of a volume, by region, and
how many scans they come from; the table of docs/accuracy.md is printed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from deepmrseg_bids.cli.common import model_paths
from deepmrseg_bids.imaging.nifti import LabelMap, read_labels, read_volume
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.metrics.overlap import StructureAgreement, presence
from deepmrseg_bids.metrics.reliability import concordance
from deepmrseg_bids.tasks import wholebrain
from deepmrseg_bids.tasks.regions import read_regions, region_volumes
from deepmrseg_bids.train.evaluation import Evaluated, volume_intervals
from deepmrseg_bids.train.samples import load_samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", nargs="+", default=[])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    pool = PredictorPool(model_paths(options.model))
    regions = read_regions(wholebrain.REGIONS)
    rows = []
    for sample in load_samples(options.samples):
        found = wholebrain.segment_prepared(read_volume(sample.images["T1w"]), pool)
        labels = read_labels(sample.dseg)
        known = np.isin(labels.data, wholebrain.TABLE.indices)
        reference = LabelMap(np.where(known, labels.data, 0), labels.grid)
        true = region_volumes(reference, regions)
        for row in found.regions:
            agreement = StructureAgreement(
                row.index, np.nan, np.nan, np.nan, np.nan, row.volume_mm3, true[row.name],
                presence(row.volume_mm3 > 0, true[row.name] > 0),
            )  # fmt: skip
            rows.append(Evaluated(sample.sample_id, row.name, agreement, row.confidence))
        print(sample.sample_id, flush=True)
    people = len({row.sample_id for row in rows})
    facts = {"volume_interval": volume_intervals(rows), "samples": people}
    options.out.write_text(json.dumps(facts, indent=2) + "\n")
    print("| region | volume, ml | reference, ml | CCC | mean difference |")
    print("| --- | --- | --- | --- | --- |")
    for region in regions:
        own = [row.agreement for row in rows if row.name == region.name]
        a = np.array([one.volume_mm3 for one in own]) / 1000
        b = np.array([one.reference_volume_mm3 for one in own]) / 1000
        percent = 100 * np.mean((a - b) / b)
        ccc = concordance(a, b)
        print(f"| {region.name} | {a.mean():.1f} | {b.mean():.1f} | {ccc:.3f} | {percent:+.1f} % |")


if __name__ == "__main__":
    main()
