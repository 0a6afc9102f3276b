"""Label maps in the spaces of templates, by the real command on a scan that is turned and PSR."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from tests.integration.conftest import (
    Finished,
    add_scan,
    app,
    coarse,
    make_dataset,
    make_templates,
    read_tsv,
)

STEM = "sub-01/anat/sub-01"
ASKED = ("participant", "--tasks", "deepbrain", "--no-reports", "--output-spaces", "T1w")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with one scan, and a folder of templates."""
    root = tmp_path_factory.mktemp("spaces")
    raw = make_dataset(root / "bids")
    image = coarse(2)
    codes = nib.orientations.axcodes2ornt
    turn = nib.orientations.ornt_transform(codes("RAS"), codes("PSR"))
    stored = image.as_reoriented(turn)
    moved = np.eye(4)
    moved[:3, :3] = Rotation.from_euler("xyz", (7, -5, 9), degrees=True).as_matrix()
    moved[:3, 3] = (8, -12, 20)
    add_scan(raw, "sub-01_T1w", nib.Nifti1Image(stored.dataobj, moved @ stored.affine))
    make_templates(root / "templates")
    return root


def run(place: Path, *arguments: object) -> Finished:
    return app(
        place / "bids", place / "out", *ASKED, *arguments,
        home=place / "home", variables={"TEMPLATEFLOW_HOME": str(place / "templates")}, cold=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def out(place: Path) -> Path:
    """What a run with one template has made."""
    ended = run(place, "Average", "--nprocs", 1)
    assert ended.code == 0, ended.output
    return place / "out"


def labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(path)
    return np.asarray(image.dataobj), image.affine


def test_labels_lie_on_the_grid_of_the_template(place: Path, out: Path) -> None:
    template = nib.load(place / "templates/tpl-Average/tpl-Average_res-01_T1w.nii.gz")
    data, affine = labels(out / f"{STEM}_space-Average_seg-deepbrain_dseg.nii.gz")
    assert data.shape == template.shape and data.dtype == np.uint8
    np.testing.assert_allclose(affine, template.affine, atol=1e-4)


def test_structures_lie_where_they_lie_in_the_template(place: Path, out: Path) -> None:
    """The scan is the template in another place, so their middles are known."""
    data, affine = labels(out / f"{STEM}_space-Average_seg-deepbrain_dseg.nii.gz")
    native, there = labels(out / f"{STEM}_seg-deepbrain_dseg.nii.gz")
    scan = nib.load(place / "bids/sub-01/anat/sub-01_T1w.nii.gz")
    back = coarse(2).as_reoriented(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt("PSR")
        )
    ).affine @ np.linalg.inv(scan.affine)
    for row in read_tsv(out / "seg-deepbrain_dseg.tsv"):
        code, name = int(row["index"]), row["name"]
        middle = apply_affine(affine, np.argwhere(data == code).mean(axis=0))
        expected = apply_affine(back @ there, np.argwhere(native == code).mean(axis=0))
        assert np.linalg.norm(middle - expected) < 2.5, name  # of voxels of 4 mm
        assert (middle[0] < 0) == name.startswith("Left"), name
        volume = (data == code).sum() * 64 / ((native == code).sum() * 8)
        assert 0.6 < volume < 1.5, name


def test_transforms_stand_beside_with_the_quality_of_the_registration(out: Path) -> None:
    for ending in ("from-T1w_to-Average", "from-Average_to-T1w"):
        assert (out / f"{STEM}_{ending}_mode-image_xfm.h5").stat().st_size > 1000
        tree = json.loads((out / f"{STEM}_{ending}_mode-image_xfm.json").read_text())
        assert tree["RegistrationQuality"]["Correlation"] > 0.6
        assert tree["RegistrationQuality"]["BrainOverlap"] > 0.9
        assert tree["Software"]["antspyx"]
    names = {path.name for path in (out / "sub-01/anat").iterdir()}
    assert not any("desc-brain" in name for name in names)  # the mask was not asked for


def test_the_sidecar_names_the_template(out: Path) -> None:
    tree = json.loads((out / f"{STEM}_space-Average_seg-deepbrain_dseg.json").read_text())
    uri = "bids:templateflow:tpl-Average/tpl-Average_res-01_T1w.nii.gz"
    assert tree["SpatialReference"] == uri
    assert tree["Sources"][0] == "bids:raw:sub-01/anat/sub-01_T1w.nii.gz"
    assert uri in tree["Sources"] and set(tree["Sources"]) == set(tree["InputSHA256"])
    assert tree["Resolution"].startswith("4 x 4 x 4 mm")
    assert tree["Parameters"]["Registration"]["Type"] == "affine, then SyN"


def test_the_table_of_sessions_has_a_row_for_the_space(out: Path) -> None:
    rows = {row["task"]: row["status"] for row in read_tsv(out / "logs/sessions.tsv")}
    assert rows["space-Average"] in ("done", "resumed")


def test_another_space_makes_only_what_is_missing(place: Path, out: Path) -> None:
    def made() -> dict[str, int]:
        return {p.name: p.stat().st_mtime_ns for p in (out / "sub-01/anat").iterdir()}

    before = made()
    ended = run(place, "Average", "Average:res-2", "--nprocs", 1)
    assert ended.code == 0, ended.output
    after = made()
    assert {name: after[name] for name in before} == before
    stem = "sub-01_space-Average_seg-deepbrain_res-2_dseg"
    assert set(after) - set(before) == {f"{stem}.nii.gz", f"{stem}.json"}
    rows = {row["task"]: row["status"] for row in read_tsv(out / "logs/sessions.tsv")}
    assert rows["space-Average_res-2"] == "done"
    assert rows["space-Average"] == rows["deepbrain"] == "resumed"
    again = run(place, "Average", "Average:res-2", "--nprocs", 1)
    assert again.code == 0 and "1 of 1 session completed" in again.output
    assert list((place / "home").iterdir()) == []


@pytest.mark.validator
def test_output_spaces_pass_the_bids_validator(out: Path, tmp_path: Path) -> None:
    executable = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    executable = executable or shutil.which("bids-validator-deno")
    if executable is None:
        pytest.skip("bids-validator-deno is not installed")
    config = Path(__file__).parents[2] / "bids_validator_config.json"
    report = tmp_path / "report.json"
    ended = subprocess.run(
        [executable, out, "--format", "json", "-o", report, "-c", config],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    issues = json.loads(report.read_text())["issues"]["issues"]
    errors = [issue for issue in issues if issue["severity"] == "error"]
    assert ended.returncode == 0 and not errors, errors


@pytest.mark.robustness(
    "TemplateFlow template not installed and no network",
    tried="`--output-spaces MNI152NLin2009cAsym` with an empty TEMPLATEFLOW_HOME, "
    "and a proxy that does not exist",
)
def test_a_template_that_cannot_be_had_stops_the_run_before_any_work(
    place: Path, tmp_path: Path, came_out: Callable[[str], None]
) -> None:
    nowhere = dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9")
    ended = app(
        place / "bids", tmp_path / "out", "participant", "--output-spaces", "MNI152NLin2009cAsym",
        home=tmp_path / "home",
        variables={"TEMPLATEFLOW_HOME": str(tmp_path / "templates"), **nowhere}, cold=True,
    )  # fmt: skip
    assert ended.code == 2, ended.output
    assert "MNI152NLin2009cAsym" in ended.output and "TEMPLATEFLOW_HOME" in ended.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]
    assert list((tmp_path / "home").iterdir()) == []
    error = next(line for line in ended.output.splitlines() if line.startswith("error: "))
    came_out(f"exit code 2, nothing written: {error.partition(' and cannot')[0]}")


@pytest.mark.parametrize(
    ("space", "says"),
    [("MNI152", "MNI152NLin6Asym"), ("T1w:res-1", "modifier")],
)
def test_unknown_spaces_are_usage_errors_that_list_the_known(
    place: Path, tmp_path: Path, space: str, says: str
) -> None:
    ended = app(
        place / "bids", tmp_path / "out", "participant", "--output-spaces", space,
        home=tmp_path / "home", variables={"TEMPLATEFLOW_HOME": str(place / "templates")},
    )  # fmt: skip
    assert ended.code == 2 and says in ended.output, ended.output
    assert not (tmp_path / "out").exists()
