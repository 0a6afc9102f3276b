"""Brain masks and intracranial volumes of raw heads beside those of deepbet.

    python -m venv DEEPBET && DEEPBET/bin/pip install torch==2.13.0 deepbet
    python benchmarks/beside_deepbet.py DEEPBET/bin/python SAMPLES.tsv ... [--every N] [--threads N]

deepbet (Fisch et al. 2024, MIT licence, networks in its package) runs in its own process, models
loaded once, as here. SAMPLES.tsv holds raw heads with labels (`training_tables.py` writes
``brain.tsv``); a label above 0 is brain, holes are filled. Without labels (column ``dseg`` equal to
``T1w``) volumes alone are compared. Seconds are those of a mask, without reading and writing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from deepmrseg_bids.imaging.morphology import filled
from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.metrics.overlap import confusion, f1
from deepmrseg_bids.tasks.brain import brain_of
from deepmrseg_bids.tasks.pipeline import SessionContext
from deepmrseg_bids.train.samples import Sample, load_samples

_THEIRS = """
import json, sys, time
import nibabel as nib, torch
from deepbet.bet import BrainExtraction
scans, out, threads = json.load(open(sys.argv[1])), sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)
bet, seconds = BrainExtraction(no_gpu=True), {}
for name, scan in scans.items():
    image = nib.load(scan)
    image.get_fdata()
    start = time.perf_counter()
    _, mask, _ = bet.run(image)
    seconds[name] = time.perf_counter() - start
    mask.to_filename(f"{out}/{name}.nii.gz")
json.dump(seconds, open(f"{out}/seconds.json", "w"))
"""


def theirs(python: str, heads: list[Sample], out: Path, threads: int) -> dict[str, float]:
    """Write deepbet's masks to ``out``; seconds by sample."""
    listed = out / "scans.json"
    listed.write_text(json.dumps({head.sample_id: str(head.images["T1w"]) for head in heads}))
    command = [python, "-W", "ignore", "-c", _THEIRS, str(listed), str(out), str(threads)]
    subprocess.run(command, check=True)
    seconds: dict[str, float] = json.loads((out / "seconds.json").read_text())
    return seconds


def compared(head: Sample, pool: PredictorPool, out: Path) -> dict[str, float]:
    """Volumes (ml), and Dice with the labels, of one head."""
    volume = read_volume(head.images["T1w"])
    start = time.perf_counter()
    brain = brain_of(SessionContext({"T1w": volume}, pool))
    mask = brain.outlined_on(volume.grid)
    row = {"seconds": time.perf_counter() - start}
    other = read_labels(out / f"{head.sample_id}.nii.gz").data > 0
    row["mask"], row["deepbet"] = (float(m.sum()) * volume.grid.voxel_volume / 1000
                                   for m in (mask, other))  # fmt: skip
    row["icv"] = float("nan") if brain.icv_mm3 is None else brain.icv_mm3 / 1000
    row["both"] = f1(confusion(mask, other))
    if head.dseg != head.images["T1w"]:
        true = filled(read_labels(head.dseg).data > 0)
        row["dice"], row["dice_deepbet"] = (f1(confusion(m, true)) for m in (mask, other))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("python", help="of the environment with deepbet")
    parser.add_argument("samples", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    heads = [head for table in options.samples for head in load_samples(table)
             if "T1w" in head.images][:: options.every]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        seconds, pool = theirs(options.python, heads, out, options.threads), PredictorPool()
        rows = []
        for head in heads:
            row = compared(head, pool, out)
            row["seconds_deepbet"] = seconds[head.sample_id]
            rows.append(row)
            print(head.sample_id, *(f"{key} {value:.3f}" for key, value in row.items()))
    keys = ("mask", "deepbet", "icv", "both", "dice", "dice_deepbet", "seconds", "seconds_deepbet")
    known = {key: np.array([row.get(key, np.nan) for row in rows]) for key in keys}
    for key, values in known.items():
        if not np.isnan(values).all():
            print(f"{key}: median {np.nanmedian(values):.3f}, mean {np.nanmean(values):.3f} "
                  f"({np.nanmin(values):.3f} to {np.nanmax(values):.3f})")  # fmt: skip
    inside = ~np.isnan(known["icv"])
    if inside.sum() > 2:
        r = np.corrcoef(known["icv"][inside], known["deepbet"][inside])[0, 1]
        larger = (known["icv"] > known["deepbet"])[inside].sum()
        print(f"intracranial volume and deepbet's: r {r:.3f}, larger in {larger} of {inside.sum()}")


if __name__ == "__main__":
    main()
