"""Raw heads through `brain` and `deepbrain`: found, as large as the reference, and steady?

    python benchmarks/whole_heads.py SAMPLES.tsv OUT [--variants all|mild|none] [--limit N]
                                     [--orientations N] [--model TASK=BUNDLE] [--threads N]

SAMPLES.tsv holds raw heads with reference labels in the codes of `deepbrain` (above 0 is brain).
For each head, as it is and in the variants of `head_variants.py`: Dice of the brain mask, whether
every deep structure lies inside the crop that `brain` chose, and the volumes. Goes on where an
earlier call stopped; `OUT/rows.tsv` has a row for each head, variant and structure. Then prints
the tables of docs/accuracy.md and draws `OUT/volumes.png` and `OUT/changes.png`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from head_variants import ALL, MILD, ORIENTATIONS, Head, orientations, variant

from deepmrseg_bids.cli.common import model_paths
from deepmrseg_bids.errors import DeepMRSegError
from deepmrseg_bids.imaging.grid import centred_grid, covered
from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.metrics.overlap import confusion, f1
from deepmrseg_bids.metrics.reliability import concordance
from deepmrseg_bids.system import prepare_process
from deepmrseg_bids.tasks import deepbrain
from deepmrseg_bids.tasks.brain import find_brain
from deepmrseg_bids.train.samples import Sample, load_samples

COLUMNS = ("sample_id", "variant", "mask_dice", "inside", "room_mm", "name", "volume_mm3",
           "reference_mm3")  # fmt: skip


def judge(head: Head, pool: PredictorPool, *, deep: bool) -> Iterator[dict[str, Any]]:
    """A row for each structure of one head; one row without a structure if not ``deep``."""
    bundle = pool("deepbrain").bundle
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    row |= {"mask_dice": 0.0, "inside": 0.0}
    try:
        brain = find_brain(head.volume, pool("brain"))
        seen = covered(head.volume.grid, head.grid)
        mask = brain.mask_on(head.grid)
        row["mask_dice"] = round(f1(confusion(mask & seen, head.brain & seen)), 5)
        if brain.centre is None:
            raise DeepMRSegError("no deep structures")
    except DeepMRSegError:
        yield row
        return
    preparation = bundle.preparation
    crop = centred_grid(brain.centre, preparation.shape, preparation.spacing)
    points = head.grid.to_world(np.argwhere(np.isin(head.labels, bundle.labels.indices)))
    voxels = crop.to_voxel(points)
    room = np.minimum(voxels, np.array(crop.shape) - 1 - voxels).min(axis=1)
    row |= {"inside": round(float((room >= 0).mean()), 5), "room_mm": round(float(room.min()), 2)}
    if not deep:
        yield row
        return
    try:
        measures = deepbrain.segment(head.volume, brain, pool("deepbrain")).measures
    except DeepMRSegError:
        yield row
        return
    for measure in measures:
        size = float((head.labels == measure.index).sum()) * head.grid.voxel_volume
        yield row | {"name": measure.name, "volume_mm3": round(measure.volume_mm3, 2),
                     "reference_mm3": round(size, 2)}  # fmt: skip


def collect(samples: Sequence[Sample], names: Sequence[str], out: Path, pool: PredictorPool,
            turned: int) -> pd.DataFrame:  # fmt: skip
    """All rows, those of an earlier call among them."""
    table = out / "rows.tsv"
    done = set()
    if table.is_file():
        before = pd.read_csv(table, sep="\t")
        done = set(zip(before["sample_id"], before["variant"], strict=True))
    else:
        table.write_text("\t".join(COLUMNS) + "\n")
    for place, sample in enumerate(samples):
        todo = [n for n in names if (sample.sample_id, n) not in done]
        spin = place < turned and (sample.sample_id, ORIENTATIONS) not in done
        if not todo and not spin:
            continue
        labels = read_labels(sample.dseg)
        head = Head(read_volume(sample.images["T1w"]), labels.data.astype(np.uint16), labels.grid)
        rows: list[dict[str, Any]] = []
        for name in todo:
            for row in judge(variant(head, name), pool, deep=name in MILD):
                rows.append(row | {"sample_id": sample.sample_id, "variant": name})
        if spin:
            for other in orientations(head):
                for row in judge(other, pool, deep=False):
                    rows.append(row | {"sample_id": sample.sample_id, "variant": ORIENTATIONS})
        with table.open("a", newline="") as stream:
            csv.DictWriter(stream, COLUMNS, delimiter="\t", lineterminator="\n").writerows(rows)
        print(f"{sample.sample_id}: {len(rows)} rows", flush=True)
    return pd.read_csv(table, sep="\t")


def variant_table(rows: pd.DataFrame) -> None:
    """Found and steady: a line a variant."""
    volumes = rows.dropna(subset=["volume_mm3"])
    base = volumes[volumes["variant"] == "as it is"].set_index(["sample_id", "name"])["volume_mm3"]
    print("| variant | heads | mask Dice, mean | lowest | all deep structures in the crop | "
          "least room, mm | volumes move by, median | 90 % of them by at most |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in (*ALL, ORIENTATIONS):
        mine = rows[rows["variant"] == name]
        if mine.empty:
            continue
        heads = mine.drop_duplicates(["sample_id", "mask_dice", "inside"])
        per_head = mine.groupby("sample_id").first()
        whole = int((mine.groupby("sample_id")["inside"].min() == 1).sum())
        found = volumes[volumes["variant"] == name].set_index(["sample_id", "name"])["volume_mm3"]
        change = (100 * (found / base.reindex(found.index) - 1).abs()).dropna()
        move = ("", "") if change.empty or name == "as it is" else (
            f"{change.median():.1f} %", f"{change.quantile(0.9):.1f} %")  # fmt: skip
        print(f"| {name} | {len(per_head)} | {heads['mask_dice'].mean():.3f} | "
              f"{heads['mask_dice'].min():.3f} | {whole} of {len(per_head)} | "
              f"{mine['room_mm'].min():.1f} | {move[0]} | {move[1]} |")  # fmt: skip


def agreement_table(rows: pd.DataFrame, out: Path) -> None:
    """As large as the reference: a line a structure, and the scatter plots."""
    mine = rows[(rows["variant"] == "as it is")].dropna(subset=["volume_mm3"])
    print("\n| structure | n | CCC | correlation | found / reference, median |")
    print("| --- | --- | --- | --- | --- |")
    names = list(dict.fromkeys(mine["name"]))
    figure, axes = plt.subplots(2, (len(names) + 1) // 2, figsize=(18, 5.6), layout="constrained")
    for name, axis in zip(names, np.transpose(axes).ravel(), strict=False):
        one = mine[mine["name"] == name]
        if len(one) < 3:
            continue
        x, y = one["reference_mm3"].to_numpy() / 1000, one["volume_mm3"].to_numpy() / 1000
        ccc, r = concordance(y, x), float(np.corrcoef(x, y)[0, 1])
        ratio = float(np.median(y / np.maximum(x, 1e-9)))
        print(f"| {name} | {len(one)} | {ccc:.3f} | {r:.3f} | {ratio:.2f} |")
        span = [min(x.min(), y.min()) * 0.95, max(x.max(), y.max()) * 1.05]
        axis.plot(span, span, color="0.6", lw=1)
        axis.plot(x, y, ".", ms=5, color="#3b7dd8")
        axis.set(xlim=span, ylim=span, aspect="equal")
        axis.set_title(f"{name}\nCCC {ccc:.2f}, r {r:.2f}", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.supxlabel("reference, ml", fontsize=9)
    figure.supylabel("found, ml", fontsize=9)
    figure.savefig(out / "volumes.png", dpi=80)


def change_figure(rows: pd.DataFrame, out: Path) -> None:
    """How far volumes move: a box a variant."""
    volumes = rows.dropna(subset=["volume_mm3"]).set_index(["sample_id", "name"])
    base = volumes[volumes["variant"] == "as it is"]["volume_mm3"]
    boxes = {}
    for name in MILD:
        found = volumes[volumes["variant"] == name]["volume_mm3"]
        if name != "as it is" and len(found):
            boxes[name] = (100 * (found / base.reindex(found.index) - 1)).dropna()
    if not boxes:
        return
    figure, axis = plt.subplots(figsize=(8, 0.5 * len(boxes) + 1), layout="constrained")
    axis.boxplot(list(boxes.values()), orientation="horizontal", whis=(5, 95), showfliers=False)
    axis.set_yticks(range(1, len(boxes) + 1), list(boxes))
    axis.axvline(0, color="0.6", lw=1)
    axis.set_xlabel("change of the volume of a deep structure, %")
    figure.savefig(out / "changes.png", dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--variants", choices=("all", "mild", "none"), default="all")
    parser.add_argument("--limit", type=int, help="only the first N heads")
    parser.add_argument("--orientations", type=int, default=0, help="in all, for the first N heads")
    parser.add_argument("--model", action="append", default=[], metavar="TASK=BUNDLE")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    prepare_process()
    set_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    names = {"all": list(ALL), "mild": list(MILD), "none": ["as it is"]}[args.variants]
    samples = load_samples(args.samples)[: args.limit]
    pool = PredictorPool(model_paths(args.model))
    rows = collect(samples, names, args.out, pool, args.orientations)
    variant_table(rows)
    agreement_table(rows, args.out)
    change_figure(rows, args.out)


if __name__ == "__main__":
    main()
