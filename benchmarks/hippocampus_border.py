"""The border between anterior and posterior hippocampus, and what one voxel changes.

    python benchmarks/hippocampus_border.py SAMPLES.tsv [--model BUNDLE] [--threads N]

Of the reference: in how many crops the border is a coronal plane to the voxel, and what share of
a part one voxel of it is. With ``--model`` (a bundle that was not trained on these samples) also
Dice and CCC with every voxel labelled on its own and with a coronal border, and by how much the
volume found changes when what the network sees moves by one voxel and by two.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.inference.bundle import ModelBundle
from deepmrseg_bids.inference.predictor import Predictor, set_threads
from deepmrseg_bids.metrics.overlap import StructureAgreement, labelmap_agreement, summarise
from deepmrseg_bids.system import prepare_process
from deepmrseg_bids.tasks import custom, hippocampus
from deepmrseg_bids.tasks.results import label_map
from deepmrseg_bids.train.samples import Sample, load_samples

PARTS = (1, 2)


def describe_reference(samples: list[Sample]) -> None:
    straight, shares = [], []
    for sample in samples:
        labels = read_labels(sample.dseg).data
        front, back = ((labels == part).any(axis=(0, 2)) for part in PARTS)
        straight.append(not (front & back).any())
        area = int((labels[:, np.flatnonzero(front)[0]] > 0).sum())
        shares.append([100 * area / int((labels == part).sum()) for part in PARTS])
    anterior, posterior = np.median(shares, axis=0)
    print(f"{len(samples)} crops; the border is a coronal plane in {np.mean(straight):.0%} of them")
    print(
        f"one voxel of it is {anterior:.1f} % of the anterior, {posterior:.1f} % of the posterior"
    )


def moved(image: Any, by: int, window: tuple[int, int, int]) -> Any:
    """A window of the crop that begins some voxels from its edge, along the first axis."""
    room = (np.array(image.shape) - window) // 2
    room[0] = by
    return image[tuple(slice(r, r + n) for r, n in zip(room, window, strict=True))]


def judge(samples: list[Sample], predictor: Predictor) -> None:
    found: dict[str, list[StructureAgreement]] = {"each voxel": [], "coronal border": []}
    changes = []
    asked: list[Any] = []
    network = predictor.many
    predictor.many = lambda images: asked.extend(images) or network(images)  # type: ignore[method-assign, func-returns-value]
    for sample in samples:
        volume, reference = read_volume(sample.images["T1w"]), read_labels(sample.dseg)
        plain = custom.segment(volume, predictor).posteriors[0]
        bordered = hippocampus.segment_prepared(volume, predictor).posteriors[0]
        for name, posteriors in zip(found, (plain, bordered), strict=True):
            labels = label_map(posteriors, reference.grid).data
            zooms = reference.grid.spacing
            found[name] += labelmap_agreement(labels, reference.data, PARTS, zooms=zooms)
        window = predictor.bundle.preparation.window
        views = [moved(asked[-1], by, window) for by in (3, 4, 5)]
        base, one, two = (1 - answer[0].clip(0, 1) for answer in network(views))
        changes.append([abs(v.sum() / base.sum() - 1) * 100 for v in (one, two)])
    print("\n| labels | Dice anterior, posterior | CCC |\n| --- | --- | --- |")
    for name, rows in found.items():
        parts = [summarise([row for row in rows if row.index == part]) for part in PARTS]
        dice, ccc = (
            ", ".join(f"{getattr(p, key):.3f}" for p in parts) for key in ("f1_mean", "ccc")
        )
        print(f"| {name} | {dice} | {ccc} |")
    one, two = np.mean(changes, axis=0)
    print(f"\nvolume in one window, moved by 1 voxel: {one:.1f} %, by 2 voxels: {two:.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("samples", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    samples = load_samples(args.samples)
    describe_reference(samples)
    if args.model:
        prepare_process()
        set_threads(args.threads)
        judge(samples, Predictor(ModelBundle.open(args.model)))


if __name__ == "__main__":
    main()
