"""FLAIR and T1w of real sessions through the real app: on other grids, and of two people."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from deepmrseg_bids.files import read_json
from tests.integration.conftest import Finished, app, make_dataset, read_tsv

Say = Callable[[str], None]


@pytest.fixture(scope="module")
def run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """sub-01 has its own FLAIR, sub-02 that of sub-04: OUT_DIR and how the run ended."""
    root = make_dataset(tmp_path_factory.mktemp("pairs") / "bids")
    clinical = shared_data / "wml" / "clinical"
    for subject, other in (("01", "01"), ("02", "04")):
        folder = root / f"sub-{subject}" / "anat"
        folder.mkdir(parents=True)
        for suffix, source in (("T1w", subject), ("FLAIR", other)):
            scan = clinical / f"sub-{source}" / "anat" / f"sub-{source}_{suffix}.nii.gz"
            shutil.copyfile(scan, folder / f"sub-{subject}_{suffix}.nii.gz")
    out = root.parent / "out"
    ended = app(root, out, "participant", "--tasks", "wml", "--no-reports",
                home=tmp_path_factory.mktemp("h") / "h")  # fmt: skip
    return out, ended


@pytest.mark.shared_data
@pytest.mark.robustness(
    "FLAIR on another grid", tried="a clinical FLAIR whose grid is not that of the T1w"
)
def test_a_flair_on_another_grid_is_registered_and_both_grids_get_their_map(
    run, came_out: Say
) -> None:
    out, ended = run
    anat = out / "sub-01" / "anat"
    here = nib.load(anat / "sub-01_seg-wml_dseg.nii.gz")
    there = nib.load(anat / "sub-01_space-FLAIR_seg-wml_dseg.nii.gz")
    assert here.shape != there.shape
    volumes = [np.count_nonzero(np.asarray(image.dataobj)) * 8.0 for image in (here, there)]
    assert min(volumes) > 1000 and max(volumes) < 1.01 * min(volumes)
    assert read_json(anat / "sub-01_seg-wml_dseg.json")["SpatialReference"]
    (row,) = read_tsv(anat / "sub-01_seg-wml_morph.tsv")
    assert float(row["volume_mm3"]) > 1000 and int(row["lesion_count"]) > 0
    findings = next(r["findings"] for r in read_tsv(out / "logs" / "sessions.tsv")
                    if r["participant_id"] == "sub-01")  # fmt: skip
    assert "flair-misaligned" not in findings, ended.output
    came_out("registered; lesions on the grids of both scans, of the same volume")


@pytest.mark.shared_data
@pytest.mark.robustness(
    "FLAIR of another participant", tried="the FLAIR of another patient instead of the correct one"
)
def test_the_flair_of_another_person_is_flagged_and_used_alone(run, came_out: Say) -> None:
    out, _ = run
    anat = out / "sub-02" / "anat"
    assert (anat / "sub-02_space-FLAIR_seg-wml_dseg.nii.gz").exists()
    assert not (anat / "sub-02_seg-wml_dseg.nii.gz").exists()
    row = next(r for r in read_tsv(out / "logs" / "sessions.tsv")
               if r["participant_id"] == "sub-02")  # fmt: skip
    assert row["status"] == "done" and "flair-misaligned" in row["findings"]
    came_out("flagged with the error flair-misaligned; lesions from the FLAIR alone, on its grid")
