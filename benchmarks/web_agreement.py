"""Agreement of the page in a browser with the app: ``web_agreement.py SCAN ... [--task T ...]``.

Each scan is segmented by web/dist (``make web``) in headless Chromium and by the package on the
CPU with float32. Printed for each task: the smallest Dice of a structure, and the largest
difference of a volume. ``--stored-as`` also stores the scans in other orientations first.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from web_page import WEB, opened, segment

from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.results import Segmentation
from deepmrseg_bids.tasks.wml import LesionSegmentation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--flair", type=Path, help="for wml; on the grid of the only scan")
    parser.add_argument("--stored-as", nargs="*", default=[], help="such as LPS, one per scan")
    parser.add_argument("--dist", type=Path, default=WEB / "dist")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    tasks = args.task or ["brain", "deepbrain", "hippocampus"]
    set_threads(args.threads)
    pool = PredictorPool(precision="float32")
    print("scan\ttask\tstructures\tleast Dice\tstructure\tlargest difference of a volume (%)")
    with opened(args.dist) as page, tempfile.TemporaryDirectory() as folder:
        for number, scan in enumerate(args.scans):
            if number < len(args.stored_as):
                scan = reoriented(scan, args.stored_as[number], Path(folder))
            found = segment(page, scan, tasks, Path(folder), args.flair)
            images = {"T1w": read_volume(scan)}
            if args.flair:
                images["FLAIR"] = read_volume(args.flair)
            for task, result in run(images, tasks, pool):
                if isinstance(result, Segmentation) and task in found.files:
                    print(
                        scan.name, task, *compared(result, found.files[task]), sep="\t", flush=True
                    )
                else:
                    print(scan.name, task, result, found.files.get(task), sep="\t", flush=True)


def reoriented(scan: Path, codes: str, folder: Path) -> Path:
    """The same scan with its voxels stored in another order."""
    image = nib.load(scan)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    path = folder / f"{scan.name.split('.')[0]}_{codes}.nii.gz"
    nib.save(image.as_reoriented(turn), path)
    return path


def compared(result: Segmentation, path: Path) -> tuple[int, str, str, str]:
    """Structures, the least Dice and its structure, and the largest difference of a volume."""
    ours = result.on_flair if isinstance(result, LesionSegmentation) else result.labels
    theirs = read_labels(path)
    assert theirs.grid == ours.grid or np.allclose(theirs.grid.affine, ours.grid.affine, atol=1e-4)
    scores, differences = {}, []
    for label in result.table:
        one, other = ours.data == label.index, theirs.data == label.index
        if one.any() or other.any():
            scores[label.name] = 2 * float((one & other).sum()) / float(one.sum() + other.sum())
            differences.append(abs(int(other.sum()) - int(one.sum())) / max(int(one.sum()), 1))
    least = min(scores, key=lambda name: scores[name], default="none")
    worst = 100 * max(differences, default=0.0)
    return len(scores), f"{scores.get(least, 1.0):.4f}", least, f"{worst:.2f}"


if __name__ == "__main__":
    main()
