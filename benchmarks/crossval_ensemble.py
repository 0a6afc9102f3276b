"""What averaging the two networks of a cross-validation would give, and volumes by posteriors.

    python benchmarks/crossval_ensemble.py SAMPLES.tsv CROSSVAL_DIR [FOLD ...]

For each fold of the first repeat (default: all), both networks look at the samples that neither
was trained on: Dice and CCC of each alone, of the mean of their posteriors, and CCC of volumes
that are sums of posteriors in place of counts of voxels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from deepmrseg_bids.imaging.nifti import LabelMap, read_volume
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.predictor import Predictor
from deepmrseg_bids.metrics.overlap import StructureAgreement, labelmap_agreement, summarise
from deepmrseg_bids.tasks.registry import task_of_model
from deepmrseg_bids.tasks.results import Posteriors, label_map
from deepmrseg_bids.train.config import load_config
from deepmrseg_bids.train.evaluation import read_rows, reference_labels
from deepmrseg_bids.train.samples import load_samples

NETWORKS = ("deepmrseg", "unet")


def main() -> None:
    samples = {sample.sample_id: sample for sample in load_samples(sys.argv[1])}
    out = Path(sys.argv[2])
    folds = sys.argv[3:] or sorted(p.name[5:] for p in (out / "repeat-0").glob("fold-*"))
    found: dict[str, list[StructureAgreement]] = {}
    for fold in folds:
        folder = out / "repeat-0" / f"fold-{fold}"
        config = load_config(folder / NETWORKS[0] / "bundle" / "train.toml")
        predictors = [Predictor(ModelBundle.open(folder / kind / "bundle")) for kind in NETWORKS]
        table = predictors[0].bundle.labels
        task = task_of_model(config.task, predictors[0].bundle.path)
        rows = read_rows(folder / NETWORKS[0] / "per_sample.tsv")
        for name in dict.fromkeys(row.sample_id for row in rows):
            images = {"T1w": read_volume(samples[name].images["T1w"])}
            reference = reference_labels(samples[name], task, config, table)
            parts = [
                task.segment_prepared(images, lambda _, p=p: p).posteriors[0] for p in predictors
            ]
            mean = sum(part.data for part in parts) / len(parts)
            parts.append(Posteriors(mean.astype(np.float32), parts[0].grid, parts[0].indices))
            for kind, part in zip((*NETWORKS, "mean of both"), parts, strict=True):
                labels: LabelMap = label_map(part, reference.grid)
                agreements = labelmap_agreement(
                    labels.data, reference.data, table.indices, zooms=reference.grid.spacing
                )
                soft = part.data.sum(axis=(1, 2, 3)) * part.grid.voxel_volume
                for agreement in agreements:
                    found.setdefault(kind, []).append(agreement)
                    expected = soft[part.indices.index(agreement.index)]
                    by_posterior = {**as_dict(agreement), "volume_mm3": float(expected)}
                    found.setdefault(f"{kind}, volumes by posteriors", []).append(
                        StructureAgreement(**by_posterior)
                    )
    for kind, agreements in found.items():
        for label in table:
            own = summarise([a for a in agreements if a.index == label.index])
            print(f"{kind:35s} {label.name:30s} n={own.n:3d} Dice {own.f1_mean:.4f} "
                  f"CCC {own.ccc:.3f}")  # fmt: skip


def as_dict(agreement: StructureAgreement) -> dict[str, float]:
    """The fields of an agreement."""
    return {name: getattr(agreement, name) for name in StructureAgreement.__dataclass_fields__}


if __name__ == "__main__":
    main()
