"""How far do two scans of one person differ, found by networks that saw neither?

    python benchmarks/crossval_retest.py CROSSVALIDATION
    python benchmarks/crossval_retest.py EVALUATION --samples SAMPLES.tsv

Reads `per_sample.tsv` and `folds.tsv` of `deepmrseg crossval`, or what `deepmrseg evaluate` wrote
of SAMPLES.tsv. For all pairs of scans of a person: the difference of the two volumes in per cent of
their mean, as found and in the reference labels.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--network", default="deepmrseg")
    parser.add_argument("--samples", type=Path)
    args = parser.parse_args()
    people = pd.read_csv(args.samples or args.folder / "folds.tsv", sep="\t", dtype=str)
    person = dict(zip(people["sample_id"], people["participant_id"], strict=True))
    place = "" if args.samples else f"repeat-0/fold-*/{args.network}/"
    tables = args.folder.glob(f"{place}per_sample.tsv")
    rows = pd.concat([pd.read_csv(table, sep="\t") for table in tables])
    rows["person"] = rows["sample_id"].map(person)
    changes = []
    for (who, name), mine in rows.groupby(["person", "name"], sort=False):
        for (_, a), (_, b) in combinations(mine.iterrows(), 2):
            change = {"person": who, "name": name}
            for column in ("volume_mm3", "reference_volume_mm3"):
                both = a[column] + b[column]
                change[column] = 200 * abs(a[column] - b[column]) / both if both else np.nan
            changes.append(change)
    found = pd.DataFrame(changes)
    middle = found.groupby("name", sort=False)[["volume_mm3", "reference_volume_mm3"]].median()
    print("| structure | pairs | found: differ by, median | reference labels: by |")
    print("| --- | --- | --- | --- |")
    pairs = found["person"].nunique()
    for name, row in middle.iterrows():
        print(f"| {name} | {pairs} | {row['volume_mm3']:.1f} % | "
              f"{row['reference_volume_mm3']:.1f} % |")  # fmt: skip
    print(f"| median over structures | {pairs} | {middle['volume_mm3'].median():.1f} % | "
          f"{middle['reference_volume_mm3'].median():.1f} % |")  # fmt: skip


if __name__ == "__main__":
    main()
