"""The files of ``wml``: on which grid, what they say, and when they are made again."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deepmrseg_bids.bids.provenance import Digests
from deepmrseg_bids.bids.tables import LESION_COLUMNS, read_morph
from deepmrseg_bids.errors import ImageReadError
from deepmrseg_bids.findings import Finding
from deepmrseg_bids.imaging.grid import Grid
from deepmrseg_bids.imaging.nifti import LabelMap, Volume, read_labels
from deepmrseg_bids.imaging.registration import Quality, RigidFit
from deepmrseg_bids.session import segment as module
from deepmrseg_bids.session.inventory import Inventory
from deepmrseg_bids.session.job import SessionJob
from deepmrseg_bids.session.resume import FinishedWork
from deepmrseg_bids.session.segment import segment_session
from deepmrseg_bids.tasks.coregistration import Pair
from deepmrseg_bids.tasks.lesions import Lesion
from deepmrseg_bids.tasks.results import Measure, Posteriors
from deepmrseg_bids.tasks.wml import LesionSegmentation
from tests.session.conftest import GRID, TABLE, Pool, bundle_of
from tests.support import images_of

STEM = "sub-01/ses-2/anat/sub-01_ses-2"
FLAIR_GRID = Grid((4, 5, 3), np.diag([1.0, 1.0, 2.0, 1.0]))
ALONE = {f"{STEM}_space-FLAIR_seg-wml_dseg", f"{STEM}_seg-wml_morph", f"{STEM}_seg-wml_lesions"}
BOTH = ALONE | {f"{STEM}_seg-wml_dseg", f"{STEM}_from-FLAIR_to-T1w_mode-image_xfm"}


def volume(grid: Grid) -> Volume:
    return Volume(np.arange(np.prod(grid.shape), dtype=np.float32).reshape(grid.shape), grid)


def result(*, aligned: bool, findings=()) -> LesionSegmentation:
    """A lesion of two voxels of the FLAIR; the T1w lies 1 mm to the right of it."""
    data = np.zeros(FLAIR_GRID.shape, np.uint8)
    data[1:3, 1, 1] = 1
    posterior = np.stack([1.0 - data, data]).astype(np.float32)
    on_flair = LabelMap(data, FLAIR_GRID)
    matrix = np.eye(4)
    matrix[0, 3] = 1.0
    fit = RigidFit(matrix, Quality(0.5, 0.15, edges=0.8), Quality(0.2, 0.05, edges=0.4))
    t1w = volume(GRID) if aligned else None
    pair = Pair(volume(FLAIR_GRID), t1w, None, matrix if aligned else None, fit)
    posteriors = Posteriors(posterior, FLAIR_GRID, (0, 1))
    labels = on_flair
    if aligned:
        posteriors = replace(posteriors, grid=pair.in_t1w(FLAIR_GRID))
        there = np.zeros(GRID.shape, np.uint8)
        there[2:4, 1, 2] = 1
        labels = LabelMap(there, GRID)
    lesions = (
        Lesion(1, 4.0, (1.5, 1.0, 2.0), "deep", 0.9),
        Lesion(2, 1.0, (0.0, 0.0, 0.0), None, 0.5),
    )
    return LesionSegmentation(
        task="wml",
        labels=labels,
        table=TABLE,
        measures=(Measure(1, "Brain", 4.0),),
        posteriors=(posteriors,),
        findings=findings,
        brain_mm3=16.0,
        on_flair=on_flair,
        lesions=lesions,
        sources={"ventricles": "fluid of the FLAIR"},
        pair=pair,
    )


@pytest.fixture
def make(tmp_path, write_scan, monkeypatch):
    """Run one session whose lesions are these: its outcome and its job."""
    folder = "raw/sub-01/ses-2/anat/sub-01_ses-2"
    t1w = write_scan(f"{folder}_T1w.nii.gz", volume(GRID).data.astype(np.uint8), GRID)
    flair = write_scan(
        f"{folder}_FLAIR.nii.gz", volume(FLAIR_GRID).data.astype(np.uint8), FLAIR_GRID
    )
    monkeypatch.setattr(module, "prepare_process", lambda: None)
    monkeypatch.setattr(module, "_pool", lambda *_: Pool())
    plain = SessionJob("01", "2", tmp_path / "raw", {}, ("wml",), precision="float32")

    def segment(found, *, t1w=t1w, flair=flair, **changes):
        seen = {}

        def run(images, tasks, pool, **_):
            names = tuple(task.name for task in tasks)
            seen.update(t1w=images.get("T1w"), flair=images.get("FLAIR"), tasks=names)
            yield from ((task, found) for task in names)

        monkeypatch.setattr(module, "run", run)
        job = replace(plain, images=images_of(t1w, flair), **changes)
        outcome = segment_session(job, tmp_path / "out", work=tmp_path / "w",
                                  record=tmp_path / "r" / "o.json")  # fmt: skip
        return outcome, job, seen

    return segment


def stems(root: Path) -> set[str]:
    out = root / "out"
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    data = {name for name in files if not name.endswith(".json")}
    assert {name.partition(".")[0] + ".json" for name in data} == files - data
    return {name.partition(".")[0] for name in data}


def sidecar(root: Path, stem: str) -> dict:
    return json.loads((root / "out" / f"{stem}.json").read_text(encoding="utf-8"))


BUNDLES = {task: bundle_of(task) for task in ("brain", "icv", "outline", "wml")}


def test_lesions_are_written_on_both_grids_with_table_and_transform(make, tmp_path):
    outcome, _, seen = make(result(aligned=True))
    assert outcome.tasks[0].status == "done" and seen["t1w"] is not None
    assert stems(tmp_path) == BOTH
    out = tmp_path / "out"
    assert read_labels(out / f"{STEM}_space-FLAIR_seg-wml_dseg.nii.gz").grid == FLAIR_GRID
    assert read_labels(out / f"{STEM}_seg-wml_dseg.nii.gz").grid == GRID
    (row,) = read_morph(out / f"{STEM}_seg-wml_morph.tsv")
    assert (row.volume_mm3, row.lesion_count, row.volume_brain_percent) == (4.0, 2, 25.0)
    with (out / f"{STEM}_seg-wml_lesions.tsv").open() as stream:
        one, other = csv.DictReader(stream, delimiter="\t")
    assert list(one) == list(LESION_COLUMNS)
    assert (one["volume_mm3"], one["x_mm"], one["location"]) == ("4.00", "1.5", "deep")
    assert other["location"] == "n/a"
    facts = sidecar(tmp_path, f"{STEM}_seg-wml_lesions")
    assert facts["LocationSources"] == {"ventricles": "fluid of the FLAIR"}
    assert facts["Locations"]["deep"] == {"Count": 1, "VolumeMM3": 4.0}
    assert facts["Locations"]["n/a"] == {"Count": 1, "VolumeMM3": 1.0}
    assert facts["Locations"]["infratentorial"]["Count"] == 0


def test_sidecars_tell_the_registration_the_inputs_and_the_grid(make, tmp_path):
    make(result(aligned=True, findings=(Finding("oblique", "info", "FLAIR: tilted"),)))
    for stem, scan in (
        (f"{STEM}_space-FLAIR_seg-wml_dseg", "FLAIR"),
        (f"{STEM}_seg-wml_dseg", "T1w"),
    ):
        tree = sidecar(tmp_path, stem)
        assert tree["SpatialReference"] == f"bids:raw:{STEM}_{scan}.nii.gz"
        assert set(tree["InputSHA256"]) == {
            f"bids:raw:{STEM}_{kind}.nii.gz" for kind in ("T1w", "FLAIR")
        }
        assert tree["Registration"]["Used"] is True
        assert tree["Registration"]["Quality"]["EdgeAgreement"] == 0.8
        assert tree["Registration"]["Matrix"][0] == [1, 0, 0, 1]
        assert set(tree["Software"]) == {"deepmrseg-bids", "torch", "antspyx"}
        assert set(tree["Models"]) == {"brain", "icv", "outline", "wml"}
        assert "FLAIR: tilted" in [one["Message"] for one in tree["Findings"]]
    methods = [stem for stem in BOTH if "Methods" in sidecar(tmp_path, stem)]
    assert methods == [f"{STEM}_space-FLAIR_seg-wml_dseg"]
    xfm = (tmp_path / "out" / f"{STEM}_from-FLAIR_to-T1w_mode-image_xfm.txt").read_text()
    # from points of the T1w to those of the FLAIR, LPS+: 1 mm to the left is towards +x
    assert "Parameters: 1 0 0 0 1 0 0 0 1 1 0 0" in xfm


def test_a_t1w_that_does_not_lie_on_the_flair_gets_no_lesions(make, tmp_path):
    make(result(aligned=False))
    assert stems(tmp_path) == ALONE
    tree = sidecar(tmp_path, f"{STEM}_space-FLAIR_seg-wml_dseg")
    assert tree["Registration"]["Used"] is False


def test_a_session_without_a_t1w_has_the_lesions_of_its_flair(make, tmp_path):
    outcome, _, seen = make(result(aligned=False), t1w=None, tasks=("brain", "wml"))
    assert seen["t1w"] is None and seen["flair"] is not None
    assert stems(tmp_path) >= ALONE
    assert list(outcome.images) == ["FLAIR"]
    assert outcome.images["FLAIR"].endswith("_FLAIR.nii.gz")
    tree = sidecar(tmp_path, f"{STEM}_seg-wml_morph")
    assert list(tree["InputSHA256"]) == [f"bids:raw:{STEM}_FLAIR.nii.gz"]
    assert "antspyx" not in tree["Software"]


def test_posteriors_are_written_on_both_grids(make, tmp_path):
    make(result(aligned=True), probabilities=True)
    assert stems(tmp_path) == BOTH | {
        f"{STEM}_seg-wml_probseg", f"{STEM}_space-FLAIR_seg-wml_probseg"
    }  # fmt: skip
    assert sidecar(tmp_path, f"{STEM}_seg-wml_probseg")["LabelMap"] == ["Brain"]


@pytest.mark.parametrize("aligned", [True, False])
def test_finished_lesions_are_found_again_until_an_image_changes(make, tmp_path, aligned):
    _, job, _ = make(result(aligned=aligned))
    out, digests = tmp_path / "out", Digests(tmp_path / "inputs.tsv")
    flair = job.images["FLAIR"]
    (found,) = FinishedWork(out, BUNDLES, digests).tasks(job)
    assert found.status == "resumed" and len(found.files) == 2 * len(BOTH if aligned else ALONE)
    there = Inventory.of(out, job.bids_dir, {"wml": job.spec("wml")})
    whole = there.find(job.subject, job.session, "wml")
    assert whole is not None and whole.whole and dict(whole.images) == dict(job.images)
    assert not FinishedWork(out, BUNDLES, digests).tasks(replace(job, probabilities=True))
    assert not FinishedWork(out, BUNDLES, digests).tasks(
        replace(job, images=images_of(flair=flair))
    )
    flair.write_bytes(flair.read_bytes() + b"\0")
    assert not FinishedWork(out, BUNDLES, Digests(tmp_path / "inputs.tsv")).tasks(job)


def test_a_lost_map_on_the_t1w_is_made_again(make, tmp_path):
    _, job, _ = make(result(aligned=True))
    (tmp_path / "out" / f"{STEM}_seg-wml_dseg.nii.gz").unlink()
    assert not FinishedWork(tmp_path / "out", BUNDLES, Digests(tmp_path / "inputs.tsv")).tasks(job)


def test_a_flair_that_cannot_be_read_costs_the_lesions_alone(make, tmp_path, write_scan):
    broken = tmp_path / "raw/sub-01/ses-2/anat/sub-01_ses-2_acq-x_FLAIR.nii.gz"
    broken.write_bytes(b"no image")
    other = ImageReadError("stands for the result of brain")
    outcome, _, seen = make(other, flair=broken, tasks=("brain", "wml"))
    reasons = {task.task: task.reason for task in outcome.tasks}
    assert "acq-x_FLAIR" in reasons["wml"] and "stands for" in reasons["brain"]
    assert seen["tasks"] == ("brain",)


def test_the_same_lesions_give_the_same_bytes(make, tmp_path):
    def all_bytes():
        return {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}

    make(result(aligned=True), probabilities=True)
    first = all_bytes()
    make(result(aligned=True), probabilities=True, force=True)
    assert all_bytes() == first
