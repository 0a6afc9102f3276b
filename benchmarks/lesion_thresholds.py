"""From which posterior on a voxel is a lesion, by the lesion load; chosen and judged by source.

    python benchmarks/lesion_thresholds.py OUT SAMPLES.tsv ... [--raw SAMPLES.tsv ...]
        [--model RUN/bundle] [--rule FEW MANY HIGH] [--write] [--threads N]

The scans of SAMPLES.tsv are registered and brain-extracted; those after ``--raw`` are raw heads.
A source is what stands before the first ``_`` of a sample's id. OUT/curves.tsv gets volume and Dice
of each sample at each threshold (an earlier one is used again). A rule has four numbers: up to
``few`` ml found at 0.5 the threshold is ``high``, from ``many`` ml on it is 0.5, and between them
it changes with the logarithm of the volume. The rule with the least mean error of the logarithm of
the volume (plus 1 ml) is printed, and for each source what the rule gives that the other sources
choose. ``--write`` puts the rule, or that of ``--rule``, into the model, before it is evaluated and
shipped.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from deepmrseg_bids.imaging.grid import resample
from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.calibration import Calibration
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.metrics.overlap import confusion, f1
from deepmrseg_bids.tasks import wml
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.spec import PAIRED, T1W
from deepmrseg_bids.train.samples import Sample, load_samples

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.93, 0.95)
FEW, MANY = (2, 4, 6, 8, 10, 12), (12, 16, 20, 25, 30)
Rule = tuple[float, float, float]  # few, many, high


def curve(sample: Sample, pool: PredictorPool, *, raw: bool) -> Iterator[dict[str, Any]]:
    """Volume and Dice of a sample at each threshold, on the grid of its reference."""
    images = {mode: read_volume(path) for mode, path in sample.images.items()}
    if raw:
        ((_, found),) = run(images, [wml.TASK], pool)
        assert isinstance(found, wml.LesionSegmentation), found
        found = found.in_flair()
    else:
        found = wml.segment_prepared(images.get(T1W), images.get(PAIRED), pool("wml"))
    reference = read_labels(sample.dseg)
    (posteriors,) = found.posteriors
    likely = resample(1 - posteriors.data[0], posteriors.grid, reference.grid)
    voxel = reference.grid.voxel_volume / 1000
    for threshold in THRESHOLDS:
        chosen = likely > threshold
        yield {
            "sample_id": sample.sample_id,
            "threshold": threshold,
            "volume_ml": float(chosen.sum()) * voxel,
            "reference_ml": float((reference.data > 0).sum()) * voxel,
            "dice": f1(confusion(chosen, reference.data > 0)),
        }


def applied(curves: pd.DataFrame, rule: Rule) -> pd.DataFrame:
    """One row a sample: what the rule gives, between two thresholds by linear interpolation."""
    few, many, high = rule
    known = Calibration(thresholds=((few * 1000, high), (many * 1000, 0.5)))
    rows = []
    for name, lines in curves.groupby("sample_id", sort=False):
        start = lines.iloc[0]
        threshold = known.threshold(start.volume_ml * 1000)
        volume, dice = (
            np.interp(threshold, lines.threshold, lines[key]) for key in ("volume_ml", "dice")
        )
        rows.append((str(name).split("_")[0], name, start.reference_ml, start.volume_ml, threshold,
                     volume, start.dice, dice))  # fmt: skip
    columns = ["source", "sample_id", "reference_ml", "at_half_ml", "threshold", "volume_ml",
               "dice_at_half", "dice"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def error(curves: pd.DataFrame, rule: Rule) -> float:
    """Mean over the sources of the mean error of the logarithm of the volume."""
    found = applied(curves, rule)
    off = np.log((found.volume_ml + 1) / (found.reference_ml + 1)).abs()
    return float(off.groupby(found.source).mean().mean())


def chosen(curves: pd.DataFrame) -> Rule:
    rules = itertools.product(FEW, MANY, THRESHOLDS)
    return min((rule for rule in rules if rule[0] < rule[1]), key=lambda r: error(curves, r))


def curves_of(options: argparse.Namespace) -> pd.DataFrame:
    path: Path = options.out / "curves.tsv"
    if path.is_file():
        return pd.read_csv(path, sep="\t")
    set_threads(options.threads)
    pool = PredictorPool({"wml": options.model} if options.model else {})
    if "volume_thresholds" in pool("wml").bundle.facts:
        raise SystemExit("the model has thresholds already: give the bundle of its training run")
    rows: list[dict[str, Any]] = []
    tables: Sequence[tuple[Path, bool]] = [
        *((table, False) for table in options.samples), *((table, True) for table in options.raw)
    ]  # fmt: skip
    for table, raw in tables:
        for sample in load_samples(table):
            rows += curve(sample, pool, raw=raw)
            print(rows[-1]["sample_id"], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).round(5).to_csv(path, sep="\t", index=False)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("samples", type=Path, nargs="*")
    parser.add_argument("--raw", type=Path, nargs="*", default=[])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rule", type=float, nargs=3, metavar=("FEW", "MANY", "HIGH"))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    curves = curves_of(options)
    best: Rule = tuple(options.rule) if options.rule else chosen(curves)
    print(f"few {best[0]} ml, many {best[1]} ml, high {best[2]}")
    print(applied(curves, best).round(3).to_string(index=False))
    source = curves.sample_id.str.split("_").str[0]
    for name in source.unique():
        rule = chosen(curves[source != name])
        found = applied(curves[source == name], rule)
        off, before = (
            (found[key] - found.reference_ml).abs() for key in ("volume_ml", "at_half_ml")
        )
        print(f"{name}: by the others {rule}: error {off.median():.2f} ml in the median "
              f"({before.median():.2f} at 0.5), Dice {found.dice.mean():.3f} "
              f"({found.dice_at_half.mean():.3f} at 0.5)")  # fmt: skip
    if options.write:
        write(options.model, best)


def write(bundle: Path, rule: Rule) -> None:
    """State a rule in the facts of a bundle."""
    few, many, high = rule
    tree = json.loads((bundle / "bundle.json").read_text())
    (name,) = (label.name for label in ModelBundle.open(bundle).labels)
    tree["facts"]["volume_thresholds"] = {name: [[few * 1000, high], [many * 1000, 0.5]]}
    (bundle / "bundle.json").write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
