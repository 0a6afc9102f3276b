"""Agreement of the page in a browser with the app: ``web_agreement.py SCAN ... [--task T ...]``.

Each scan is segmented by web/dist (``make web``) in headless Chromium and by the package on the
CPU with float32. Printed for each task, as rows of Markdown: the smallest Dice of a structure, and
the largest difference of a volume. ``--stored-as`` also stores the scans in other orientations
first. Lesions are compared twice: with the app as it is, and with the T1w left where it lies, as
the page does. ``--shared FOLDER`` makes the table of docs/web.md, from the shared development data
and the MNI152 average of nilearn.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nibabel as nib
import numpy as np
from playwright.sync_api import Page
from web_page import WEB, Run, opened, segment

from deepmrseg_bids.imaging.nifti import read_labels, read_volume
from deepmrseg_bids.imaging.registration import Quality, RigidFit
from deepmrseg_bids.inference.predictor import PredictorPool, set_threads
from deepmrseg_bids.tasks.pipeline import run
from deepmrseg_bids.tasks.results import Measure, Segmentation
from deepmrseg_bids.tasks.wml import LesionSegmentation

MNI152 = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
USUAL = ("brain", "deepbrain", "hippocampus")
HEADING = (
    "| image | task | structures | smallest Dice | largest difference of a volume |\n"
    "| --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True)
class Case:
    """One scan, what is asked of it, and how its voxels are stored, such as LPS."""

    scan: Path
    tasks: tuple[str, ...] = USUAL
    flair: Path | None = None
    stored_as: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", nargs="*", type=Path)
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--flair", type=Path, help="for wml; on the grid of the only scan")
    parser.add_argument("--stored-as", nargs="*", default=[], help="such as LPS, one per scan")
    parser.add_argument("--shared", type=Path, help="the shared development data")
    parser.add_argument("--dist", type=Path, default=WEB / "dist")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    tasks = tuple(args.task) or USUAL
    orientations = [*args.stored_as, *[""] * len(args.scans)]
    cases = [
        Case(scan, tasks, args.flair, codes)
        for scan, codes in zip(args.scans, orientations, strict=False)
    ]
    if args.shared:
        cases += shared_cases(args.shared)
    set_threads(args.threads)
    pool = PredictorPool(precision="float32")
    print(HEADING, flush=True)
    with opened(args.dist, viewer=False) as page, tempfile.TemporaryDirectory() as folder:
        for case in cases:
            compare(case, page, pool, Path(folder))


def shared_cases(data: Path) -> list[Case]:
    """An average brain, a fine oblique head, three heads stored otherwise, a T1w with its FLAIR."""
    mni152 = Path(str(files("nilearn.datasets") / "data" / MNI152))
    heads = [("IXI034", "LPS"), ("IXI048", "ASR"), ("IXI049", "IRP")]
    pair = data / "wml" / "manual" / "sub-02" / "anat"
    return [
        Case(mni152, (*USUAL, "wholebrain")),
        Case(scan_in(data / "bids_highres" / "sub-01" / "anat", "T1w"), (*USUAL, "wholebrain")),
        *(
            Case(scan_in(data / "heads" / f"sub-{name}" / "anat", "T1w"), stored_as=codes)
            for name, codes in heads
        ),
        Case(scan_in(pair, "T1w"), ("wml",), scan_in(pair, "FLAIR")),
    ]


def scan_in(folder: Path, modality: str) -> Path:
    """The scan of a modality."""
    (scan,) = sorted(folder.glob(f"*_{modality}.nii.gz"))
    return scan


def compare(case: Case, page: Page, pool: PredictorPool, folder: Path) -> None:
    """Segment a scan twice and print how its results agree."""
    scan, name = case.scan, case.scan.name.split(".")[0]
    if case.stored_as:
        scan, name = reoriented(scan, case.stored_as, folder), f"{name}, stored as {case.stored_as}"
    found = segment(page, scan, case.tasks, folder, case.flair)
    images = {"T1w": read_volume(scan)}
    if case.flair:
        images["FLAIR"] = read_volume(case.flair)
    show(name, run(images, case.tasks, pool), found)
    if case.flair:
        with patch("deepmrseg_bids.tasks.coregistration.register_rigid", unmoved):
            show(f"{name}, T1w not registered", run(images, case.tasks, pool), found)


def unmoved(*_: Any, **__: Any) -> RigidFit:
    """In the place of the registration: the scans lie on each other already."""
    good = Quality(1.0, 1.0, edges=1.0)
    return RigidFit(np.eye(4), good, good)


def show(name: str, results: Any, found: Run) -> None:
    """Print the rows of one scan."""
    for task, result in results:
        if isinstance(result, Segmentation) and task in found.files:
            cells = compared(result, found.files[task])
            print(f"| {name} | {task} | {' | '.join(cells)} |", flush=True)
            if result.regions:
                cells = of_regions(result.regions, found.regions[task])
                print(f"| {name} | {task}, regions | {' | '.join(cells)} |", flush=True)
        else:
            print(f"| {name} | {task} | {result} | {found.files.get(task)} | |", flush=True)


def reoriented(scan: Path, codes: str, folder: Path) -> Path:
    """The same scan with its voxels stored in another order."""
    image = nib.load(scan)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    path = folder / f"{scan.name.split('.')[0]}_{codes}.nii.gz"
    nib.save(image.as_reoriented(turn), path)
    return path


def compared(result: Segmentation, path: Path) -> tuple[str, str, str]:
    """Structures, the least Dice and the largest difference of a volume, and of which."""
    ours = result.on_flair if isinstance(result, LesionSegmentation) else result.labels
    theirs = read_labels(path)
    assert theirs.grid == ours.grid or np.allclose(theirs.grid.affine, ours.grid.affine, atol=1e-4)
    scores, differences = {}, {}
    for label in result.table:
        one, other = ours.data == label.index, theirs.data == label.index
        if one.any() or other.any():
            scores[label.name] = 2 * float((one & other).sum()) / float(one.sum() + other.sum())
            change = abs(int(other.sum()) - int(one.sum()))
            differences[label.name] = 100 * change / max(int(one.sum()), 1)
    least = min(scores, key=lambda name: scores[name], default="none")
    return str(len(scores)), f"{scores.get(least, 1.0):.4f} ({least})", worst(differences)


def of_regions(ours: tuple[Measure, ...], theirs: dict[str, float]) -> tuple[str, str, str]:
    """The same of composite regions, which have no label map."""
    differences = {
        row.name: 100 * abs(theirs[row.name] - row.volume_mm3) / row.volume_mm3
        for row in ours
        if row.volume_mm3
    }
    return str(len(ours)), "", worst(differences)


def worst(differences: dict[str, float]) -> str:
    """The largest difference, in per cent, and of what."""
    most = max(differences, key=lambda name: differences[name], default="none")
    return f"{differences.get(most, 0.0):.2f} % ({most})"


if __name__ == "__main__":
    main()
